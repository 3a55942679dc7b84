"""Supervised tasks, none of which ends unnoticed: short ones (`Tasks`), and those that run as long as the process
(`LongLived`)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterable
from types import TracebackType
from typing import Any, TypeVar

import structlog

from ari_conf.errors import REPORT_HINT, TaskEnded

log = structlog.get_logger()

Work = Coroutine[Any, Any, Any]
T = TypeVar("T")
CANCEL_RETRY_S = 1.0


async def cancel_and_wait(*tasks: asyncio.Task[Any]) -> None:
    """Cancel the tasks, and wait until they have ended. Their exceptions are not raised.

    The cancellation is repeated every CANCEL_RETRY_S: `asyncio.wait_for` of Python 3.11, which redis-py uses, loses one
    that arrives just when the awaited work is done."""
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=CANCEL_RETRY_S)


async def run_until(stops: Iterable[Work], work: asyncio.Task[Any]) -> bool:
    """Return True if the work was done before one of `stops` was; otherwise cancel it. Raises what the work raises."""
    stopping = [asyncio.create_task(stop) for stop in stops]
    try:
        await asyncio.wait((work, *stopping), return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            work.result()
        return work.done() and not any(stop.done() for stop in stopping)
    finally:
        await cancel_and_wait(work, *stopping)
        if not work.cancelled():
            work.exception()  # retrieves it, even if the work ended too late


async def for_each(things: Iterable[T], work: Callable[[T], Work], at_once: int) -> None:
    """Do the work for all things in order, `at_once` at a time. An exception is raised, and ends the others."""
    left = iter(things)

    async def work_off() -> None:
        for thing in left:
            await work(thing)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(work_off())
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from several.exceptions[0].__cause__


class Tasks:
    """Short tasks of one component. An exception that a task does not handle is a bug, and is logged."""

    def __init__(self, defect: str = "background task raised") -> None:
        """Start without tasks. `defect` is the log event for an exception."""
        self._defect = defect
        self._running: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._running)

    def start(self, work: Work) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._on_ended)
        return task

    async def wait_for_one(self) -> None:
        """Wait until at least one of the running tasks has ended."""
        if self._running:
            await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
        else:
            await asyncio.sleep(0)

    async def wait_until_idle(self) -> None:
        """Wait until no task is left, including those that are started in the meantime."""
        while self._running:
            await asyncio.wait(self._running)

    def cancel(self) -> None:
        for task in tuple(self._running):
            task.cancel()

    async def close(self) -> None:
        """Cancel all tasks, and wait until they have ended."""
        await cancel_and_wait(*self._running)

    async def finish(self, within_s: float) -> None:
        """Wait until no task is left, `within_s` seconds at most; then close."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self.wait_until_idle()
        await self.close()

    def _on_ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error(self._defect, exc_info=error, hint=REPORT_HINT)


class LongLived:
    """Task group for tasks that run as long as its body:

        async with LongLived() as tasks:
            tasks.keep("the writer", writer.run)

    If one of them ends, for whatever reason, the body and all other tasks are canceled, and TaskEnded is raised. When
    the body ends, the tasks are canceled.
    """

    def __init__(self) -> None:
        self._group = asyncio.TaskGroup()
        self._tasks: list[asyncio.Task[None]] = []

    def keep(
        self, name: str, work: Callable[[], Work], may_end: Callable[[], bool] = lambda: False
    ) -> asyncio.Task[None]:
        """Start a task. `name` is its name in the log. `may_end` returns True if the task may have ended now."""
        task = self._group.create_task(_run_until_end(name, work, may_end))
        self._tasks.append(task)
        return task

    async def __aenter__(self) -> LongLived:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await cancel_and_wait(*self._tasks)
        try:
            await self._group.__aexit__(kind, error, trace)
        except BaseExceptionGroup as group:
            # An exception of the body is raised as it is. If several tasks ended, nearly always the first is the cause.
            raise group.exceptions[0] from group.exceptions[0].__cause__


async def _run_until_end(name: str, work: Callable[[], Work], may_end: Callable[[], bool]) -> None:
    try:
        await work()
    except Exception as error:
        raise TaskEnded(f"{name} raised {type(error).__name__}: {error}") from error
    if not may_end():
        raise TaskEnded(f"{name} has ended: it must run as long as the process")

"""Tests of supervision: no task ends unnoticed. A short task that raises is logged; with a long-lived one its process
ends."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from ari_conf.common import supervision
from ari_conf.common.supervision import LongLived, Tasks, run_until
from ari_conf.errors import REPORT_HINT, SetupFailed, TaskEnded
from tests import lateness


async def breaks() -> None:
    raise ZeroDivisionError("by nothing")


async def returns() -> None:
    await asyncio.sleep(0)


async def test_an_exception_of_a_short_task_is_logged() -> None:
    tasks = Tasks()
    with capture_logs() as logged:
        tasks.start(breaks())
        tasks.start(returns())
        await tasks.wait_until_idle()
    (line,) = logged
    assert line["hint"] == REPORT_HINT and isinstance(line["exc_info"], ZeroDivisionError)
    assert len(tasks) == 0


async def test_closed_tasks_have_ended() -> None:
    tasks, ended = Tasks(), asyncio.Event()

    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    tasks.start(waits())
    await asyncio.sleep(0)
    with capture_logs() as logged:
        await tasks.close()
    assert ended.is_set() and len(tasks) == 0 and logged == []


@pytest.mark.parametrize(("work", "why"), [(breaks, "ZeroDivisionError: by nothing"), (returns, "has ended")])
async def test_the_end_of_a_long_lived_task_ends_the_body_and_the_others(work: object, why: str) -> None:
    other_ended = asyncio.Event()

    async def other() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            other_ended.set()

    body_cancelled = False
    with pytest.raises(TaskEnded, match=f"the worker .*{why}") as ended:
        async with LongLived() as tasks:
            tasks.keep("the other", other)
            await asyncio.sleep(0)
            tasks.keep("the worker", work)  # type: ignore[arg-type]
            try:
                await lateness.soon(asyncio.Event().wait())
            except asyncio.CancelledError:
                body_cancelled = True
                raise
    assert body_cancelled and other_ended.is_set()
    if work is breaks:
        assert isinstance(ended.value.__cause__, ZeroDivisionError)


async def test_all_tasks_end_with_the_body() -> None:
    async with LongLived() as tasks:
        # A task that has not even started.
        task = tasks.keep("the worker", asyncio.Event().wait)
    assert task.cancelled()


async def test_a_task_may_end_when_may_end_says_so() -> None:
    over = False
    async with LongLived() as tasks:
        task = tasks.keep("the worker", returns, may_end=lambda: over)
        over = True
        await task
        await asyncio.sleep(0)


async def test_an_exception_of_the_body_is_raised_unchanged() -> None:
    with pytest.raises(SetupFailed, match="no port"):
        async with LongLived() as tasks:
            tasks.keep("the worker", asyncio.Event().wait)
            raise SetupFailed("no port")


async def test_a_lost_cancellation_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.11's wait_for loses a cancellation that arrives just when the awaited object is done."""
    monkeypatch.setattr(supervision, "CANCEL_RETRY_S", 0.01)
    lost = 0

    async def loses() -> None:
        nonlocal lost
        for _ in range(2):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                lost += 1
        await asyncio.Event().wait()

    async with lateness.timeout():
        async with LongLived() as tasks:
            tasks.keep("the worker", loses)
            await asyncio.sleep(0)
        short = Tasks()
        short.start(loses())
        await asyncio.sleep(0)
        await short.close()
    assert lost == 4


async def test_for_each_runs_at_most_so_many_concurrently() -> None:
    running = most = 0
    done: list[int] = []

    async def work(n: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        done.append(n)

    await supervision.for_each(range(20), work, 3)
    assert (sorted(done), most) == (list(range(20)), 3)


async def test_an_exception_in_for_each_is_raised_unchanged_and_ends_the_others() -> None:
    begun: list[int] = []

    async def work(n: int) -> None:
        begun.append(n)
        if n == 1:
            raise ZeroDivisionError
        await asyncio.Event().wait()

    with pytest.raises(ZeroDivisionError):
        await supervision.for_each(range(20), work, 3)
    assert begun == [0, 1, 2]


async def test_work_is_done_before_the_stop_or_canceled() -> None:
    async def raises() -> None:
        raise ZeroDivisionError

    stop = asyncio.Event()
    assert await run_until((stop.wait(),), asyncio.create_task(asyncio.sleep(0)))
    with pytest.raises(ZeroDivisionError):
        await run_until((stop.wait(),), asyncio.create_task(raises()))
    endless = asyncio.create_task(asyncio.Event().wait())
    asyncio.get_running_loop().call_soon(stop.set)
    assert not await run_until((stop.wait(),), endless)
    assert endless.cancelled()


async def test_work_that_is_done_together_with_the_stop_was_not_in_time() -> None:
    assert not await run_until((asyncio.sleep(0),), asyncio.create_task(asyncio.sleep(0)))

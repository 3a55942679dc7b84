"""Does what the schedule says, and notes when each part was whole again."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Literal

from ari_conf.errors import SetupFailed
from ari_conf.up import System
from demo.phone import now_ms
from tests.chaos.applications import NAMES, Applications
from tests.chaos.schedule import BY_NAME, Fault
from tests.chaos.seen import Injected
from tests.chaos.socket_proxy import SocketProxy
from tests.chaos.witness import prefer

NOTICED_S = 5.0
"""A half-open WebSocket is noticed by then."""
RECONNECTED_S = 1.0
STARTS = 3


Told = Literal["died", "back"]


class Faults:
    def __init__(
        self,
        system: System,
        applications: Applications,
        proxy: SocketProxy,
        asterisk: Callable[[Told], None],
        tell: Callable[[str], None],
    ) -> None:
        """`asterisk` is told of its death and its return."""
        self.system = system
        self._applications = applications
        self.injected: list[Injected] = []
        self.failed: list[tuple[float, str]] = []
        """(when, why) a part did not start."""
        self._returning: asyncio.Task[None] | None = None
        self._proxy, self._asterisk, self._tell = proxy, asterisk, tell
        self._parts: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def run(self, schedule: Sequence[Fault], began_ms: float) -> None:
        """Returns once all has happened, and every part is whole again."""
        async with asyncio.TaskGroup() as group:
            for fault in schedule:
                await asyncio.sleep(max(0.0, fault.at_s - (now_ms() - began_ms) / 1000))
                group.create_task(self._inject(fault, began_ms))

    async def _inject(self, fault: Fault, began_ms: float) -> None:
        kind = BY_NAME[fault.kind]
        async with self._parts[kind.part]:
            start_ms = now_ms()
            ready_s = await self._do(kind.part, fault)
            self.injected.append(Injected(fault.kind, start_ms, now_ms(), ready_s))
            if self._returning is not None:
                await self._returning
                self._returning = None
        ready = f", ready in {ready_s:.1f} s" if ready_s else ""
        self._tell(f"{(start_ms - began_ms) / 1000:6.1f} s  {fault.kind}{ready}")

    async def _do(self, part: str, fault: Fault) -> float:
        if part == "serve":
            return await self._application(fault)
        match fault.kind.split()[-1]:
            case "paused":
                await self._pause(self.system.process(part).pid, fault.for_s)
                return 0.0
            case "closed":
                self._proxy.close_all()
                await asyncio.sleep(RECONNECTED_S)
                return 0.0
            case "half-open":
                return await self._freeze(fault.for_s)
            case "stopped":
                await self.system.stop(part)
            case "killed" if part == "asterisk":
                return await self._kill_asterisk(fault.for_s)
            case "killed":
                await self.system.kill(part)
            case other:
                raise AssertionError(f"nobody knows how to do this: {other}")
        await asyncio.sleep(fault.for_s)
        return await self._start(part)

    async def _start(self, part: str) -> float:
        began = time.monotonic()
        for _ in range(STARTS):
            try:
                await self.system.start(part)
                break
            except SetupFailed as error:
                # Told, and not the end: what comes after it is to be judged as well.
                self.failed.append((now_ms(), f"{part} did not start: {str(error).splitlines()[0]}"))
        return time.monotonic() - began

    async def _application(self, fault: Fault) -> float:
        """That which serves; the seconds until one serves again."""
        applications = self._applications
        owner = applications.owner
        match fault.kind:
            case "application paused":
                await self._pause(applications.pid(owner), fault.for_s)
                return await applications.served()
            case "application stopped":
                began = time.monotonic()
                await applications.stop(owner)
                await applications.served()
                took = time.monotonic() - began
            case "application killed":
                applications.kill(owner)
                took = await applications.served()
            case "both applications killed":
                applications.kill(*NAMES)
                await asyncio.sleep(fault.for_s)
                began = time.monotonic()
                await applications.start_missing()
                await applications.served()
                return time.monotonic() - began
            case other:
                raise AssertionError(f"nobody knows how to do this: {other}")
        self._back(owner, fault.for_s)
        return took

    def _back(self, name: str, after_s: float) -> None:
        """As a standby."""

        async def later() -> None:
            await asyncio.sleep(after_s)
            await self._applications.start(name)

        self._returning = asyncio.create_task(later())

    async def _pause(self, pid: int, seconds: float) -> None:
        # And what it has started.
        os.killpg(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            os.killpg(pid, signal.SIGCONT)

    async def _freeze(self, seconds: float) -> float:
        links = self._proxy.freeze()
        await asyncio.sleep(seconds)
        for link in links:
            link.abort()
        return 0.0

    async def _kill_asterisk(self, seconds: float) -> float:
        self._asterisk("died")
        await self.system.kill("asterisk")
        await asyncio.sleep(seconds)
        ready_s = await self._start("asterisk")
        prefer(self.system.process("asterisk").pid)
        self._asterisk("back")
        return ready_s

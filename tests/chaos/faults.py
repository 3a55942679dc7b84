"""Fault injection: carries out the schedule and records the time at which each component worked again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from ari_conf.errors import SetupFailed
from ari_conf.local.processes import Process
from ari_conf.local.system import LocalSystem
from demo.phone import now_ms
from tests.chaos.applications import NAMES, Applications
from tests.chaos.schedule import BY_NAME, Fault
from tests.chaos.seen import Injected
from tests.chaos.socket_proxy import SocketProxy
from tests.chaos.witness import prefer
from tests.lateness import Patience

RECONNECTED_S = 1.0
MOMENT_S, LOOK_S = 15.0, 0.005
"""Seconds within which a beep detection, a speech synthesis or a conversion runs, since some callers cause them."""
STARTS = 3


Told = Literal["died", "back"]


class Faults:
    def __init__(
        self,
        system: LocalSystem,
        applications: Applications,
        proxy: SocketProxy,
        asterisk: Callable[[Told], None],
        tell: Callable[[str], None],
    ) -> None:
        """Create the injector. `asterisk` receives Asterisk's death and return."""
        self.system = system
        self._applications = applications
        self.injected: list[Injected] = []
        self.failed: list[tuple[float, str]] = []
        """(time, reason) of each failed start of a component."""
        self.moments = 0
        """The number of awaited moments that occurred."""
        self._returning: asyncio.Task[None] | None = None
        self._proxy, self._asterisk, self._tell = proxy, asterisk, tell
        self._parts: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def run(self, schedule: Sequence[Fault], began_ms: float) -> None:
        """Inject all faults, and return once every component works again."""
        async with asyncio.TaskGroup() as group:
            for fault in schedule:
                await asyncio.sleep(max(0.0, fault.at_s - (now_ms() - began_ms) / 1000))
                group.create_task(self._inject(fault, began_ms))

    async def watch(self) -> None:
        """Watch for crashes: Asterisk must not end unless it is killed.

        A crash is reported and Asterisk restarted, so that the rest of the run can be judged too.
        """
        while True:
            for process in self.system.exited_processes():
                if process.name == "asterisk":
                    async with self._parts["asterisk"]:
                        await self._crashed(process)
            await asyncio.sleep(LOOK_S)

    async def _crashed(self, process: Process) -> None:
        start_ms = now_ms()
        self.failed.append((start_ms, f"{process.end}, and nobody had killed it"))
        self._asterisk("died")
        self.system._running.pop("asterisk")
        ready_s = await self._start("asterisk")
        prefer(self.system.process("asterisk").pid)
        self._asterisk("back")
        self.injected.append(Injected("asterisk killed", start_ms, now_ms(), ready_s))

    async def _inject(self, fault: Fault, began_ms: float) -> None:
        kind = BY_NAME[fault.kind]
        async with self._parts[kind.part]:
            await self._moment(fault.kind)
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
                # Reported without ending the run, so that the rest can be judged too.
                self.failed.append((now_ms(), f"{part} did not start: {str(error).splitlines()[0]}"))
        return time.monotonic() - began

    async def _application(self, fault: Fault) -> float:
        """Inject a fault into the active server, and return the seconds until a server is active again."""
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
            case "application killed listening" | "application killed rendering":
                applications.kill_alone(owner)
                took = await applications.served()
            case "application killed taking over":
                return await self._kill_the_next(owner, fault.for_s)
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

    async def _kill_the_next(self, owner: str, after_s: float) -> float:
        next_one = self._applications.another(owner)
        taking = asyncio.create_task(self._applications.takes_over(next_one))
        await asyncio.sleep(0)  # let the task count the log events so far
        self._applications.kill(owner)
        await taking
        await asyncio.sleep(after_s)
        self._applications.kill(next_one)
        began = time.monotonic()
        await self._applications.start_missing()
        await self._applications.served()
        return time.monotonic() - began

    async def _moment(self, kind: str) -> None:
        """Wait for the right moment of a fault. If it never comes, the fault happens anyway; the figures count the
        moments."""
        is_so = {"application killed listening": self._listens, "application killed rendering": self._renders}.get(kind)
        if is_so is None:
            return
        patience = Patience(MOMENT_S)
        while not await asyncio.to_thread(is_so):
            if patience.over:
                return
            await asyncio.sleep(LOOK_S)
        self.moments += 1

    def _listens(self) -> bool:
        """Return True if Asterisk sends a channel's audio to the active server."""
        assert self.system._asterisk is not None, "it has one of its own"
        with contextlib.suppress(OSError):
            channels: Any = self.system._asterisk.ask("GET", "/channels")
            return any(channel["name"].startswith("MulticastRTP/") for channel in channels)
        return False

    def _renders(self) -> bool:
        """Return True if the active server waits for a child process."""
        pid = self._applications.pid(self._applications.owner)
        return bool(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())

    def _back(self, name: str, after_s: float) -> None:
        """Restart the server later, as a standby."""

        async def later() -> None:
            await asyncio.sleep(after_s)
            await self._applications.start(name)

        self._returning = asyncio.create_task(later())

    async def _pause(self, pid: int, seconds: float) -> None:
        # The whole process group, child processes included.
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

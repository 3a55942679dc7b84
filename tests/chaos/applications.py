"""Two `ari-conf serve` processes for one Asterisk: faults hit the active server, and the other must take over."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from ari_conf.common.setting_sources import VARIABLE_PREFIX
from ari_conf.local import processes
from ari_conf.local.processes import Process, free_port
from ari_conf.local.system import LocalSystem
from tests.lateness import Patience

SERVES, WAITS = "reconciliation completed", "standby started"
"""Log events: the first when the state and Asterisk agree."""
SAYS = re.compile(f"{SERVES}|{WAITS}")
OWNS = re.compile(r'"event": ?"lease acquired"')
"""The log event of a server that has the lease and starts to take over."""
NAMES = ("serve", "standby")
TAKEN_S = 30.0
"""Seconds after which no takeover is expected any more; the callers' findings report it."""
LOOK_S = 0.05


class Applications:
    def __init__(self, system: LocalSystem) -> None:
        self._system = system
        self._running = {"serve": system.process("serve")}
        self._metrics = {
            "serve": system.values[VARIABLE_PREFIX + "METRICS_LISTEN"],
            "standby": f"127.0.0.1:{free_port()}",
        }

    @property
    def owner(self) -> str:
        """Return the name of the active server; if none is known, of any running one."""
        return next((name for name in self._running if self._last_word(name) == SERVES), next(iter(self._running)))

    def pid(self, name: str) -> int:
        return self._running[name].pid

    async def start(self, name: str) -> float:
        """Start a server, and return the seconds until it is active or stands by."""
        began = time.monotonic()
        others = {key: value for key, value in os.environ.items() if not key.startswith(VARIABLE_PREFIX)}
        self._running[name] = await processes.start(
            name,
            [sys.executable, "-m", "ari_conf", "serve"],
            self._system.log(name),
            ready=processes.log_matches(SAYS.pattern),
            environment=others | self._system.values | {VARIABLE_PREFIX + "METRICS_LISTEN": self._metrics[name]},
        )
        return time.monotonic() - began

    async def start_missing(self) -> None:
        await asyncio.gather(*(self.start(name) for name in NAMES if name not in self._running))

    def kill(self, *names: str) -> None:
        # Both are forgotten first, so that none sees the death of another.
        gone = [self._forget(name) for name in names]
        for process in gone:
            processes.kill(process)

    def kill_alone(self, name: str) -> None:
        """Kill the server only; its child processes, such as ffmpeg or a voice, continue."""
        process = self._forget(name)
        os.kill(process.pid, signal.SIGKILL)
        process.popen.wait()

    def another(self, name: str) -> str:
        return next(other for other in NAMES if other != name)

    async def takes_over(self, name: str) -> None:
        """Wait until the server starts to take over, at most TAKEN_S seconds."""
        words = len(OWNS.findall(self._running[name].read_log()))
        patience = Patience(TAKEN_S)
        while len(OWNS.findall(self._running[name].read_log())) == words and not patience.over:  # noqa: ASYNC110
            await asyncio.sleep(LOOK_S)

    async def stop(self, name: str) -> None:
        await processes.stop(self._forget(name))

    async def served(self) -> float:
        """Wait until one server is active, and return the seconds."""
        began = time.monotonic()
        patience = Patience(TAKEN_S)
        while not patience.over and not any(self._last_word(name) == SERVES for name in self._running):  # noqa: ASYNC110
            await asyncio.sleep(LOOK_S)
        return time.monotonic() - began

    def _last_word(self, name: str) -> str:
        words: list[str] = SAYS.findall(self._running[name].read_log())
        return words[-1] if words else ""

    def _forget(self, name: str) -> Process:
        self._system._running.pop(name, None)  # this object ends the process
        return self._running.pop(name)


@asynccontextmanager
async def two(system: LocalSystem) -> AsyncGenerator[Applications]:
    applications = Applications(system)
    await applications.start_missing()
    try:
        yield applications
    finally:
        for name in tuple(applications._running):
            await applications.stop(name)

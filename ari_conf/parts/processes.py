"""Programs that we start, wait for and stop: those and no others."""

from __future__ import annotations

import asyncio
import ctypes
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ari_conf.errors import SetupFailed

Ready = Callable[["Process"], bool]
"""True once the program does its work; asked again and again until then."""

LOOK_AGAIN = 0.02
"""Seconds. A program tells us nothing when its port opens or its log grows, so we look."""

READY_S = 90.0
"""After which a program that runs, and does not say that it is ready, has failed. A worker yields to what else runs,
and needs half a minute on a machine that is busy; one that ends is noticed at once."""

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1


@dataclass
class Process:
    name: str
    log: Path
    popen: subprocess.Popen[bytes]
    log_start: int = 0
    """Where this run begins in the log, which is kept from run to run."""

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def running(self) -> bool:
        return self.popen.poll() is None

    @property
    def end(self) -> str:
        """How it ended, such as "Asterisk ended with signal 11"; empty while it runs."""
        code = self.popen.poll()
        if code is None:
            return ""
        # A program that a shell ran has 128 and the signal's number as its code.
        number = -code if code < 0 else code - 128
        return f"{self.name.capitalize()} ended with " + (f"signal {number}" if number > 0 else f"code {code}")

    def logged(self) -> str:
        """What this run has written to its log."""
        with suppress(OSError), self.log.open("rb") as file:
            file.seek(self.log_start)
            return file.read().decode(errors="replace")
        return ""

    def last_words(self, lines: int = 8) -> str:
        return "\n".join(self.logged().splitlines()[-lines:]) or "(nothing)"


def answers(host: str, port: int) -> Ready:
    def ready(_process: Process) -> bool:
        return port_answers(host, port)

    return ready


def logs(pattern: str) -> Ready:
    """Ready once a line of the log matches the regular expression."""
    wanted = re.compile(pattern)
    return lambda process: wanted.search(process.logged()) is not None


def at_once(_process: Process) -> bool:
    return True


def port_answers(host: str, port: int) -> bool:
    with suppress(OSError), socket.create_connection((host, port), timeout=0.5):
        return True
    return False


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM, host: str = "127.0.0.1") -> int:
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind((host, 0))
        return int(taken.getsockname()[1])


def is_free(port: int, kind: socket.SocketKind = socket.SOCK_STREAM, host: str = "127.0.0.1") -> bool:
    with socket.socket(socket.AF_INET, kind) as taken, suppress(OSError):
        if kind is socket.SOCK_STREAM:
            # As servers do: what a closed connection leaves behind for a minute doesn't count.
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((host, port))
        return True
    return False


async def start(
    name: str,
    command: Sequence[str | Path],
    log: Path,
    *,
    ready: Ready = at_once,
    deadline: float = READY_S,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Process:
    """Starts the command, its output in `log`, and waits until it is ready.

    Raises SetupFailed, with the end of its log, if it is missing, ends before it is ready, or is not ready in
    `deadline` seconds; it is stopped then. It ends when this process does, however that ends.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    parent = os.getpid()
    with log.open("ab") as file:
        # Before it is started: the place in the file is shared with the program, which moves it by what it writes.
        log_start = file.tell()
        try:
            # Not asyncio's: with this the kernel tells us of the end, whichever loop started it.
            popen = subprocess.Popen(  # noqa: ASYNC220
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=None if environment is None else dict(environment),
                cwd=folder,
                # Of its own, so that Ctrl-C reaches us alone, and we stop the parts in their order.
                start_new_session=True,
                preexec_fn=lambda: _end_with(parent),
            )
        except OSError as error:
            raise SetupFailed(f"{name} can't be started: {error.strerror}: {command[0]}") from None
        process = Process(name, log, popen, log_start)
    try:
        await _wait_until_ready(process, ready, deadline)
    except BaseException:
        await stop(process)
        raise
    return process


async def stop(process: Process, *, grace: float = 10.0) -> None:
    """SIGTERM, and after `grace` seconds SIGKILL, to it and what it started."""
    if process.running:
        process.popen.terminate()
    if not await ended(process, within=grace):
        kill(process)
        await ended(process, within=grace)


def kill(process: Process) -> None:
    """SIGKILL at once, to it and what it started: as a crash would."""
    if process.running:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.popen.wait()


async def ended(process: Process, *, within: float) -> bool:
    end = time.monotonic() + within
    while process.running and time.monotonic() < end:  # noqa: ASYNC110
        await asyncio.sleep(LOOK_AGAIN)
    return not process.running


async def _wait_until_ready(process: Process, ready: Ready, deadline: float) -> None:
    end = time.monotonic() + deadline
    while not ready(process):
        code, late = process.popen.poll(), time.monotonic() > end
        if code is not None or late:
            what = f"was not ready after {deadline:.0f} s" if code is None else f"ended with code {code}"
            raise SetupFailed(f"{process.name} {what}; the end of {process.log}:\n{process.last_words()}")
        await asyncio.sleep(LOOK_AGAIN)


def _end_with(parent: int) -> None:
    """Runs in the child: ask the kernel for SIGTERM when the parent is gone, even if it was killed."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(1)

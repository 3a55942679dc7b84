"""Child processes: start, wait until ready, and stop the programs that this process starts, and no others."""

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

from ari_conf.common.setting_sources import CONFIG, CREDENTIALS, VARIABLE_PREFIX
from ari_conf.errors import SetupFailed
from ari_conf.local import log_files

Ready = Callable[["Process"], bool]
"""A function that returns true once the program is ready; it is polled until then."""

POLL_INTERVAL_S = 0.02
"""Seconds between polls: a program sends no notification when it opens its port or writes to its log."""

READY_TIMEOUT_S = 90.0
"""Seconds after which a program that runs but is not ready has failed. A worker runs at low priority, and needs half a
minute on a busy machine. A program that ends is detected immediately."""

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1


@dataclass
class Process:
    name: str
    log: Path
    popen: subprocess.Popen[bytes]
    log_start: int = 0
    """Byte offset of this run in the log, which keeps earlier runs."""

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def is_running(self) -> bool:
        return self.popen.poll() is None

    @property
    def end(self) -> str:
        """Return a text about the end of the process, such as "Asterisk ended with signal 11"; empty while it runs."""
        code = self.popen.poll()
        if code is None:
            return ""
        # The exit code of a program that a shell ran is 128 plus the signal number.
        number = -code if code < 0 else code - 128
        return f"{self.name.capitalize()} ended with " + (f"signal {number}" if number > 0 else f"code {code}")

    def read_log(self) -> str:
        """Return the log of this run."""
        with suppress(OSError), self.log.open("rb") as file:
            file.seek(log_files.start_of(self.log, self.log_start))
            return file.read().decode(errors="replace")
        return ""

    def log_tail(self, lines: int = 8) -> str:
        return "\n".join(self.read_log().splitlines()[-lines:]) or "(nothing)"


def port_is_open(host: str, port: int) -> Ready:
    def ready(_process: Process) -> bool:
        return port_answers(host, port)

    return ready


def log_matches(pattern: str) -> Ready:
    """Return a function that is true once the log of the run matches the regular expression."""
    wanted = re.compile(pattern)
    return lambda process: wanted.search(process.read_log()) is not None


def immediately(_process: Process) -> bool:
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
            # Servers set it too: without it, a connection that was closed in the last minute keeps the port in use.
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((host, port))
        return True
    return False


def environment_without_settings() -> dict[str, str]:
    """Return this process's environment without settings, which are meant for the operator's own installation.

    The result also keeps programs from reading the default file of settings.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(VARIABLE_PREFIX) and name != CREDENTIALS
    }
    return kept | {CONFIG: ""}


async def start(
    name: str,
    command: Sequence[str | Path],
    log: Path,
    *,
    ready: Ready = immediately,
    deadline: float = READY_TIMEOUT_S,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Process:
    """Start a command with its output in `log`, and wait until it is ready.

    The command ends when this process ends, however that happens. Raises SetupFailed with the end of its log if the
    command is missing, ends before it is ready, or is not ready within `deadline` seconds; then it is stopped.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    parent = os.getpid()
    with log.open("ab") as file:
        # Read before the start, because the program shares the file offset and moves it by writing.
        log_start = file.tell()
        try:
            # Not asyncio's: subprocess reports the end of the process to any event loop.
            popen = subprocess.Popen(  # noqa: ASYNC220
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=None if environment is None else dict(environment),
                cwd=folder,
                # A session of its own, so that Ctrl-C reaches only this process, which stops the components in order.
                start_new_session=True,
                preexec_fn=lambda: _end_with_parent(parent),
            )
        except OSError as error:
            raise SetupFailed(f"{name} could not be started: {error.strerror}: {command[0]}") from None
        process = Process(name, log, popen, log_start)
    try:
        await _wait_until_ready(process, ready, deadline)
    except BaseException:
        await stop(process)
        raise
    return process


async def stop(process: Process, *, grace: float = 10.0) -> None:
    """Send SIGTERM to the process, and after `grace` seconds SIGKILL to it and its children."""
    if process.is_running:
        process.popen.terminate()
    if not await wait_ended(process, within=grace):
        kill(process)
        await wait_ended(process, within=grace)


def kill(process: Process) -> None:
    """Send SIGKILL to the process and its children immediately, as in a crash."""
    if process.is_running:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.popen.wait()


async def wait_ended(process: Process, *, within: float) -> bool:
    end = time.monotonic() + within
    while process.is_running and time.monotonic() < end:  # noqa: ASYNC110
        await asyncio.sleep(POLL_INTERVAL_S)
    return not process.is_running


async def _wait_until_ready(process: Process, ready: Ready, deadline: float) -> None:
    end = time.monotonic() + deadline
    while not ready(process):
        code, is_late = process.popen.poll(), time.monotonic() > end
        if code is not None or is_late:
            failure = f"was not ready after {deadline:.0f} s" if code is None else f"ended with code {code}"
            raise SetupFailed(f"{process.name} {failure}; the end of {process.log}:\n{process.log_tail()}")
        await asyncio.sleep(POLL_INTERVAL_S)


def _end_with_parent(parent: int) -> None:
    """Ask the kernel, in the child, to send SIGTERM when the parent ends, even if the parent is killed."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(1)

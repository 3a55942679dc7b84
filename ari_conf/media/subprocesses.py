"""Helper programs (ffmpeg, speech engines) that run beside Asterisk at low priority. Their input comes from outside, so
each one runs with resource limits, without network access, and without the server's environment variables."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import structlog

from ari_conf.common.fair_shares import Shares
from ari_conf.errors import SoundError
from ari_conf.process_priority import lower_session_priority

NICE = 10
"""Niceness of the programs: Asterisk mixes every 20 ms, so rendering waits for Asterisk."""
MAX_WAITING = 200
"""Maximum number of texts or sounds per account that wait for a turn."""
STDERR_BYTES = 4096
"""Bytes kept from the end of a program's standard error."""
ISOLATIONS = (("unshare", "--net"), ("unshare", "--user", "--map-current-user", "--net"))
"""Commands that give a program a network namespace of its own, which leads nowhere: for root, and for users who may
create namespaces."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Limits:
    """Resource limits that the kernel enforces on a program."""

    seconds: int | None
    """Processor time in seconds. None: no limit."""
    memory_mb: int
    """Address space in MB."""
    file_mb: int = 64
    """Size of each file that the program writes, in MB."""
    files: int = 64
    """Number of files open at the same time."""


def shares() -> Shares:
    """Return turns for rendering and transcoding. They use half of the cores, because the rest is for Asterisk, but
    there are at least two, even on a small machine, so that no account ever has all of them."""
    turns = max(2, (os.cpu_count() or 1) // 2)
    return Shares(most=turns, each=turns // 2, waiting=MAX_WAITING)


async def start(args: Sequence[str], stdout: int, limits: Limits) -> asyncio.subprocess.Process:
    """Start a program with pipes to its standard input and from its standard error. Use `terminate` to end it. Raises
    OSError."""
    process = await asyncio.create_subprocess_exec(
        *(*confinement(), *_limit_command(limits), *args),
        stdin=asyncio.subprocess.PIPE,
        stdout=stdout,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8", "HOME": "/nonexistent"},
        # A session of its own, so that `terminate` also ends its children.
        start_new_session=True,
    )
    lower_session_priority(process.pid, NICE)
    return process


async def run(args: Sequence[str], stdin: bytes, seconds: float, limits: Limits) -> None:
    """Run a program to its end, with `stdin` as its input. Raises SoundError if it can't be started, takes more than
    `seconds`, or fails; the reason is then the last line of its standard error."""
    name = os.path.basename(args[0])  # noqa: PTH119 (not a path of ours, perhaps just a name)
    try:
        process = await start(args, asyncio.subprocess.DEVNULL, limits)
    except OSError as error:
        raise SoundError(f"{name} could not be started: {error.strerror}") from None
    try:
        async with asyncio.timeout(seconds):
            last_line, _ = await asyncio.gather(_read_last_line(process.stderr), _write_input(process.stdin, stdin))
            status = await process.wait()
    except TimeoutError:
        await terminate(process)
        raise SoundError(f"{name} did not finish within {seconds:g} s") from None
    except BaseException:
        await terminate(process)
        raise
    if status != 0:
        raise SoundError(f"{name} failed: {_reason(last_line, status, limits)}")


async def terminate(process: asyncio.subprocess.Process) -> None:
    """Kill a program and all processes that it has started, even if it has ended already: no other process group gets
    its number while one of them lives."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


@cache
def confinement() -> tuple[str, ...]:
    """Return the command prefix that confines a program: low priority, no rights that its user doesn't have, and no
    network access, as far as this machine supports each. The prefix costs a few ms per program, and the first call as
    much for its checks."""
    found = ["nice", "-n", str(NICE)]
    isolation = next((way for way in ISOLATIONS if _works(way)), ())
    if not isolation:
        log.warning(
            "network isolation unavailable",
            action="ffmpeg and speech engines run with network access",
            hint="allow unprivileged user namespaces",
        )
    if not _has_prlimit():
        log.warning(
            "resource limits unavailable",
            reason="prlimit not found",
            action="ffmpeg and speech engines run without limits",
            hint="install util-linux",
        )
    rights = ("setpriv", "--no-new-privs") if _works(("setpriv", "--no-new-privs")) else ()
    return (*found, *isolation, *rights)


def _works(prefix: Sequence[str]) -> bool:
    try:
        return subprocess.run((*prefix, "true"), capture_output=True, timeout=5, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


@cache
def _has_prlimit() -> bool:
    return shutil.which("prlimit") is not None


def _limit_command(limits: Limits) -> tuple[str, ...]:
    if not _has_prlimit():
        return ()
    mb = 1024 * 1024
    # SIGXCPU at the soft limit, SIGKILL a second later.
    time = () if limits.seconds is None else (f"--cpu={limits.seconds}:{limits.seconds + 1}",)
    space = f"--as={limits.memory_mb * mb}", f"--fsize={limits.file_mb * mb}"
    return ("prlimit", *time, *space, f"--nofile={limits.files}", "--core=0")


async def _read_last_line(stream: asyncio.StreamReader | None) -> str:
    assert stream is not None
    last = b""
    while more := await stream.read(65536):
        last = (last + more)[-STDERR_BYTES:]
    return last.decode(errors="replace").strip().rpartition("\n")[2][:200]


async def _write_input(stream: asyncio.StreamWriter | None, content: bytes) -> None:
    assert stream is not None
    # The program may end before it has read all of its input.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        stream.write(content)
        await stream.drain()
    stream.close()


def _reason(last_line: str, status: int, limits: Limits) -> str:
    match -status:
        case signal.SIGXCPU:
            return f"it took more than {limits.seconds} s of processor time"
        case signal.SIGXFSZ:
            return f"it wrote more than {limits.file_mb} MB"
    return last_line or f"exit status {status}"

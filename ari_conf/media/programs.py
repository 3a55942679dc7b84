"""Other programs, run beside Asterisk without getting into its way. What they read comes from outside: so each has
limits, no network, and nothing of our environment."""

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

from ari_conf.errors import SoundFailed
from ari_conf.niceness import session_yields
from ari_conf.shares import Shares

NICE = 10
"""Asterisk mixes every 20 ms: what is rendered here waits for it."""
WAITING = 200
"""Texts or sounds of one account that wait for their turn."""
COMPLAINT_BYTES = 4096
"""The last of what a program writes to its standard error is kept."""
ISOLATIONS = (("unshare", "--net"), ("unshare", "--user", "--map-current-user", "--net"))
"""Ways to a network of its own, which leads nowhere: as root, and where users may have namespaces."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Limits:
    """Beyond which the kernel ends a program."""

    seconds: int | None
    """Of processor time."""
    memory_mb: int
    """Of address space."""
    file_mb: int = 64
    """Of each file that it writes."""
    files: int = 64
    """Open at once."""


def shares() -> Shares:
    """Turns for what is rendered or converted. Half of the machine: the rest is Asterisk's; but two, also on a small
    one, so that no account ever has all."""
    turns = max(2, (os.cpu_count() or 1) // 2)
    return Shares(most=turns, each=turns // 2, waiting=WAITING)


async def start(args: Sequence[str], stdout: int, limits: Limits) -> asyncio.subprocess.Process:
    """With pipes to its standard input and from its standard error. To be ended by `end`. Raises OSError."""
    process = await asyncio.create_subprocess_exec(
        *(*confinement(), *_limiting(limits), *args),
        stdin=asyncio.subprocess.PIPE,
        stdout=stdout,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8", "HOME": "/nonexistent"},
        # Its children go with it.
        start_new_session=True,
    )
    session_yields(process.pid, NICE)
    return process


async def run(args: Sequence[str], stdin: bytes, seconds: float, limits: Limits) -> None:
    """Raises SoundFailed with the program's last complaint, or after `seconds`."""
    name = os.path.basename(args[0])  # noqa: PTH119 (not a path of ours, perhaps just a name)
    try:
        process = await start(args, asyncio.subprocess.DEVNULL, limits)
    except OSError as error:
        raise SoundFailed(f"{name} can't be started: {error.strerror}") from None
    try:
        async with asyncio.timeout(seconds):
            complaint, _ = await asyncio.gather(_last(process.stderr), _feed(process.stdin, stdin))
            status = await process.wait()
    except TimeoutError:
        await end(process)
        raise SoundFailed(f"{name} was not done after {seconds:g} s") from None
    except BaseException:
        await end(process)
        raise
    if status != 0:
        raise SoundFailed(f"{name} failed: {_reason(complaint, status, limits)}")


async def end(process: asyncio.subprocess.Process) -> None:
    """With all that it has started, also if it has ended: no other group has its number while one of them lives."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


@cache
def confinement() -> tuple[str, ...]:
    """What stands before each command: it yields, gets no rights that its user doesn't have, and reaches nothing by the
    network. As far as this machine has it; a few ms for each program, and as much for the first look."""
    found = ["nice", "-n", str(NICE)]
    isolation = next((way for way in ISOLATIONS if _works(way)), ())
    if not isolation:
        log.warning("programs run with the network in reach: this machine lets nobody take it from them")
    if not _limits():
        log.warning("programs run without limits: this machine has no prlimit (of util-linux)")
    rights = ("setpriv", "--no-new-privs") if _works(("setpriv", "--no-new-privs")) else ()
    return (*found, *isolation, *rights)


def _works(before: Sequence[str]) -> bool:
    try:
        return subprocess.run((*before, "true"), capture_output=True, timeout=5, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


@cache
def _limits() -> bool:
    return shutil.which("prlimit") is not None


def _limiting(limits: Limits) -> tuple[str, ...]:
    if not _limits():
        return ()
    mb = 1024 * 1024
    # Told first, then killed.
    time = () if limits.seconds is None else (f"--cpu={limits.seconds}:{limits.seconds + 1}",)
    space = f"--as={limits.memory_mb * mb}", f"--fsize={limits.file_mb * mb}"
    return ("prlimit", *time, *space, f"--nofile={limits.files}", "--core=0")


async def _last(stream: asyncio.StreamReader | None) -> str:
    assert stream is not None
    last = b""
    while more := await stream.read(65536):
        last = (last + more)[-COMPLAINT_BYTES:]
    return last.decode(errors="replace").strip().rpartition("\n")[2][:200]


async def _feed(stream: asyncio.StreamWriter | None, content: bytes) -> None:
    assert stream is not None
    # It may not want to read all of it.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        stream.write(content)
        await stream.drain()
    stream.close()


def _reason(complaint: str, status: int, limits: Limits) -> str:
    match -status:
        case signal.SIGXCPU:
            return f"it took more than {limits.seconds} s of processor time"
        case signal.SIGXFSZ:
            return f"it wrote more than {limits.file_mb} MB"
    return complaint or f"exit status {status}"

"""Other programs, run beside Asterisk without getting into its way."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence

from ari_conf.errors import SoundFailed
from ari_conf.niceness import session_yields

NICE = 10
"""Asterisk mixes every 20 ms: what is rendered here waits for it."""


async def start(args: Sequence[str], stdout: int) -> asyncio.subprocess.Process:
    """With pipes to its standard input and from its standard error. To be ended by `end`. Raises OSError."""
    process = await asyncio.create_subprocess_exec(
        *("nice", "-n", str(NICE), *args),
        stdin=asyncio.subprocess.PIPE,
        stdout=stdout,
        stderr=asyncio.subprocess.PIPE,
        # Its children go with it.
        start_new_session=True,
    )
    session_yields(process.pid, NICE)
    return process


async def run(args: list[str], stdin: bytes = b"", seconds: float = 60) -> bytes:
    """What the program wrote to its standard output. Raises SoundFailed with its last complaint, or after `seconds`."""
    name = os.path.basename(args[0])  # noqa: PTH119 (not a path of ours, perhaps just a name)
    try:
        process = await start(args, asyncio.subprocess.PIPE)
    except OSError as error:
        raise SoundFailed(f"{name} can't be started: {error.strerror}") from None
    try:
        async with asyncio.timeout(seconds):
            out, complaints = await process.communicate(stdin)
    except TimeoutError:
        raise SoundFailed(f"{name} was not done after {seconds:g} s") from None
    finally:
        await end(process)
    if process.returncode != 0:
        last = complaints.decode(errors="replace").strip().rpartition("\n")[2][:200]
        raise SoundFailed(f"{name} failed: {last or f'exit status {process.returncode}'}")
    return out


async def end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()

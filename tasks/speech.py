"""The sound of a stored recording, as the engines want it: decoded as it comes, in pieces of some minutes."""

from __future__ import annotations

import subprocess
import threading
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

from ari_conf.errors import TranscriptionFailed, TranscriptionRefused
from tasks.engines import RATE

PIECE_S, CUT_WITHIN_S = 300, 30
"""A piece's length, and at its end the stretch in which the quietest place is looked for to cut it there."""
BLOCK = RATE // 10 * 2
"""Bytes of 100 ms."""


def pieces(file: Iterable[bytes], ffmpeg: str) -> Iterator[bytes]:
    """16 bit mono samples at RATE. Raises TranscriptionFailed, TranscriptionRefused."""
    command = [ffmpeg, "-v", "error", "-i", "pipe:0", "-f", "s16le", "-ac", "1", "-ar", str(RATE), "pipe:1"]
    try:
        program = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except OSError as error:
        raise TranscriptionFailed(f"{ffmpeg} can't be run: {error.strerror}") from None
    broken: list[Exception] = []
    feeding = threading.Thread(target=_feed, args=(program, file, broken), daemon=True)
    feeding.start()

    def ended() -> None:
        feeding.join()
        if broken:
            raise TranscriptionFailed(f"the recording can't be read: {broken[0]}")
        if program.wait():
            raise TranscriptionRefused("the recording can't be decoded")

    try:
        yield from _cut(program, ended)
    finally:
        program.kill()
        program.wait()


def _feed(program: subprocess.Popen[bytes], file: Iterable[bytes], broken: list[Exception]) -> None:
    assert program.stdin
    try:
        for chunk in file:
            program.stdin.write(chunk)
    except BrokenPipeError:
        pass  # it has ended, and its exit code says why
    except Exception as error:
        broken.append(error)
    finally:
        with suppress(OSError):
            program.stdin.close()


def _cut(program: subprocess.Popen[bytes], ended: Callable[[], None]) -> Iterator[bytes]:
    """`ended` raises if what came is not all: the last piece counts only then."""
    assert program.stdout
    held = bytearray()
    while chunk := program.stdout.read(BLOCK * 10):
        held += chunk
        if len(held) >= PIECE_S * RATE * 2:
            end = quietest(held, (PIECE_S - CUT_WITHIN_S) * RATE * 2)
            yield bytes(held[:end])
            del held[:end]
    ended()
    if held:
        yield bytes(held[: len(held) & ~1])


def quietest(samples: bytes | bytearray, after: int) -> int:
    """The middle of the quietest 300 ms from byte `after` on."""
    blocks = [array("h", bytes(samples[at : at + BLOCK])) for at in range(after, len(samples) - BLOCK + 1, BLOCK)]
    # Each 16th sample says enough of how loud it is.
    loud = [sum(abs(sample) for sample in block[::16]) for block in blocks]
    best = min(range(1, len(loud) - 1), key=lambda at: sum(loud[at - 1 : at + 2]))
    return after + best * BLOCK + BLOCK // 2

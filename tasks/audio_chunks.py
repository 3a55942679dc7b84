"""The audio of a stored recording as transcription engines expect it: decoded while read, in chunks of 5 minutes."""

from __future__ import annotations

import subprocess
import threading
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

from ari_conf.errors import TranscriptionFailed, TranscriptionRefused
from ari_conf.transcription.engines import RATE

PIECE_S, CUT_WITHIN_S = 300, 30
"""Seconds: the length of a chunk, and the stretch at its end in which the quietest place is chosen for the cut."""
BLOCK = RATE // 10 * 2
"""The number of bytes in 100 ms."""


def audio_chunks(file: Iterable[bytes], ffmpeg: str) -> Iterator[bytes]:
    """Yield chunks of 16-bit mono samples at RATE. Raises TranscriptionFailed or TranscriptionRefused."""
    command = [ffmpeg, "-v", "error", "-i", "pipe:0", "-f", "s16le", "-ac", "1", "-ar", str(RATE), "pipe:1"]
    try:
        program = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except OSError as error:
        raise TranscriptionFailed(f"{ffmpeg} could not be run: {error.strerror}") from None
    broken: list[Exception] = []
    feeding = threading.Thread(target=_feed, args=(program, file, broken), daemon=True)
    feeding.start()

    def ended() -> None:
        feeding.join()
        if broken:
            raise TranscriptionFailed(f"the recording could not be read: {broken[0]}")
        if program.wait():
            raise TranscriptionRefused("the recording could not be decoded")

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
        pass  # ffmpeg has ended; its exit code tells why
    except Exception as error:
        broken.append(error)
    finally:
        with suppress(OSError):
            program.stdin.close()


def _cut(program: subprocess.Popen[bytes], ended: Callable[[], None]) -> Iterator[bytes]:
    """Yield the output of `program` in chunks. `ended` raises if the output is incomplete, before the last chunk is
    yielded."""
    assert program.stdout
    held = bytearray()
    while chunk := program.stdout.read(BLOCK * 10):
        held += chunk
        if len(held) >= PIECE_S * RATE * 2:
            end = quietest_cut(held, (PIECE_S - CUT_WITHIN_S) * RATE * 2)
            yield bytes(held[:end])
            del held[:end]
    ended()
    if held:
        yield bytes(held[: len(held) & ~1])


def quietest_cut(samples: bytes | bytearray, after: int) -> int:
    """Return the middle of the quietest 300 ms from byte `after` on, as a byte offset."""
    blocks = [array("h", bytes(samples[at : at + BLOCK])) for at in range(after, len(samples) - BLOCK + 1, BLOCK)]
    # Every 16th sample is enough to estimate the volume.
    loud = [sum(abs(sample) for sample in block[::16]) for block in blocks]
    best = min(range(1, len(loud) - 1), key=lambda at: sum(loud[at - 1 : at + 2]))
    return after + best * BLOCK + BLOCK // 2

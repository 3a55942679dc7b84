"""Chunks of a recording's audio for the transcription engines."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from ari_conf.errors import TranscriptionFailed, TranscriptionRefused
from ari_conf.transcription.engines import RATE
from demo.speech import speech_files
from tasks.audio_chunks import BLOCK, CUT_WITHIN_S, PIECE_S, audio_chunks, quietest_cut


def chunks(file: bytes) -> list[bytes]:
    return [file[at : at + 65536] for at in range(0, len(file), 65536)]


def test_it_is_decoded_as_it_comes() -> None:
    speech = speech_files()[0]
    whole = b"".join(audio_chunks(chunks(speech.path.read_bytes()), "ffmpeg"))
    command = ["ffmpeg", "-v", "error", "-i", str(speech.path), "-f", "s16le", "-ar", str(RATE), "-"]
    assert whole == subprocess.run(command, capture_output=True, check=True).stdout


def test_a_long_one_comes_in_pieces_that_are_cut_where_it_is_quiet(tmp_path: Path) -> None:
    loud = (np.sin(np.arange(RATE * (PIECE_S + 60)) / 5) * 8000).astype("<i2")
    quiet_at = (PIECE_S - 12) * RATE
    loud[quiet_at : quiet_at + RATE] = 0
    path = tmp_path / "long.s16"
    path.write_bytes(loud.tobytes())
    command = ["ffmpeg", "-v", "error", "-f", "s16le", "-ar", str(RATE), "-ac", "1", "-i", str(path), "-f", "wav", "-"]
    file = subprocess.run(command, capture_output=True, check=True).stdout
    first, second = audio_chunks(chunks(file), "ffmpeg")
    assert first + second == loud.tobytes()
    assert quiet_at <= len(first) // 2 <= quiet_at + RATE


def test_the_quietest_place() -> None:
    samples = np.full(RATE * 40, 900, "<i2")
    samples[RATE * 20 : RATE * 21] = 3
    at = quietest_cut(samples.tobytes(), (40 - CUT_WITHIN_S) * RATE * 2) / 2
    assert RATE * 20 <= at <= RATE * 21 and at % 1 == 0
    assert BLOCK % 2 == 0


def test_invalid_or_unreadable_audio() -> None:
    with pytest.raises(TranscriptionRefused):
        list(audio_chunks([b"no sound at all" * 100], "ffmpeg"))

    def breaks() -> object:
        yield speech_files()[0].path.read_bytes()[:65536]
        raise OSError("the response of S3 was cut off")

    came = []
    with pytest.raises(TranscriptionFailed, match="cut off"):
        came += audio_chunks(breaks(), "ffmpeg")  # type: ignore[arg-type]
    assert came == [], "a piece that may be incomplete was passed on"
    with pytest.raises(TranscriptionFailed, match="could not be run"):
        list(audio_chunks([b""], "/nowhere/ffmpeg"))

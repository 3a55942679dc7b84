"""Tests of small files that expand to much audio, with a real ffmpeg."""

from __future__ import annotations

import struct
import wave
from pathlib import Path

import pytest

from ari_conf.errors import SoundError
from ari_conf.media import transcode
from ari_conf.media.transcode import LIMITS, MAX_FILE_BYTES, MAX_SECONDS, to_wavs, wav_rate

NOISE = bytes(range(256)) * 16


def form(rate: int, channels: int = 1, bits: int = 8, tag: int = 1, order: str = "<") -> bytes:
    align = max(1, channels * bits // 8)
    return struct.pack(order + "HHIIHH", tag, channels, rate, rate * align & 0xFFFFFFFF, align, bits)


def chunk(name: bytes, content: bytes, order: str = "<") -> bytes:
    return name + struct.pack(order + "I", len(content)) + content + bytes(len(content) % 2)


def riff(*chunks: bytes, kind: bytes = b"RIFF", order: str = "<") -> bytes:
    inside = b"WAVE" + b"".join(chunks)
    return kind + struct.pack(order + "I", len(inside)) + inside


DATA = chunk(b"data", NOISE)
SIZES = chunk(b"ds64", struct.pack("<QQQI", 4200, len(NOISE), len(NOISE), 0))
TAG = b"ID3\x03\0\0\0\0\0\x0a" + bytes(10)
BOMBS = {
    "1 Hz": riff(chunk(b"fmt ", form(1)), DATA),
    "below what is allowed": riff(chunk(b"fmt ", form(3999)), DATA),
    "above what is allowed": riff(chunk(b"fmt ", form(192_001)), DATA),
    "2 GHz": riff(chunk(b"fmt ", form(0x7FFFFFFF)), DATA),
    "0 Hz": riff(chunk(b"fmt ", form(0)), DATA),
    "eight channels": riff(chunk(b"fmt ", form(1, 8, 16)), DATA),
    "float": riff(chunk(b"fmt ", form(1, 1, 64, 3)), DATA),
    "adpcm": riff(chunk(b"fmt ", form(1, 1, 4, 0x11) + struct.pack("<HH", 2, 505)), DATA),
    "behind a tag": TAG + riff(chunk(b"fmt ", form(1)), DATA),
    "behind a tag with a footer": b"ID3\x04\0\x10\0\0\0\x0a" + bytes(20) + riff(chunk(b"fmt ", form(1)), DATA),
    "behind another chunk": riff(chunk(b"JUNK", b"x" * 33), chunk(b"fmt ", form(1)), DATA),
    "behind many chunks": riff(*[chunk(b"JUNK", b"")] * 200, chunk(b"fmt ", form(1)), DATA),
    "two formats": riff(chunk(b"fmt ", form(1)), chunk(b"fmt ", form(8000)), DATA),
    "the other end first": riff(chunk(b"fmt ", form(1, order=">"), ">"), DATA, kind=b"RIFX", order=">"),
    "64 bits": b"RF64\xff\xff\xff\xffWAVE" + SIZES + chunk(b"fmt ", form(1)) + DATA,
}  # fmt: skip


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give conversions time on a busy machine: other programs have priority over them."""
    monkeypatch.setattr(transcode, "TRANSCODE_TIMEOUT_S", 300.0)


def made(tmp_path: Path, content: bytes) -> tuple[Path, Path, Path]:
    source = tmp_path / "source"
    source.write_bytes(content)
    return source, tmp_path / "narrow", tmp_path / "wide"


@pytest.mark.parametrize("name", BOMBS)
async def test_an_absurd_sample_rate_is_refused_before_anything_is_started(tmp_path: Path, name: str) -> None:
    with pytest.raises(SoundError, match=r"^its sample rate of \d+ Hz is not allowed; expected 4 to 192 kHz$"):
        await to_wavs("/nowhere/ffmpeg", *made(tmp_path, BOMBS[name]))


@pytest.mark.parametrize("rate", [4000, 8000, 11025, 44_100, 48_000, 96_000, 192_000])
async def test_the_usual_ones_are_played(tmp_path: Path, rate: int) -> None:
    content = riff(chunk(b"LIST", b"x" * 7), chunk(b"fmt ", form(rate)), chunk(b"data", bytes(rate)))
    source, narrow, wide = made(tmp_path, content)
    assert wav_rate(source) == rate
    await to_wavs("ffmpeg", source, narrow, wide)
    with wave.open(str(narrow)) as file:
        assert file.getnframes() == pytest.approx(8000, abs=100)


@pytest.mark.parametrize("content", [b"", b"RIFF", b"RIFF\0\0\0\0WAVE", b"ID3", TAG, TAG * 200, b"\xff\xfb" * 99])
async def test_ffmpeg_judges_a_file_without_a_rate(tmp_path: Path, content: bytes) -> None:
    source, narrow, wide = made(tmp_path, content)
    assert wav_rate(source) is None
    with pytest.raises(SoundError, match="ffmpeg failed"):
        await to_wavs("ffmpeg", source, narrow, wide)


@pytest.mark.parametrize(("channels", "bits", "tag"), [(1, 8, 1), (1, 64, 3), (8, 16, 1)])
async def test_output_of_ffmpeg_is_bounded(
    tmp_path: Path, channels: int, bits: int, tag: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bounds apply to seconds and to bytes on disk."""
    monkeypatch.setattr(transcode, "RATES", range(1 << 40))
    monkeypatch.setattr(transcode, "MAX_SECONDS", 60)
    noise = bytes(200 * 100 * channels * bits // 8)
    source, narrow, wide = made(tmp_path, riff(chunk(b"fmt ", form(100, channels, bits, tag)), chunk(b"data", noise)))
    await to_wavs("ffmpeg", source, narrow, wide)
    with wave.open(str(narrow)) as file:
        assert 10 < file.getnframes() / 8000 <= 60
    assert narrow.stat().st_size + wide.stat().st_size <= 48_000 * 60 + 10_000


async def test_a_file_ends_by_its_size_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This holds whatever ffmpeg makes of -t."""
    monkeypatch.setattr(transcode, "MAX_FILE_BYTES", 16_000)
    content = riff(chunk(b"fmt ", form(8000)), chunk(b"data", bytes(800_000)))
    source, narrow, wide = made(tmp_path, content)
    await to_wavs("ffmpeg", source, narrow, wide)
    assert wide.stat().st_size <= 16_000 + 200_000 < 3_200_000
    assert 32_000 * MAX_SECONDS < MAX_FILE_BYTES < LIMITS.file_mb << 20, "the kernel's limit is the last one"

"""What users give, to what Asterisk plays: ffmpeg, kept on a short leash since the file comes from outside."""

from __future__ import annotations

import wave
from pathlib import Path
from typing import BinaryIO, Literal

from ari_conf.errors import SoundFailed
from ari_conf.media.programs import Limits, run

MAX_SECONDS = 1800
"""What is longer ends there. 10 MB of u-law are 22 minutes and of the usual mp3 less: all music for those on hold is
played whole. Of both files it is 86 MB."""
NARROW, WIDE = 8000, 16000
HIGHEST_BYTES = 2 * WIDE * MAX_SECONDS + 4096
"""Of a file that ffmpeg writes; there it ends by itself."""
RATES = range(4000, 192_001)
"""Samples a second of a WAV file. At 1 Hz, 4 KB would be an hour of sound."""
CONVERT_S = 60
LIMITS = Limits(seconds=40, memory_mb=768)
MOST_CHUNKS = 100
"""In which a WAV file's format is looked for."""
FORMATS = "mp3,wav"
"""ffmpeg's demuxers: no play lists, no formats that open other files."""
CODECS = (
    "mp3,mp3float,pcm_u8,pcm_s16le,pcm_s24le,pcm_s32le,pcm_f32le,pcm_f64le,pcm_alaw,pcm_mulaw,adpcm_ms,adpcm_ima_wav"
)
PCM = ("-ac", "1", "-c:a", "pcm_s16le", "-map_metadata", "-1", "-fflags", "+bitexact", "-flags:a", "+bitexact")


async def to_wavs(ffmpeg: str, source: Path, narrow: Path, wide: Path) -> None:
    """Two files from one: `narrow` with 8000, `wide` with 16000 samples a second, so that wideband callers get wideband
    and nobody waits while Asterisk resamples. Raises SoundFailed."""
    rate = wav_rate(source)
    if rate is not None and rate not in RATES:
        told = f"{RATES.start // 1000} to {RATES.stop // 1000} kHz"
        raise SoundFailed(f"its sample rate is {rate} Hz, and {told} are allowed")
    await run([*_reading(ffmpeg, source), *_writing(narrow, NARROW), *_writing(wide, WIDE)], b"", CONVERT_S, LIMITS)
    if not _seconds(narrow):
        raise SoundFailed("the file has no sound in it")


async def to_wav(ffmpeg: str, source: Path, target: Path, rate: int, tempo: float) -> None:
    """16 bit, mono. `tempo` 2.0 is twice as fast, at the same pitch."""
    filters = () if tempo == 1 else ("-af", f"atempo={tempo:.3f}")
    await run([*_reading(ffmpeg, source), *filters, *_writing(target, rate)], b"", CONVERT_S, LIMITS)


def wav_rate(path: Path) -> int | None:
    """Samples a second, as the head of a WAV file says; None: it is no WAV file, or says nothing."""
    with path.open("rb") as file:
        _skip_tags(file)
        head = file.read(12)
        kind, form = head[:4], head[8:]
        if kind not in (b"RIFF", b"RIFX", b"RF64", b"BW64") or form != b"WAVE":
            return None
        order: Literal["big", "little"] = "big" if kind == b"RIFX" else "little"
        for _ in range(MOST_CHUNKS):
            head = file.read(8)
            size = int.from_bytes(head[4:], order)
            if len(head) < 8:
                return None
            if head[:4] == b"fmt ":
                return int.from_bytes(file.read(8)[4:], order)
            file.seek(size + size % 2, 1)
        return 0


def _skip_tags(file: BinaryIO) -> None:
    """ffmpeg looks for the format behind them."""
    for _ in range(MOST_CHUNKS):
        at, head = file.tell(), file.read(10)
        if head[:3] != b"ID3" or len(head) < 10:
            file.seek(at)
            return
        size = sum((byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
        file.seek(size + (10 if head[5] & 0x10 else 0), 1)


def _reading(ffmpeg: str, source: Path) -> list[str]:
    return [
        *(ffmpeg, "-nostdin", "-hide_banner", "-v", "error", "-y", "-threads", "1"),
        *("-protocol_whitelist", "file,pipe", "-format_whitelist", FORMATS, "-codec_whitelist", CODECS),
        # "file:" too, lest a name be taken for an address.
        *("-t", str(MAX_SECONDS), "-i", f"file:{source}", "-map", "0:a:0"),
    ]


def _writing(path: Path, rate: int) -> list[str]:
    return ["-ar", str(rate), *PCM, "-fs", str(HIGHEST_BYTES), "-f", "wav", f"file:{path}"]


def _seconds(path: Path) -> float:
    try:
        with wave.open(str(path), "rb") as file:
            return file.getnframes() / file.getframerate()
    except (wave.Error, EOFError, OSError):
        return 0.0

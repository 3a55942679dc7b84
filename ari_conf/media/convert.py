"""What users give, to what Asterisk plays: ffmpeg, kept on a short leash since the file comes from outside."""

from __future__ import annotations

import wave
from pathlib import Path

from ari_conf.errors import SoundFailed
from ari_conf.media.programs import run

MAX_SECONDS = 3600
"""What is longer ends there: an hour takes 170 MB."""
FORMATS = "mp3,wav"
"""ffmpeg's demuxers: no play lists, no formats that open other files."""
CODECS = (
    "mp3,mp3float,pcm_u8,pcm_s16le,pcm_s24le,pcm_s32le,pcm_f32le,pcm_f64le,pcm_alaw,pcm_mulaw,adpcm_ms,adpcm_ima_wav"
)
PCM = ("-ac", "1", "-c:a", "pcm_s16le", "-map_metadata", "-1", "-fflags", "+bitexact", "-flags:a", "+bitexact")


async def to_wavs(ffmpeg: str, source: Path, narrow: Path, wide: Path) -> None:
    """Two files from one: `narrow` with 8000, `wide` with 16000 samples a second, so that wideband callers get wideband
    and nobody waits while Asterisk resamples. Raises SoundFailed."""
    await run([*_reading(ffmpeg, source), *_writing(narrow, 8000), *_writing(wide, 16000)], seconds=120)
    if not _seconds(narrow):
        raise SoundFailed("the file has no sound in it")


async def to_pcm(ffmpeg: str, source: Path, rate: int, tempo: float) -> bytes:
    """16 bit, mono. `tempo` 2.0 is twice as fast, at the same pitch."""
    filters = () if tempo == 1 else ("-af", f"atempo={tempo:.3f}")
    return await run([*_reading(ffmpeg, source), *filters, "-ar", str(rate), *PCM, "-f", "s16le", "pipe:1"])


def _reading(ffmpeg: str, source: Path) -> list[str]:
    return [
        *(ffmpeg, "-nostdin", "-hide_banner", "-v", "error", "-y", "-threads", "1"),
        *("-protocol_whitelist", "file,pipe", "-format_whitelist", FORMATS, "-codec_whitelist", CODECS),
        # "file:" too, lest a name be taken for an address.
        *("-t", str(MAX_SECONDS), "-i", f"file:{source}", "-map", "0:a:0"),
    ]


def _writing(path: Path, rate: int) -> list[str]:
    return ["-ar", str(rate), *PCM, "-f", "wav", f"file:{path}"]


def _seconds(path: Path) -> float:
    try:
        with wave.open(str(path), "rb") as file:
            return file.getnframes() / file.getframerate()
    except (wave.Error, EOFError, OSError):
        return 0.0

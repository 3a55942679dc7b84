"""Transcoding of customers' sounds into files that Asterisk plays. ffmpeg does it, with tight limits, because the
sounds come from outside."""

from __future__ import annotations

import wave
from pathlib import Path
from typing import BinaryIO, Literal

from ari_conf.errors import SoundError
from ari_conf.media.subprocesses import Limits, run

MAX_SECONDS = 1800
"""Longest sound in seconds; the rest is cut off. 10 MB are 22 minutes of u-law, and less of the usual mp3, so hold
music is always played whole. Both files together then take 86 MB."""
NARROW, WIDE = 8000, 16000
MAX_FILE_BYTES = 2 * WIDE * MAX_SECONDS + 4096
"""Largest file that ffmpeg writes; it ends there automatically."""
RATES = range(4000, 192_001)
"""Sample rates, in Hz, that a WAV file may have. At 1 Hz, 4 KB would be an hour of sound."""
TRANSCODE_TIMEOUT_S = 60
LIMITS = Limits(seconds=40, memory_mb=768)
MAX_CHUNKS = 100
"""Maximum number of ID3 tags, and of chunks of a WAV file, that are read to find its format."""
FORMATS = "mp3,wav"
"""ffmpeg demuxers that are allowed: no playlists, and no formats that open other files."""
CODECS = (
    "mp3,mp3float,pcm_u8,pcm_s16le,pcm_s24le,pcm_s32le,pcm_f32le,pcm_f64le,pcm_alaw,pcm_mulaw,adpcm_ms,adpcm_ima_wav"
)
PCM = ("-ac", "1", "-c:a", "pcm_s16le", "-map_metadata", "-1", "-fflags", "+bitexact", "-flags:a", "+bitexact")


async def to_wavs(ffmpeg: str, source: Path, narrow: Path, wide: Path) -> None:
    """Transcode a sound into two WAV files: `narrow` with 8000 and `wide` with 16000 samples per second, so that
    wideband callers hear wideband, and no caller waits while Asterisk resamples. Raises SoundError."""
    rate = wav_rate(source)
    if rate is not None and rate not in RATES:
        allowed = f"{RATES.start // 1000} to {RATES.stop // 1000} kHz"
        raise SoundError(f"its sample rate of {rate} Hz is not allowed; expected {allowed}")
    await run(
        [*_input_arguments(ffmpeg, source), *_output_arguments(narrow, NARROW), *_output_arguments(wide, WIDE)],
        b"",
        TRANSCODE_TIMEOUT_S,
        LIMITS,
    )
    if not _duration_s(narrow):
        raise SoundError("the file contains no audio")


async def to_wav(ffmpeg: str, source: Path, target: Path, rate: int, tempo: float) -> None:
    """Transcode a sound into a WAV file of 16 bit, mono. `tempo` 2.0 is twice as fast, at the same pitch. Raises
    SoundError."""
    filters = () if tempo == 1 else ("-af", f"atempo={tempo:.3f}")
    await run(
        [*_input_arguments(ffmpeg, source), *filters, *_output_arguments(target, rate)],
        b"",
        TRANSCODE_TIMEOUT_S,
        LIMITS,
    )


def wav_rate(path: Path) -> int | None:
    """Return the sample rate, in Hz, that the header of a WAV file states. None: the file is not WAV, or states none.
    0: the format is not within the first MAX_CHUNKS chunks."""
    with path.open("rb") as file:
        _skip_tags(file)
        head = file.read(12)
        kind, form = head[:4], head[8:]
        if kind not in (b"RIFF", b"RIFX", b"RF64", b"BW64") or form != b"WAVE":
            return None
        order: Literal["big", "little"] = "big" if kind == b"RIFX" else "little"
        for _ in range(MAX_CHUNKS):
            head = file.read(8)
            size = int.from_bytes(head[4:], order)
            if len(head) < 8:
                return None
            if head[:4] == b"fmt ":
                return int.from_bytes(file.read(8)[4:], order)
            file.seek(size + size % 2, 1)
        return 0


def _skip_tags(file: BinaryIO) -> None:
    """Skip ID3 tags, because ffmpeg looks for the format after them."""
    for _ in range(MAX_CHUNKS):
        at, head = file.tell(), file.read(10)
        if head[:3] != b"ID3" or len(head) < 10:
            file.seek(at)
            return
        size = sum((byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
        file.seek(size + (10 if head[5] & 0x10 else 0), 1)


def _input_arguments(ffmpeg: str, source: Path) -> list[str]:
    return [
        *(ffmpeg, "-nostdin", "-hide_banner", "-v", "error", "-y", "-threads", "1"),
        *("-protocol_whitelist", "file,pipe", "-format_whitelist", FORMATS, "-codec_whitelist", CODECS),
        # With the prefix "file:", so that ffmpeg doesn't take a name for a URL.
        *("-t", str(MAX_SECONDS), "-i", f"file:{source}", "-map", "0:a:0"),
    ]


def _output_arguments(path: Path, rate: int) -> list[str]:
    return ["-ar", str(rate), *PCM, "-fs", str(MAX_FILE_BYTES), "-f", "wav", f"file:{path}"]


def _duration_s(path: Path) -> float:
    try:
        with wave.open(str(path), "rb") as file:
            return file.getnframes() / file.getframerate()
    except (wave.Error, EOFError, OSError):
        return 0.0

"""Speak: markup to a sound file, with the best voice that this machine has."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Protocol

import structlog

from ari_conf.errors import SoundFailed
from ari_conf.media.beeps import wav
from ari_conf.media.convert import to_pcm
from ari_conf.media.ssml import Pause, Text, segments
from ari_conf.media.voices import Gender, Voice, installed

RATE = 16_000
LEAD_MS = 100
"""Silence before the first word: what is sent at the instant of answering is often not heard."""
LANGUAGE = "en-US"

MEN = frozenset(
    (
        *("Adriano", "Andres", "Arthur", "Brian", "Cristiano", "Daniel", "Enrique", "Florian", "Geraint", "Giorgio"),
        *("Gregory", "Hans", "Jacek", "Jan", "Joey", "Justin", "Karl", "Kevin", "Liam", "Mathieu", "Matthew", "Maxim"),
        *("Miguel", "Patrick", "Pedro", "Remi", "Ricardo", "Ruben", "Russell", "Sergio", "Stephen", "Takumi", "Thiago"),
        "Zayd",
    )
)
"""Polly's; all other names are women's."""

log = structlog.get_logger()


class Engine(Protocol):
    def identity(self, voice: str, language: str) -> str:
        """Two Speaks of one markup and one identity sound the same."""

    async def speak(self, markup: str, voice: str, language: str, path: Path) -> None:
        """A WAV file of 16 bit, mono. Raises SoundFailed."""

    async def close(self) -> None: ...


class Speech:
    """The engine of this machine: each voice's programs, the next one if one fails."""

    def __init__(self, voices: dict[Gender, list[Voice]], ffmpeg: str, at_once: int | None = None) -> None:
        self._voices = voices
        self._ffmpeg = ffmpeg
        # Half of the machine at most: the rest is Asterisk's.
        self._turn = asyncio.Semaphore(at_once or max(1, (os.cpu_count() or 1) // 2))

    @classmethod
    def of_this_machine(cls, wish: str, ffmpeg: str) -> Speech:
        return cls(installed(wish), ffmpeg)

    def identity(self, voice: str, language: str) -> str:
        return self._choice(voice)[0].name

    async def speak(self, markup: str, voice: str, language: str, path: Path) -> None:
        if language.split("-")[0].lower() != "en":
            # "A language that no engine speaks: warning, en-US"
            log.warning("language not spoken", language=language, spoken=LANGUAGE)
        pieces = segments(markup)
        choice = self._choice(voice)
        for engine in choice:
            try:
                async with self._turn:
                    path.write_bytes(await self._rendered(engine, pieces, path))
                return
            except SoundFailed as error:
                log.warning("voice failed", voice=engine.name, reason=str(error))
                failure = error
        raise SoundFailed(f"Speak: no voice could speak it; the last one said: {failure}")

    async def close(self) -> None:
        for voices in self._voices.values():
            for voice in voices:
                await voice.close()

    def _choice(self, voice: str) -> list[Voice]:
        choice = self._voices[gender(voice)]
        if not choice:
            raise SoundFailed("Speak: no engine is installed; install flite, or festival with festvox-us-slt-hts")
        return choice

    async def _rendered(self, engine: Voice, pieces: tuple[Text | Pause, ...], path: Path) -> bytes:
        pcm = bytearray(_silence(LEAD_MS))
        said = path.with_name(path.name + ".said.wav")
        try:
            for piece in pieces:
                if isinstance(piece, Pause):
                    pcm += _silence(piece.ms)
                else:
                    await engine.render(piece.text, said)
                    pcm += await to_pcm(self._ffmpeg, said, RATE, piece.rate)
        finally:
            said.unlink(missing_ok=True)
        return wav(bytes(pcm), RATE)


def gender(voice: str) -> Gender:
    """Of WOMAN, MAN or Polly.Name. Most of Polly's are women, and so is the default."""
    return "MAN" if voice == "MAN" or voice.removeprefix("Polly.") in MEN else "WOMAN"


def _silence(ms: int) -> bytes:
    return bytes(2 * (RATE * ms // 1000))

"""Speech synthesis: turns a Speak's markup into a sound file, with the best voice that this machine has."""

from __future__ import annotations

import asyncio
import contextlib
import time
import wave
from collections.abc import AsyncGenerator, Iterable, Iterator, Set
from itertools import islice
from pathlib import Path
from typing import Protocol

import structlog

from ari_conf.common.fair_shares import Shares
from ari_conf.core.elements import Element, GetDigits, GetInput, PreAnswer, Speak
from ari_conf.errors import SoundError
from ari_conf.media.alphabets import FOREIGN, best_of, can_be_said, in_ascii, language_of, without_tags
from ari_conf.media.ssml import Pause, Text, parts, segments
from ari_conf.media.subprocesses import shares
from ari_conf.media.transcode import to_wav
from ari_conf.media.voices import Espeak, Gender, Voice, espeak_languages, installed_voices

RATE = 16_000
LEADING_SILENCE_MS = 100
"""Milliseconds of silence before the first word: audio sent at the moment of answering is often not heard."""
LANGUAGE, ENGLISH = "en-US", "en"
NOTHING_SPEAKABLE = "none of its text can be spoken"
INSTALL_HINT = "install espeak-ng, which speaks a hundred languages"
SPEAK_TIMEOUT_S = 30.0
"""Seconds for rendering one Speak, summed over its turns. For 3000 characters, the slowest voice here needs half of
it."""
LAST_VOICE_RESERVE_S = 10.0
"""Seconds of SPEAK_TIMEOUT_S that are reserved for the next voice, if one is too slow for the text."""
MAX_SECONDS = 600
"""Longest sound of one Speak, in seconds; the rest is cut off, for example of a thousand numbers. 3000 characters take
200 s. A sound of 600 s is a file of 19 MB."""
COPY_FRAMES = 32_768
MAX_COMPLAINTS = 10
"""Maximum number of warnings about one document's Speak elements."""

MALE_POLLY_NAMES = frozenset(
    (
        *("Adriano", "Andres", "Arthur", "Brian", "Cristiano", "Daniel", "Enrique", "Florian", "Geraint", "Giorgio"),
        *("Gregory", "Hans", "Jacek", "Jan", "Joey", "Justin", "Karl", "Kevin", "Liam", "Mathieu", "Matthew", "Maxim"),
        *("Miguel", "Patrick", "Pedro", "Remi", "Ricardo", "Ruben", "Russell", "Sergio", "Stephen", "Takumi", "Thiago"),
        "Zayd",
    )
)
"""Polly's male voices; all its other names are female voices."""

log = structlog.get_logger()


class SpeechEngine(Protocol):
    def complaints(self, elements: Iterable[Element]) -> list[str]:
        """Return warnings for the account about Speak elements that can't be spoken as requested, each text once."""

    def identity(self, voice: str, language: str) -> str:
        """Return a text that identifies the voice: Speak elements with the same markup and identity sound the same."""

    async def speak(self, markup: str, voice: str, language: str, path: Path, account: str) -> None:
        """Speak the markup into a WAV file of 16 bit, mono, in the account's turns. Raises SoundError or
        TooManyWaiting."""

    async def close(self) -> None: ...


class SpeechSynthesizer:
    """Speech engine of this machine: renders with a voice's programs, and with the next voice if one fails."""

    def __init__(
        self,
        voices: dict[Gender, list[Voice]],
        ffmpeg: str,
        turns: Shares | None = None,
        foreign: Set[str] = frozenset(),
    ) -> None:
        """Use `voices` for English, and espeak-ng for the languages in `foreign`."""
        self._voices = voices
        self._foreign = foreign
        self._ffmpeg = ffmpeg
        self._turns = turns or shares()

    @classmethod
    def from_installed(cls, voice_setting: str, ffmpeg: str) -> SpeechSynthesizer:
        return cls(installed_voices(voice_setting), ffmpeg, foreign=espeak_languages())

    def identity(self, voice: str, language: str) -> str:
        # espeak-ng, if installed, speaks texts in other languages and alphabets instead of this voice.
        return f"{self._voices_for(voice)[0].name}{' and espeak-ng' if self._foreign else ''}"

    def complaints(self, elements: Iterable[Element]) -> list[str]:
        found = (self.complaint(sound) for sound in _speak_elements(elements))
        return list(islice(dict.fromkeys(complaint for complaint in found if complaint is not None), MAX_COMPLAINTS))

    def complaint(self, sound: Speak) -> str | None:
        text, language = without_tags(sound.markup), sound.language
        if not can_be_said(text) and "<" not in sound.markup:
            return f"Speak: {NOTHING_SPEAKABLE}"
        if self._foreign_voice(text, sound.voice, language) is not None:
            return None
        if (wanted := language_of(text, language)) != ENGLISH and FOREIGN.search(text):
            return f"Speak: no installed voice speaks the letters of {wanted or 'its text'}; {INSTALL_HINT}"
        if wanted != ENGLISH:
            # Spec: "A language that no engine speaks: warning, en-US"
            reason = f'Speak: no installed voice speaks language="{language}"; {LANGUAGE} is used'
            return f"{reason}; {INSTALL_HINT}"
        return None

    async def speak(self, markup: str, voice: str, language: str, path: Path, account: str) -> None:
        if (complaint := self.complaint(Speak(markup, voice, language))) is not None:
            log.warning("speech degraded", reason=complaint)
        # A text that was made to be slow to split takes some ms, so it is split in a thread.
        pieces = await asyncio.to_thread(segments, markup)
        voices = self._voices_for(voice)
        spent_s = 0.0
        for engine in voices:
            rendering = _Rendering(self._turns, account, SPEAK_TIMEOUT_S - spent_s)
            if engine is not voices[-1]:
                rendering.left_s -= LAST_VOICE_RESERVE_S
            allowed_s = rendering.left_s
            try:
                await self._render(engine, pieces, path, rendering, voice, language)
                return
            except SoundError as error:
                log.warning("voice failed", voice=engine.name, reason=str(error))
                failure = error
            spent_s += allowed_s - rendering.left_s
        raise SoundError(f"Speak: every voice failed; the last error: {failure}")

    async def close(self) -> None:
        for voices in self._voices.values():
            for voice in voices:
                await voice.close()

    def _voices_for(self, voice: str) -> list[Voice]:
        voices = self._voices[gender(voice)]
        if not voices:
            raise SoundError("Speak: no engine is installed; install flite, or festival with festvox-us-slt-hts")
        return voices

    def _foreign_voice(self, text: str, voice: str, language: str) -> Voice | None:
        """Return the espeak-ng voice for a text in another language or alphabet than English, or None if none is needed
        or none exists."""
        wanted = language_of(text, language)
        found = best_of(language, wanted, self._foreign)
        return None if wanted == ENGLISH or found is None else Espeak(found, gender(voice))

    async def _render(
        self,
        engine: Voice,
        pieces: tuple[Text | Pause, ...],
        path: Path,
        rendering: _Rendering,
        voice: str,
        language: str,
    ) -> None:
        rendered, adjusted = path.with_name(path.name + ".said.wav"), path.with_name(path.name + ".fitted.wav")
        # All file work runs in a thread: a file has up to 19 MB, and the event loop serves all calls.
        writer = await asyncio.to_thread(_WavWriter, path)
        is_silent = not any(isinstance(piece, Pause) for piece in pieces)
        try:
            for piece in pieces:
                if isinstance(piece, Pause):
                    await asyncio.to_thread(writer.append_silence, piece.ms)
                    continue
                for part in parts(piece.text):
                    if writer.is_full:
                        log.warning("speech truncated", seconds=MAX_SECONDS)
                        return
                    speaker = self._foreign_voice(part, voice, language) or engine
                    if speaker is engine and not can_be_said(in_ascii(part)):
                        continue
                    is_silent = False
                    # Other accounts have their turns between two parts.
                    async with rendering.turn():
                        await speaker.render(part, rendered)
                        if piece.rate == 1 and await asyncio.to_thread(writer.append, rendered):
                            continue
                        await to_wav(self._ffmpeg, rendered, adjusted, RATE, piece.rate)
                        await asyncio.to_thread(writer.append, adjusted)
            if is_silent:
                raise SoundError(f"{NOTHING_SPEAKABLE}; {INSTALL_HINT}")
        finally:
            try:
                # On a full disk this raises, too.
                await asyncio.to_thread(writer.close)
            finally:
                for file in (rendered, adjusted):
                    file.unlink(missing_ok=True)


class _Rendering:
    """Rendering of one text by one voice: its turns, and the seconds left for all of them together."""

    def __init__(self, turns: Shares, account: str, seconds: float) -> None:
        self._turns, self._account = turns, account
        self.left_s = seconds

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncGenerator[None]:
        async with self._turns.turn(self._account):
            began, allowed = time.monotonic(), self.left_s
            try:
                async with asyncio.timeout(allowed):
                    yield
            except TimeoutError:
                raise SoundError(
                    f"rendering takes more than {SPEAK_TIMEOUT_S:g} s: the text is too long, "
                    "or this machine is too busy"
                ) from None
            finally:
                self.left_s -= time.monotonic() - began


class _WavWriter:
    """WAV file that grows; only a little of it is in memory. Its methods do file I/O: call them in a thread."""

    def __init__(self, path: Path) -> None:
        self._wave = wave.open(str(path), "wb")  # noqa: SIM115 (closed by `close`)
        self._wave.setnchannels(1)
        self._wave.setsampwidth(2)
        self._wave.setframerate(RATE)
        self.append_silence(LEADING_SILENCE_MS)

    @property
    def is_full(self) -> bool:
        return self._frames_left <= 0

    @property
    def _frames_left(self) -> int:
        return MAX_SECONDS * RATE - self._wave.tell()

    def append_silence(self, ms: int) -> None:
        self._wave.writeframesraw(bytes(2 * min(RATE * ms // 1000, max(self._frames_left, 0))))

    def append(self, path: Path) -> bool:
        """Append a WAV file. Return False if it must be transcoded first, for example because of another sample
        rate."""
        try:
            with wave.open(str(path), "rb") as source:
                if source.getparams()[:3] != (1, 2, RATE):
                    return False
                while not self.is_full and (frames := source.readframes(min(COPY_FRAMES, self._frames_left))):
                    self._wave.writeframesraw(frames)
        except (wave.Error, EOFError):
            return False
        return True

    def close(self) -> None:
        self._wave.close()


def _speak_elements(elements: Iterable[Element]) -> Iterator[Speak]:
    for element in elements:
        match element:
            case Speak():
                yield element
            case GetDigits(inner) | GetInput(inner) | PreAnswer(inner):
                yield from _speak_elements(inner)


def gender(voice: str) -> Gender:
    """Return the gender of WOMAN, MAN or Polly.Name. Most Polly voices are female, and so is the default."""
    return "MAN" if voice == "MAN" or voice.removeprefix("Polly.") in MALE_POLLY_NAMES else "WOMAN"

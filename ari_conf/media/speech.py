"""Speak: markup to a sound file, with the best voice that this machine has."""

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

from ari_conf.core.elements import Element, GetDigits, PreAnswer, Speak
from ari_conf.errors import SoundFailed
from ari_conf.media.alphabets import FOREIGN, best_of, can_be_said, in_ascii, language_of, without_tags
from ari_conf.media.convert import to_wav
from ari_conf.media.programs import shares
from ari_conf.media.ssml import Pause, Text, parts, segments
from ari_conf.media.voices import Espeak, Gender, Voice, espeak_languages, installed
from ari_conf.shares import Shares

RATE = 16_000
LEAD_MS = 100
"""Silence before the first word: what is sent at the instant of answering is often not heard."""
LANGUAGE, ENGLISH = "en-US", "en"
NOTHING = "nothing of its text can be spoken"
INSTALL = "Debian's espeak-ng speaks a hundred languages"
SPEAK_S = 30.0
"""In which all of one Speak is rendered, its turns taken together; 3000 characters take the slowest voice here half."""
LAST_VOICE_S = 10.0
"""Of these: what is left for the next voice, if one is too slow for the text."""
MAX_SECONDS = 600
"""Of sound: 3000 characters are 200 s. What is longer, a thousand numbers say, ends there. It is a file of 19 MB."""
COPIED_FRAMES = 32_768
MOST_COMPLAINTS = 10
"""Of one document's Speaks."""

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
    def complaints(self, elements: Iterable[Element]) -> list[str]:
        """What an account is told of each Speak among them, once, that is not spoken as it should be."""

    def identity(self, voice: str, language: str) -> str:
        """Two Speaks of one markup and one identity sound the same."""

    async def speak(self, markup: str, voice: str, language: str, path: Path, account: str) -> None:
        """A WAV file of 16 bit, mono; in the account's turns. Raises SoundFailed, TooManyWaiting."""

    async def close(self) -> None: ...


class Speech:
    """The engine of this machine: each voice's programs, the next one if one fails."""

    def __init__(
        self,
        voices: dict[Gender, list[Voice]],
        ffmpeg: str,
        turns: Shares | None = None,
        foreign: Set[str] = frozenset(),
    ) -> None:
        """`voices` speak English; `foreign` are the languages that espeak-ng speaks."""
        self._voices = voices
        self._foreign = foreign
        self._ffmpeg = ffmpeg
        self._turns = turns or shares()

    @classmethod
    def of_this_machine(cls, wish: str, ffmpeg: str) -> Speech:
        return cls(installed(wish), ffmpeg, foreign=espeak_languages())

    def identity(self, voice: str, language: str) -> str:
        # Texts in other alphabets are spoken by another voice than this one, if there is any.
        return f"{self._choice(voice)[0].name}{' and espeak-ng' if self._foreign else ''}"

    def complaints(self, elements: Iterable[Element]) -> list[str]:
        told = (self.complaint(sound) for sound in _spoken(elements))
        return list(islice(dict.fromkeys(complaint for complaint in told if complaint is not None), MOST_COMPLAINTS))

    def complaint(self, sound: Speak) -> str | None:
        text, language = without_tags(sound.markup), sound.language
        if not can_be_said(text) and "<" not in sound.markup:
            return f"Speak: {NOTHING}"
        if self._foreigner(text, sound.voice, language) is not None:
            return None
        if (wanted := language_of(text, language)) != ENGLISH and FOREIGN.search(text):
            return f"Speak: no voice that is installed speaks the letters of {wanted or 'its text'}: {INSTALL}"
        if wanted != ENGLISH:
            # "A language that no engine speaks: warning, en-US"
            told = f'Speak: no voice that is installed speaks language="{language}"; {LANGUAGE} is used'
            return f"{told}: {INSTALL}"
        return None

    async def speak(self, markup: str, voice: str, language: str, path: Path, account: str) -> None:
        if (told := self.complaint(Speak(markup, voice, language))) is not None:
            log.warning("not spoken as it should be", reason=told)
        # Of a text that is made for it that takes some ms.
        pieces = await asyncio.to_thread(segments, markup)
        choice = self._choice(voice)
        spent = 0.0
        for engine in choice:
            rendering = _Rendering(self._turns, account, SPEAK_S - spent)
            if engine is not choice[-1]:
                rendering.left -= LAST_VOICE_S
            allowed = rendering.left
            try:
                await self._render(engine, pieces, path, rendering, voice, language)
                return
            except SoundFailed as error:
                log.warning("voice failed", voice=engine.name, reason=str(error))
                failure = error
            spent += allowed - rendering.left
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

    def _foreigner(self, text: str, voice: str, language: str) -> Voice | None:
        """For what the voices here can't say: other alphabets, other languages."""
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
        said, fitted = path.with_name(path.name + ".said.wav"), path.with_name(path.name + ".fitted.wav")
        # Files, and what is done to them in a thread: it is up to 19 MB, and the loop carries all calls.
        tape = await asyncio.to_thread(_Tape, path)
        silent = not any(isinstance(piece, Pause) for piece in pieces)
        try:
            for piece in pieces:
                if isinstance(piece, Pause):
                    await asyncio.to_thread(tape.silence, piece.ms)
                    continue
                for part in parts(piece.text):
                    if tape.full:
                        log.warning("the end of a text is not spoken: it takes too long", seconds=MAX_SECONDS)
                        return
                    speaker = self._foreigner(part, voice, language) or engine
                    if speaker is engine and not can_be_said(in_ascii(part)):
                        continue
                    silent = False
                    # Others have their turn in between.
                    async with rendering.turn():
                        await speaker.render(part, said)
                        if piece.rate == 1 and await asyncio.to_thread(tape.append, said):
                            continue
                        await to_wav(self._ffmpeg, said, fitted, RATE, piece.rate)
                        await asyncio.to_thread(tape.append, fitted)
            if silent:
                raise SoundFailed(f"{NOTHING}: {INSTALL}")
        finally:
            await asyncio.to_thread(tape.close)
            for file in (said, fitted):
                file.unlink(missing_ok=True)


class _Rendering:
    """Of one text by one voice: its turns, and the time that it may take in all of them together."""

    def __init__(self, turns: Shares, account: str, seconds: float) -> None:
        self._turns, self._account = turns, account
        self.left = seconds

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncGenerator[None]:
        async with self._turns.turn(self._account):
            began, allowed = time.monotonic(), self.left
            try:
                async with asyncio.timeout(allowed):
                    yield
            except TimeoutError:
                raise SoundFailed(
                    f"to render it takes more than {SPEAK_S:g} s: it is too long, or this machine is too busy"
                ) from None
            finally:
                self.left -= time.monotonic() - began


class _Tape:
    """A WAV file that grows; only a little of it is in memory. Its methods do file I/O: call them in a thread."""

    def __init__(self, path: Path) -> None:
        self._wave = wave.open(str(path), "wb")  # noqa: SIM115 (closed by `close`)
        self._wave.setnchannels(1)
        self._wave.setsampwidth(2)
        self._wave.setframerate(RATE)
        self.silence(LEAD_MS)

    @property
    def full(self) -> bool:
        return self._left <= 0

    @property
    def _left(self) -> int:
        return MAX_SECONDS * RATE - self._wave.tell()

    def silence(self, ms: int) -> None:
        self._wave.writeframesraw(bytes(2 * min(RATE * ms // 1000, max(self._left, 0))))

    def append(self, path: Path) -> bool:
        """False: it is of another rate, say, and must be converted first."""
        try:
            with wave.open(str(path), "rb") as said:
                if said.getparams()[:3] != (1, 2, RATE):
                    return False
                while not self.full and (frames := said.readframes(min(COPIED_FRAMES, self._left))):
                    self._wave.writeframesraw(frames)
        except (wave.Error, EOFError):
            return False
        return True

    def close(self) -> None:
        self._wave.close()


def _spoken(elements: Iterable[Element]) -> Iterator[Speak]:
    for element in elements:
        match element:
            case Speak():
                yield element
            case GetDigits(inner) | PreAnswer(inner):
                yield from _spoken(inner)


def gender(voice: str) -> Gender:
    """Of WOMAN, MAN or Polly.Name. Most of Polly's are women, and so is the default."""
    return "MAN" if voice == "MAN" or voice.removeprefix("Polly.") in MEN else "WOMAN"

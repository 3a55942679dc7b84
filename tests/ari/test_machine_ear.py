"""Tests of the machine ear. All audio passes through G.711 first, as on a telephone."""

from __future__ import annotations

import wave
from collections.abc import Sequence

import numpy as np
import pytest

from ari_conf.ari.machine_ear import MachineEar
from ari_conf.core import events as ev
from demo import g711
from tests.ari.test_beep_detector import SOUNDS, Samples, noise, quiet, tone

PROMPTS = SOUNDS / "sounds/en_US_f_Allison"


def spoken(name: str) -> Samples:
    """Return real speech without silence at its ends."""
    with wave.open(str(PROMPTS / f"{name}.wav")) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(float)
    loud = np.flatnonzero(np.abs(samples) > 600)
    return samples[loud[0] : loud[-1] + 1]


def heard(*parts: Samples, pieces: int = 320) -> list[tuple[float, ev.Event]]:
    """Return (ms of the thing itself, event) of all that is heard. `pieces`: bytes."""
    clipped = np.clip(np.concatenate(parts), -32768, 32767).astype(np.int16)
    audio = g711.decode(g711.encode(clipped)).tobytes()
    ear, found = MachineEar("ann"), []
    for start in range(0, len(audio), pieces):
        for event in ear.hear(audio[start : start + pieces]):
            found.append(((start + pieces) / 16 - getattr(event, "ago_ms", 0), event))
    return found


def phrases(*parts: Samples, pieces: int = 320) -> list[tuple[float, float]]:
    """Return (start, end) of each phrase of speech, in ms."""
    found, start = list[tuple[float, float]](), None
    for at, event in heard(*parts, pieces=pieces):
        if isinstance(event, ev.PhraseStarted):
            start = at
        elif isinstance(event, ev.PhraseEnded):
            assert start is not None, "a phrase ended that had not begun"
            found += [(start, at)] if event.is_speech else []
            start = None
    return found


def is_tone_heard(*parts: Samples) -> bool:
    return any(isinstance(event, ev.ToneHeard) for _, event in heard(*parts))


def test_the_first_audio_starts_it() -> None:
    assert heard(quiet(20)) == [(20, ev.ListeningStarted("ann"))]
    assert sum(isinstance(event, ev.ListeningStarted) for _, event in heard(quiet(1000))) == 1


@pytest.mark.parametrize("level", [-70.0, -45.0, -38.0])
@pytest.mark.parametrize("name", ["hello", "goodbye", "sorry"])
def test_a_word_on_any_line(name: str, level: float) -> None:
    word = spoken(name)
    length_ms = len(word) / 8
    line = noise(length_ms + 2500, level)
    line[8000 : 8000 + len(word)] += word
    found = phrases(line)
    assert found and abs(found[0][0] - 1000) <= 120 and abs(found[-1][1] - (1000 + length_ms)) <= 200, found


def test_a_phrase_is_reported_soon_after_it_has_begun_and_ended() -> None:
    word = spoken("hello")
    (_, started), (_, ended) = heard(quiet(1000), word, quiet(1000))[1:3]
    assert isinstance(started, ev.PhraseStarted) and started.ago_ms <= 240
    assert isinstance(ended, ev.PhraseEnded) and ended.ago_ms <= 240


def test_words_with_a_pause_are_two_phrases() -> None:
    assert len(phrases(quiet(300), spoken("hello"), quiet(400), spoken("hello"), quiet(500))) >= 2


@pytest.mark.parametrize("pieces", [2, 318, 320, 322, 1600])
def test_in_pieces_of_any_size(pieces: int) -> None:
    parts = [quiet(500), spoken("goodbye"), quiet(600)]
    assert len(phrases(*parts, pieces=pieces)) == len(phrases(*parts))


@pytest.mark.parametrize("level", [-50.0, -40.0, -30.0, -20.0])
def test_steady_noise_is_no_speech(level: float) -> None:
    assert phrases(noise(6000, level)) == []
    assert phrases(quiet(700), noise(5000, level)) == []


def test_a_click_and_a_breath_are_no_speech() -> None:
    click = noise(15, -10)
    breath = noise(500, -38) * np.sin(np.pi * np.arange(4000) / 4000) ** 2
    assert phrases(quiet(500), click, quiet(500), breath, quiet(1000)) == []


def test_network_tones_are_no_speech() -> None:
    ring_back = tone(440, 1500, -19) + tone(480, 1500, -19)
    assert phrases(quiet(200), ring_back, quiet(1000), ring_back, quiet(500)) == []


@pytest.mark.parametrize(("hz", "ms"), [(440, 450), (850, 300), (1000, 500), (1400, 200), (1100, 500)])
def test_beeps_are_heard(hz: int, ms: int) -> None:
    assert is_tone_heard(quiet(500), spoken("hello"), quiet(300), tone(hz, ms, -14), quiet(400))


def tones(hertz: Sequence[float]) -> list[Samples]:
    return [tone(hz, 330, -14) for hz in hertz]


def test_the_tones_before_an_announcement_are_heard() -> None:
    assert is_tone_heard(quiet(100), *tones([950, 1400, 1800]), quiet(100))
    assert is_tone_heard(quiet(100), *tones([1400, 1800]), quiet(100))


@pytest.mark.parametrize("hertz", [(1800, 1400, 950), (600, 800, 1150), (950, 1800, 1400)])
def test_other_tones_in_sequence_are_not(hertz: tuple[float, ...]) -> None:
    # Speech follows at once, so that the last tone is no beep.
    assert not is_tone_heard(quiet(100), *tones(hertz), spoken("hello"), quiet(500))


@pytest.mark.parametrize("name", ["hello", "goodbye", "vm-nobodyavail", "all-circuits-busy-now", "vm-theperson"])
def test_speech_is_no_tone(name: str) -> None:
    assert not is_tone_heard(quiet(300), spoken(name), quiet(500))


def test_others_who_talk_in_the_background_are_not_the_one_on_the_phone() -> None:
    others = np.resize(spoken("demo-congrats"), 5 * 8000)
    others *= 10 ** (-24 / 20)
    word = spoken("hello")
    line = others.copy()
    line[8000 : 8000 + len(word)] += word
    ended = [at for at, event in heard(line) if isinstance(event, ev.PhraseEnded) and event.is_speech]
    assert any(abs(at - (1000 + len(word) / 8)) < 200 for at in ended), ended

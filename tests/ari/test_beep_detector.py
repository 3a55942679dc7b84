"""Tests of the beep detector. All audio passes through G.711 first, as on a telephone."""

from __future__ import annotations

import wave
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ari_conf.ari.beep_detector import BeepDetector
from ari_conf.local import asterisk
from demo import g711

Samples = NDArray[np.float64]

ROOT = asterisk.DEFAULT_ROOT if (asterisk.DEFAULT_ROOT / ".complete").exists() else Path("/")
SOUNDS = ROOT / "usr/share/asterisk"
TONES = ("beep", "beeperr", "confbridge-leave", "ascending-2tone", "descending-2tone")
"""The recordings among the prompts that are not speech."""


def tone(hz: float, ms: float, level: float = -12.0) -> Samples:
    """Return a sine. `level`: dBFS, where 0 is the largest sine; the phase always differs."""
    at = np.arange(round(ms * 8))
    return 32767 * 10 ** (level / 20) * np.sin(2 * np.pi * hz * at / 8000 + hz + ms + level)


def noise(ms: float, level: float) -> Samples:
    """Return noise. `level`: that of a sine of the same power."""
    sigma = 32767 / 2**0.5 * 10 ** (level / 20)
    return np.random.default_rng(7).normal(0, sigma, round(ms * 8))


def quiet(ms: float) -> Samples:
    return np.zeros(round(ms * 8))


def wav(path: Path, seconds: float = 1e9) -> Samples:
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 8000)
        return np.frombuffer(file.readframes(int(min(file.getnframes(), seconds * 8000))), "<i2").astype(float)


def a_word() -> Samples:
    """Return a spoken word, from its first sound on."""
    spoken = wav(SOUNDS / "sounds/en_US_f_Allison/vm-goodbye.wav")
    return spoken[np.argmax(np.abs(spoken) > 2000) :]


def beeps(*parts: Samples, pieces: int = 320) -> list[float]:
    """Return the times, in ms from the start, at which beeps were reported. `pieces`: bytes."""
    clipped = np.clip(np.concatenate([*parts, quiet(300)]), -32768, 32767).astype(np.int16)
    audio = g711.decode(g711.encode(clipped)).tobytes()
    detector = BeepDetector()
    heard = [detector.feed(audio[start : start + pieces]) for start in range(0, len(audio), pieces)]
    return [(number + 1) * pieces / 16 for number, beep in enumerate(heard) if beep]


@pytest.mark.parametrize("ms", [120, 200, 500, 1000, 1900])
@pytest.mark.parametrize("level", [-40, -30, -20, -10, -3, 0])
@pytest.mark.parametrize("hz", [400, 440, 500, 850, 1000, 1400, 1999])
def test_a_beep_is_reported_once_soon_after_its_end(hz: int, level: int, ms: int) -> None:
    lead = 200 + (hz + ms - level) % 20  # the beep may start anywhere in a frame
    (reported,) = beeps(quiet(lead), tone(hz, ms, level))
    assert 60 <= reported - (lead + ms) <= 160


@pytest.mark.parametrize("hz", [500, 850, 1000, 1400])
def test_a_beep_on_a_noisy_line(hz: int) -> None:
    line = noise(1500, -32)
    line[4000:8000] += tone(hz, 500, -17)
    assert len(beeps(line)) == 1


@pytest.mark.parametrize("pieces", [2, 318, 320, 322, 1000, 16000])
def test_in_pieces_of_any_size(pieces: int) -> None:
    (reported,) = beeps(quiet(213), tone(1000, 300), quiet(2000), pieces=pieces)
    assert 60 <= reported - 513 <= 160 + pieces / 16


def test_a_beep_that_fades_in_and_out() -> None:
    beep = tone(850, 400)
    ramp = np.minimum(1, np.minimum(np.arange(len(beep)), np.arange(len(beep))[::-1]) / 320)
    assert len(beeps(quiet(200), beep * ramp)) == 1


def test_each_of_two_beeps() -> None:
    assert len(beeps(quiet(100), tone(1000, 300), quiet(1000), tone(1000, 300))) == 2


def test_after_a_greeting_at_once() -> None:
    greeting = wav(SOUNDS / "sounds/en_US_f_Allison/vm-goodbye.wav")
    (reported,) = beeps(greeting, tone(1000, 400, -10))
    assert 60 <= reported - (len(greeting) / 8 + 400) <= 160


def test_a_lost_packet_in_a_beep() -> None:
    cut = tone(1000, 600)
    cut[2400:2560] = 0
    assert len(beeps(quiet(100), cut)) == 1


def test_asterisks_own_beep() -> None:
    assert len(beeps(quiet(100), wav(SOUNDS / "sounds/en_US_f_Allison/beep.wav"))) == 1


def both(first: float, second: float, ms: float) -> Samples:
    return tone(first, ms) + tone(second, ms)


@pytest.mark.parametrize(
    ("what", "parts"),
    [
        ("too short", [tone(1000, 70)]),
        ("too long", [tone(1000, 2200)]),
        ("too long, with a lost packet", [tone(1000, 1500), quiet(20), tone(1000, 1500)]),
        ("too low", [tone(300, 500)]),
        ("too high: a fax that answers", [tone(2100, 500)]),
        ("too soft", [tone(1000, 500, -52)]),
        ("ring-back of America", [both(440, 480, 1900), quiet(4000)]),
        ("ring-back of Britain", [both(400, 450, 400), quiet(200), both(400, 450, 400), quiet(2000)]),
        ("ring-back of Europe", [tone(425, 1000), quiet(4000), tone(425, 1000)]),
        ("busy in America", [both(480, 620, 500), quiet(500)] * 3),
        ("busy in Europe", [tone(425, 500), quiet(500)] * 3),
        ("dial tone", [both(350, 440, 1900)]),
        ("not in service", [tone(950, 330), tone(1400, 330), tone(1800, 330)]),
        ("a melody", [tone(hz, 250) for hz in (523, 659, 784, 1047)]),
        ("a struck bell", [tone(880, 1500) * np.exp(-np.arange(12000) / 1600)]),
        ("a siren", [32000 * np.sin(np.cumsum(np.linspace(0.4, 1.2, 8000)))]),
        ("a buzzer", [8000 * np.sign(tone(500, 500))]),
        ("noise", [noise(500, -10)]),
        ("a tone into which somebody speaks", [tone(1000, 300), a_word()]),
    ],
)
def test_no_beep(what: str, parts: list[Samples]) -> None:
    assert beeps(quiet(200), *parts) == []


@pytest.mark.parametrize("low", [697, 770, 852, 941])
@pytest.mark.parametrize("high", [1209, 1336, 1477, 1633])
@pytest.mark.parametrize("twist", [-6, 0, 6])
def test_a_key_is_no_beep(low: int, high: int, twist: int) -> None:
    assert beeps(quiet(200), tone(low, 200, -15 + twist) + tone(high, 200, -15)) == []


def speech() -> Iterator[Path]:
    for path in sorted((SOUNDS / "sounds/en_US_f_Allison").rglob("*.wav")):
        if path.stem not in TONES:
            yield path


def test_no_beep_in_minutes_of_speech() -> None:
    """Play prompts, each with the silence that follows it, which is where a beep would be."""
    prompts = list(speech())[::2]
    seconds = [*accumulate(len(wav(path)) / 8000 for path in prompts)]
    assert seconds, f"no prompts in {SOUNDS}: asterisk/get brings them"
    assert seconds[-1] > 600
    assert {path.name: found for path in prompts if (found := beeps(wav(path)))} == {}


def test_no_beep_in_minutes_of_music() -> None:
    pieces = sorted((SOUNDS / "moh").glob("*.wav"))
    assert len(pieces) >= 5, f"no music in {SOUNDS}: asterisk/get brings it"
    # Each second ends in silence, since a note that is cut off resembles a beep most.
    for path in pieces:
        music = wav(path, 60)
        music[np.arange(len(music)) % 8000 > 6800] = 0
        assert beeps(wav(path, 60)) == [], path.name
        assert beeps(music) == [], path.name

import io
import wave
from array import array
from itertools import pairwise

import pytest

from ari_conf.media.tones import TONES, beep


def samples(name: str, rate: int) -> array:  # type: ignore[type-arg]
    with wave.open(io.BytesIO(beep(name, rate))) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, rate)
        return array("h", file.readframes(file.getnframes()))


def hertz(tone: array, rate: int) -> float:  # type: ignore[type-arg]
    rising = sum(1 for before, after in pairwise(tone) if before < 0 <= after)
    return rising * rate / len(tone)


@pytest.mark.parametrize("rate", [8000, 16000])
@pytest.mark.parametrize(("name", "pitch", "ms"), [("beep:1", 700, 300), ("beep:digits", 1000, 200)])
def test_one_tone(name: str, pitch: int, ms: int, rate: int) -> None:
    tone = samples(name, rate)
    assert len(tone) == rate * ms // 1000
    assert hertz(tone, rate) == pytest.approx(pitch, rel=0.02)


def test_two_tones_200_ms_apart() -> None:
    tone = samples("beep:2", 8000)
    assert len(tone) == 8 * 800
    assert not any(tone[8 * 300 : 8 * 500])
    assert tone[: 8 * 300] == tone[8 * 500 :] == samples("beep:1", 8000)


@pytest.mark.parametrize("name", TONES)
def test_it_does_not_click(name: str) -> None:
    tone = samples(name, 8000)
    assert tone[0] == tone[-1] == 0
    # 1 ms into the fade of 5 ms: at most a fifth of the amplitude.
    assert max(map(abs, tone[:8])) <= max(tone) / 5
    assert max(tone) == pytest.approx(32767 / 4, rel=0.02)

"""Audio analysis of sounds that are made here; test_phone covers sounds that went through Asterisk."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from demo import audio_analysis, g711
from demo.audio_analysis import PITCHES, Samples
from demo.speech import speech_files

SPEECH = {speech.name: audio_analysis.wav(speech.path) for speech in speech_files()}
QUIET = np.zeros(8 * 20_000, np.int16)


def _mixed(*parts: tuple[Samples, float, float]) -> Samples:
    """Mix the given (sound, factor, start in ms) and pass the mix through G.711."""
    mix = np.zeros(len(QUIET))
    for what, factor, start in parts:
        first = int(start * 8)
        piece = what[: len(mix) - first]
        mix[first : first + len(piece)] += piece * factor
    return g711.decode(g711.encode(np.clip(np.round(mix), -32768, 32767).astype(np.int16)))


def _tone(hz: int, ms: float, level: float = -20.0) -> Samples:
    time = np.arange(int(ms * 8)) / 8000
    return np.round(32767 * 10 ** (level / 20) * np.sin(2 * np.pi * hz * time + hz)).astype(np.int16)


def test_levels_are_those_of_a_sine() -> None:
    assert audio_analysis.level_dbfs(_tone(475, 1000, -20)) == pytest.approx(-20, abs=0.05)
    assert audio_analysis.level_dbfs(QUIET) == -120


def test_silence_is_distinguished_from_a_whisper() -> None:
    assert audio_analysis.silent(QUIET)
    assert audio_analysis.silent(_mixed((_tone(475, 500, -60), 1, 100)))
    assert not audio_analysis.silent(_mixed((_tone(475, 25, -45), 1, 1000)))


def test_twenty_simultaneous_tones_are_distinguished() -> None:
    parts = [(_tone(hz, 4000 + 450 * at, -30), 1.0, 1000.0 + 300 * at) for at, hz in enumerate(PITCHES)]
    found = audio_analysis.tones(_mixed(*parts))
    assert set(found) == set(PITCHES)
    for (what, _, start), hz in zip(parts, PITCHES, strict=True):
        ((begin, end),) = found[hz]
        assert (begin, end) == pytest.approx((start, start + len(what) / 8), abs=5)


def test_an_absent_tone_is_not_found() -> None:
    for missing in PITCHES[::4]:
        parts = [(_tone(hz, 3000, -30), 1.0, 500.0) for hz in PITCHES if hz != missing]
        assert set(audio_analysis.tones(_mixed(*parts))) == set(PITCHES) - {missing}


@pytest.mark.parametrize("pause", [20, 40, 60, 100])
def test_pauses_of_a_tone_are_measured(pause: int) -> None:
    heard = _mixed((_tone(475, 1000), 1, 0), (_tone(475, 1000), 1, 1000 + pause), (_tone(1075, 3000), 1, 0))
    ((start, end),) = audio_analysis.gaps(heard, 475)
    assert (start, end) == pytest.approx((1000, 1000 + pause), abs=5)
    assert audio_analysis.gaps(heard, 475, pause + 6) == []


def test_beeps_are_found_and_speech_is_none() -> None:
    twice = _mixed((_tone(700, 300), 1, 500), (_tone(700, 300), 1, 1000))
    found = audio_analysis.beeps(twice)
    assert [beep.start_ms for beep in found] == pytest.approx([500, 1000], abs=5)
    assert [beep.length_ms for beep in found] == pytest.approx([300, 300], abs=6)
    assert [beep.hz for beep in found] == pytest.approx([700, 700], abs=5)
    for speech in SPEECH.values():
        assert audio_analysis.beeps(speech) == []


def test_a_beep_under_speech_is_found_by_its_pitch() -> None:
    heard = _mixed((SPEECH["austen"], 0.3, 0), (_tone(700, 300, -12), 1, 6000))
    assert any(
        abs(start - 6000) < 15 and abs(end - 6300) < 15 for start, end in audio_analysis.intervals_of(heard, 700, -25)
    )


@pytest.mark.parametrize("name", SPEECH)
def test_a_voice_is_found_alone_and_where(name: str) -> None:
    match = audio_analysis.find_reference(_mixed((SPEECH[name], 0.7, 1234)), SPEECH[name])
    assert match.score > 0.95
    assert match.offset_ms == pytest.approx(1234, abs=1)


@pytest.mark.parametrize("missing", SPEECH)
def test_each_of_two_voices_is_found_and_the_third_is_not(missing: str) -> None:
    talking = [speech for name, speech in SPEECH.items() if name != missing]
    heard = _mixed((talking[0], 0.4, 300), (talking[1], 0.4, 900))
    assert min(audio_analysis.find_reference(heard, speech).score for speech in talking) > 0.85
    assert audio_analysis.find_reference(heard, SPEECH[missing]).score < 0.3


def test_a_voice_is_found_under_nineteen_tones() -> None:
    tones = [(_tone(hz, 20_000, -30), 1.0, 0.0) for hz in PITCHES[:19]]
    heard = _mixed((SPEECH["austen"], 0.3, 500), *tones)
    assert audio_analysis.find_reference(heard, SPEECH["austen"]).score > 0.85
    assert audio_analysis.find_reference(heard, SPEECH["prompts"]).score < 0.3


def test_a_short_piece_is_found_in_its_recording() -> None:
    match = audio_analysis.find_reference(SPEECH["austen"][8 * 5000 : 8 * 9000], SPEECH["austen"])
    assert match.score > 0.95
    assert match.offset_ms == pytest.approx(-5000, abs=1)


def test_a_voice_that_is_cut_short_counts_for_what_was_heard() -> None:
    heard = _mixed((SPEECH["austen"], 0.4, 0), (SPEECH["cards"], 0.4, 0))[: len(SPEECH["austen"]) * 3 // 4]
    assert 0.6 < audio_analysis.find_reference(heard, SPEECH["austen"]).score < 0.85


def test_no_recording_is_found_in_another_in_noise_or_in_silence() -> None:
    noise = np.random.default_rng(1).normal(0, 1000, 80_000).astype(np.int16)
    for one, other in permutations(SPEECH, 2):
        assert audio_analysis.find_reference(SPEECH[one], SPEECH[other]).score < 0.3
    for speech in SPEECH.values():
        assert audio_analysis.find_reference(noise, speech).score < 0.3
        assert audio_analysis.find_reference(QUIET, speech).score < 0.3


def test_a_frame_lost_in_the_mixer_does_not_hide_a_voice() -> None:
    speech = SPEECH["cards"]
    cut = np.concatenate((speech[: 8 * 6000], speech[8 * 6020 :]))
    assert audio_analysis.find_reference(_mixed((cut, 0.7, 0)), speech).score > 0.85

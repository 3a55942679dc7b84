"""The demo's verdict: a caller heard another only if the other's words are in the audio that the caller received."""

from types import SimpleNamespace

import numpy as np
import pytest

from demo import audio_analysis
from demo.report import print_summary, write_recordings
from demo.scenario import Caller
from demo.speech import speech_files

BOB, CID, ANN = (audio_analysis.wav(speech.path)[: 3 * 8000] for speech in speech_files())


def mixed(*voices: audio_analysis.Samples) -> audio_analysis.Samples:
    return np.sum(voices, axis=0, dtype=np.int32).clip(-32768, 32767).astype(np.int16)


def caller(name: str, speech: audio_analysis.Samples, heard: audio_analysis.Samples) -> Caller:
    phone = SimpleNamespace(heard=SimpleNamespace(between=lambda start, end: heard))
    return Caller(name, "1", "", speech, "green", phone)


def judged(bob: audio_analysis.Samples, cid: audio_analysis.Samples, ann: audio_analysis.Samples) -> list[str]:
    """Return the sentences about missing voices, given the audio that each caller received."""
    return print_summary([caller("Bob", BOB, bob), caller("Cid", CID, cid), caller("Ann", ANN, ann)], 0.0)


def test_each_heard_the_other_two():
    assert judged(mixed(CID, ANN), mixed(BOB, ANN), mixed(BOB, CID)) == []


def test_a_speaker_who_was_not_heard_is_named():
    assert judged(mixed(CID, ANN), mixed(BOB, ANN), CID) == ["Ann did not hear Bob"]


def test_silence_counts_as_no_speaker():
    silence = np.zeros_like(BOB)
    assert judged(mixed(CID, ANN), silence, mixed(BOB, CID)) == ["Cid did not hear Bob", "Cid did not hear Ann"]


def test_an_echo_is_a_failure():
    assert judged(mixed(BOB, CID, ANN), mixed(BOB, ANN), mixed(BOB, CID)) == ["Bob heard an echo"]


@pytest.mark.parametrize("heard", [mixed(CID[::-1], ANN), mixed(np.roll(CID, 1) * 0, ANN)])
def test_other_words_do_not_count_as_the_speaker_s(heard):
    assert judged(heard, mixed(BOB, ANN), mixed(BOB, CID)) == ["Bob did not hear Cid"]


def test_the_received_audio_is_written_to_files(tmp_path):
    heard = mixed(BOB, CID)
    (file,) = write_recordings([caller("Ann", ANN, heard)], 0.0, tmp_path / "heard")
    assert file.name == "ann.wav" and np.array_equal(audio_analysis.wav(file), heard)

"""The demo's judgement: it says that a caller heard another only if his words are in the sound that reached him."""

from types import SimpleNamespace

import numpy as np
import pytest

from demo import listen
from demo.callers import Caller
from demo.show import summary, written
from demo.speech import speech_files

BOB, CID, ANN = (listen.wav(speech.path)[: 3 * 8000] for speech in speech_files())


def mixed(*voices: listen.Samples) -> listen.Samples:
    return np.sum(voices, axis=0, dtype=np.int32).clip(-32768, 32767).astype(np.int16)


def caller(name: str, speech: listen.Samples, heard: listen.Samples) -> Caller:
    phone = SimpleNamespace(heard=SimpleNamespace(between=lambda start, end: heard))
    return Caller(name, "1", "", speech, "green", phone)


def judged(bob: listen.Samples, cid: listen.Samples, ann: listen.Samples) -> list[str]:
    """What is said to be missing, when that is what reached each of them."""
    return summary([caller("Bob", BOB, bob), caller("Cid", CID, cid), caller("Ann", ANN, ann)], 0.0)


def test_each_heard_the_other_two():
    assert judged(mixed(CID, ANN), mixed(BOB, ANN), mixed(BOB, CID)) == []


def test_one_who_was_not_heard_is_named():
    assert judged(mixed(CID, ANN), mixed(BOB, ANN), CID) == ["Ann did not hear Bob"]


def test_silence_is_not_taken_for_anybody():
    silence = np.zeros_like(BOB)
    assert judged(mixed(CID, ANN), silence, mixed(BOB, CID)) == ["Cid did not hear Bob", "Cid did not hear Ann"]


def test_an_echo_is_no_conference():
    assert judged(mixed(BOB, CID, ANN), mixed(BOB, ANN), mixed(BOB, CID)) == ["Bob heard himself"]


@pytest.mark.parametrize("heard", [mixed(CID[::-1], ANN), mixed(np.roll(CID, 1) * 0, ANN)])
def test_other_words_are_not_his(heard):
    assert judged(heard, mixed(BOB, ANN), mixed(BOB, CID)) == ["Bob did not hear Cid"]


def test_what_each_heard_is_left_to_be_listened_to(tmp_path):
    heard = mixed(BOB, CID)
    (file,) = written([caller("Ann", ANN, heard)], 0.0, tmp_path / "heard")
    assert file.name == "ann.wav" and np.array_equal(listen.wav(file), heard)

"""restore(snapshot(x)) == x, through JSON."""

from __future__ import annotations

import json

import pytest

from ari_conf.core.call import Call
from ari_conf.core.conference import Conference
from ari_conf.core.elements import GetDigits, Hangup, Play, PreAnswer, Redirect, Speak, Wait
from ari_conf.core.snapshot import restore, snapshot
from tests.core.stage import MUSIC, Stage, players, stay, waiting


def there_and_back(stage: Stage) -> None:
    for call in stage.directory.calls.values():
        assert restore(json.loads(json.dumps(snapshot(call))), Call) == call
    for conference in stage.directory.conferences.values():
        assert restore(json.loads(json.dumps(snapshot(conference))), Conference) == conference


@pytest.mark.parametrize(
    "element",
    [
        Play("song", loop=3),
        Speak("hello", voice="Polly.Amy", language="en-GB", loop=0),
        Wait(5, silence=True),
        GetDigits((Play("a"), Speak("b"), Wait(1)), action="http://action.example/", finish_on_key=""),
        PreAnswer((Play("a"), GetDigits(), Redirect("http://next.example/"))),
        Redirect("http://next.example/"),
        Hangup(schedule=7),
        stay(digits_match=("1", "12"), max_members=3, time_limit=0, wait_sound=MUSIC, send_digits="1w2"),
    ],
    ids=lambda element: type(element).__name__,
)
def test_a_call_that_runs_each_element(stage: Stage, element: Play) -> None:
    stage.call("ann", element, Wait(3), element)
    there_and_back(stage)
    stage.pass_time(1)
    there_and_back(stage)


def test_a_conference_in_each_of_its_states(stage: Stage) -> None:
    stage.sounds[MUSIC] = (Play("jazz"), Wait(1))
    sounds = {"wait_sound": MUSIC, "enter_sound": MUSIC, "exit_sound": "beep:1", "record": True}
    stage.call("ann", waiting(**sounds))
    there_and_back(stage)
    players(stage, "bob", "cid", floor_event=True, send_digits="1W2", digits_match=("1", "12"), **sounds)
    there_and_back(stage)
    stage.press("bob", "1")
    stage.talk("bob")
    there_and_back(stage)
    stage.hang_up("bob", "cid")
    there_and_back(stage)


def test_the_restored_one_goes_on_as_the_other_would(stage: Stage) -> None:
    stage.sounds[MUSIC] = (Play("jazz"),)
    stage.call("ann", stay(wait_sound=MUSIC, hangup_on_star=True, digits_match=("12",)), Speak("next"))
    stage.press("ann", "1")
    for shelf, kind in ((stage.directory.calls, Call), (stage.directory.conferences, Conference)):
        for key, thing in list(shelf.items()):
            shelf[key] = restore(json.loads(json.dumps(snapshot(thing))), kind)  # type: ignore[index]
    stage.press("ann", "2*")
    assert stage.told() == ["enter ann", "digits ann 12", "exit ann star"]
    assert stage.media("ann") == ["jazz", "next"]


def test_what_it_can_not_have_been_made_from() -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        restore({"_": "Call"}, Call)
    with pytest.raises(TypeError):
        restore([], set)  # type: ignore[arg-type]

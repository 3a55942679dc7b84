"""Snapshots restore the state as it was, also those of earlier versions."""

from __future__ import annotations

import json
from collections.abc import Hashable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import pytest

from ari_conf.core.calls.call import Call
from ari_conf.core.conferences.conference import Conference
from ari_conf.core.elements import GetDigits, Hangup, Play, PreAnswer, Redirect, Speak, Wait
from ari_conf.core.snapshot import restore, snapshot
from ari_conf.store.state_codec import decode, encode
from tests.core.stage import MUSIC, Stage, players, stay, waiting


class Light(StrEnum):
    RED = "red"
    GREEN = "green"


@dataclass(slots=True)
class Crossing:
    light: Light = Light.RED
    others: dict[str, Light] = field(default_factory=dict)
    cars: list[int] = field(init=False, compare=False, default_factory=list)


def there_and_back(stage: Stage) -> None:
    for call in stage.engine.calls.values():
        _as_it_was(call, Call)
    for conference in stage.engine.conferences.values():
        _as_it_was(conference, Conference)


def _as_it_was(thing: Call | Conference, kind: type) -> None:
    assert restore(json.loads(encode(thing)), kind) == thing
    assert restore(json.loads(json.dumps(snapshot(thing))), kind) == thing
    assert decode(encode(thing), {}) == decode(json.dumps(snapshot(thing)).encode(), {}) == thing


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
    for shelf, kind in ((stage.engine.calls, Call), (stage.engine.conferences, Conference)):
        for key, thing in list(shelf.items()):
            shelf[key] = restore(json.loads(encode(thing)), kind)  # type: ignore[index]
    stage.press("ann", "2*")
    assert stage.callback_texts() == ["enter ann", "digits ann 12", "exit ann star"]
    assert stage.media("ann") == ["jazz", "next"]


def test_equal_documents_are_one_again(stage: Stage) -> None:
    players(stage, "ann", "bob", digits_match=("1",))
    shared: dict[Hashable, Any] = {}
    calls = [decode(encode(call), shared) for call in stage.engine.calls.values()]
    conferences = [decode(encode(conference), shared) for conference in stage.engine.conferences.values()]
    elements = [e for c in calls if isinstance(c, Call) for e in (*c.elements, c.running)]
    elements += [m.element for c in conferences if isinstance(c, Conference) for m in c.members.values()]
    assert len(elements) == 6
    assert len({id(e) for e in elements}) == 1


def test_what_changes_is_each_ones_own(stage: Stage) -> None:
    players(stage, "ann", "bob", digits_match=("1",), enter_sound="beep:1")
    (conference,) = stage.engine.conferences.values()
    shared: dict[Hashable, Any] = {}
    one, another = (decode(encode(conference), shared) for _ in range(2))
    assert isinstance(one, Conference) and isinstance(another, Conference)
    members = [*one.members.values(), *another.members.values()]
    parts = [
        p
        for m in members
        for p in (m.matcher, m.enter_sound, m.exit_sound, m.private_playback, m.private_playback.queue)
    ]
    assert len({id(p) for p in parts}) == len(parts)


def test_what_a_version_before_did_not_write_has_its_default(stage: Stage) -> None:
    stage.call("ann", stay(), Speak("next"))
    (conference,) = stage.engine.conferences.values()
    shot = json.loads(encode(conference))
    member = shot["members"]["1"]
    del shot["locked"], shot["shared_playback"], member["private_playback"], member["element"]["relay_dtmf"]
    assert restore(shot, Conference) == decode(json.dumps(shot).encode(), {}) == conference
    del shot["name"]
    with pytest.raises(KeyError, match="name"):
        restore(shot, Conference)
    with pytest.raises(ValueError, match="name"):
        decode(json.dumps(shot).encode(), {})


def test_what_it_can_not_have_been_made_from() -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        restore({"_": "Call"}, Call)
    with pytest.raises(TypeError):
        restore([], set)  # type: ignore[arg-type]


def test_a_state_is_a_word_and_becomes_the_state_again() -> None:
    shot = snapshot(Crossing(Light.GREEN, {"north": Light.RED}))
    assert [type(shot["light"]), type(shot["others"]["north"])] == [str, str]
    restored = restore(json.loads(json.dumps(shot)), Crossing)
    assert restored.light is Light.GREEN and restored.others["north"] is Light.RED
    assert restore({}, Crossing).light is Light.RED
    for unknown in ("blue", "GREEN", None, 1):
        with pytest.raises((KeyError, TypeError)):
            restore(shot | {"light": unknown}, Crossing)


def test_what_the_constructor_does_not_take_is_no_part_of_a_snapshot() -> None:
    crossing = Crossing()
    crossing.cars.append(1)
    assert "cars" not in snapshot(crossing)
    assert restore(snapshot(crossing), Crossing).cars == []

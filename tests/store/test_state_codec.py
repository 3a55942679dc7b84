"""Tests of persisted calls and conferences: they are restored as they were, and share what they have in common."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ari_conf.core.calls.call import Call
from ari_conf.core.conferences.conference import Conference
from ari_conf.core.elements import GetDigits, Hangup, Play, PreAnswer, Redirect, Speak, Wait
from ari_conf.core.events import CallArrived
from ari_conf.documents import parser
from ari_conf.store import state_codec
from ari_conf.store.state_codec import ValuePool, decode, encode, encode_without_members, is_conference, merge_members
from tests.core.stage import MUSIC, Stage, players, stay, waiting

MOST_OF_A_DOCUMENT = 4
"""The maximum size of a call's record, as a multiple of its document: text that is short in XML and long in JSON is
abbreviated."""


@pytest.fixture
def stage() -> Stage:
    return Stage()


def assert_restored(stage: Stage) -> None:
    for thing in (*stage.engine.calls.values(), *stage.engine.conferences.values()):
        assert decode(encode(thing), {}) == thing


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
    assert_restored(stage)
    stage.pass_time(1)
    assert_restored(stage)


def test_a_conference_in_each_of_its_states(stage: Stage) -> None:
    stage.sounds[MUSIC] = (Play("jazz"), Wait(1))
    sounds = {"wait_sound": MUSIC, "enter_sound": MUSIC, "exit_sound": "beep:1", "record": True}
    stage.call("ann", waiting(**sounds))
    assert_restored(stage)
    players(stage, "bob", "cid", floor_event=True, send_digits="1W2", digits_match=("1", "12"), **sounds)
    assert_restored(stage)
    stage.press("bob", "1")
    stage.talk("bob")
    assert_restored(stage)
    stage.hang_up("bob", "cid")
    assert_restored(stage)


def test_the_restored_one_goes_on_as_the_other_would(stage: Stage) -> None:
    stage.sounds[MUSIC] = (Play("jazz"),)
    stage.call("ann", stay(wait_sound=MUSIC, hangup_on_star=True, digits_match=("12",)), Speak("next"))
    stage.press("ann", "1")
    for shelf in (stage.engine.calls, stage.engine.conferences):
        for key, thing in list(shelf.items()):
            shelf[key] = decode(encode(thing), {})  # type: ignore[index]
    stage.press("ann", "2*")
    assert stage.callback_texts() == ["enter ann", "digits ann 12", "exit ann star"]
    assert stage.media("ann") == ["jazz", "next"]


def test_equal_documents_are_one_again(stage: Stage) -> None:
    players(stage, "ann", "bob", digits_match=("1",))
    pool: ValuePool = {}
    calls = [decode(encode(call), pool) for call in stage.engine.calls.values()]
    conferences = [decode(encode(conference), pool) for conference in stage.engine.conferences.values()]
    elements = [e for c in calls if isinstance(c, Call) for e in (*c.elements, c.running)]
    elements += [m.element for c in conferences if isinstance(c, Conference) for m in c.members.values()]
    assert len(elements) == 6
    assert len({id(e) for e in elements}) == 1


def test_restored_records_share_nothing_mutable(stage: Stage) -> None:
    players(stage, "ann", "bob", digits_match=("1",), enter_sound="beep:1")
    (conference,) = stage.engine.conferences.values()
    pool: ValuePool = {}
    one, another = (decode(encode(conference), pool) for _ in range(2))
    assert isinstance(one, Conference) and isinstance(another, Conference)
    members = [*one.members.values(), *another.members.values()]
    parts = [
        p
        for m in members
        for p in (m.matcher, m.enter_sound, m.exit_sound, m.private_playback, m.private_playback.queue)
    ]
    assert len({id(p) for p in parts}) == len(parts)


def test_a_conference_and_its_members_are_apart_and_become_one(stage: Stage) -> None:
    players(stage, "ann", "bob")
    (conference,) = stage.engine.conferences.values()
    members = {b"%d" % id: encode(member) for id, member in conference.members.items()}
    apart = encode_without_members(conference)
    assert len(conference.members) == 2 and decode(apart, {}) != conference
    assert is_conference(apart) and not any(
        map(is_conference, (*members.values(), b"", b"{}", b"[", b'{"type":"\xff"}', b'{"type":5}'))
    )
    assert decode(merge_members(apart, members), {}) == conference


def test_missing_field_has_its_default(stage: Stage) -> None:
    stage.call("ann", stay(), Speak("next"))
    (conference,) = stage.engine.conferences.values()
    record = json.loads(encode(conference))
    del record["locked"], record["shared_playback"], record["members"]["1"]["private_playback"]
    assert decode(json.dumps(record).encode(), {}) == conference
    del record["name"]
    with pytest.raises(ValueError, match="name"):
        decode(json.dumps(record).encode(), {})


DAMAGED: list[dict[str, Any]] = [
    {"type": "Member"},
    {"type": None},
    {"state": "dancing"},
    {"state": None},
    {"state": 1},
    {"position": "first"},
    {"position": True},
    {"answered_at": 1.5},
    {"headers": []},
    {"elements": {}},
    {"elements": [{"type": "Dance"}]},
    {"elements": [{"type": "Play"}]},
    {"running": {"type": "Member"}},
    {"running": {"type": "Play", "url": "a"}},
    {"account": 5},
]


@pytest.mark.parametrize("damage", DAMAGED, ids=str)
def test_value_of_the_wrong_type_is_refused(stage: Stage, damage: dict[str, Any]) -> None:
    stage.call("ann", Wait(5))
    (call,) = stage.engine.calls.values()
    record = json.loads(encode(call))
    assert decode(json.dumps(record).encode(), {}) == call
    with pytest.raises(ValueError):
        decode(json.dumps(record | damage).encode(), {})


def test_derived_values_are_not_written(stage: Stage) -> None:
    players(stage, "ann", "bob")
    (conference,) = stage.engine.conferences.values()
    restored = decode(encode(conference), {})
    assert isinstance(restored, Conference)
    derived = {"audio", "bridge_id", "index", "step"}
    assert not derived & json.loads(encode(conference)).keys()
    assert restored.bridge_id == conference.bridge_id and restored.index.by_channel.keys() == {"ann", "bob"}
    assert not derived & set(conference.__struct_fields__)
    assert "constant_params" not in json.loads(encode(stage.engine.calls["call-ann"]))


def test_a_pool_does_not_grow_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_codec, "MAX_POOLED", 10)
    pool: ValuePool = {}
    for n in range(100):
        decode(encode(call(f"<Speak>{n}</Speak>")), pool)
    assert 0 < len(pool) < 20


def call(*parts: str) -> Call:
    made, _ = Call.from_arrival(CallArrived("ann", "u1", "request", "A", "+4930", "100"), 1)
    made.elements = parser.parse(f"<Response>{''.join(parts)}</Response>".encode()).elements
    return made


LONG = {
    "conferences": "<Conference>a</Conference>" * 1990,
    "digits": "<GetDigits/>" * 1990,
    "digits before the answer": f"<PreAnswer>{'<GetDigits/>' * 1900}</PreAnswer>",
    "sounds": "<Play>http://a.example/</Play>" * 1990,
    "words": "<Speak>a</Speak>" * 1990,
    "of all kinds": '<Conference record="true" timeLimit="0" maxMembers="3">a</Conference><GetDigits numDigits="1">'
    '<Play loop="0">http://a.example/</Play><Wait length="3"/></GetDigits><Hangup reason="busy" schedule="9"/>'
    "<Redirect>http://a.example/</Redirect>" * 50,
}


@pytest.mark.parametrize("what", LONG)
def test_a_long_document_is_written_in_brief_and_read_back_whole(what: str) -> None:
    made = call(LONG[what])
    text = encode(made)
    assert len(text) < MOST_OF_A_DOCUMENT * len(LONG[what])
    assert decode(text, {}) == made

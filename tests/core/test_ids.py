"""Ids that name their owner."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core import ids
from ari_conf.core.ids import OwnedId, OwnerKind, RecordingName
from tests.core.stage import Stage, players, stay

parts = st.text(st.characters(exclude_characters="./", exclude_categories=("Cs",)), min_size=1, max_size=5)


@given(st.sampled_from(OwnerKind), parts, st.integers(1, 10**12), st.lists(parts, max_size=3).map(tuple))
def test_an_id_is_read_as_it_was_made(kind: OwnerKind, owner: str, number: int, rest: tuple[str, ...]) -> None:
    made = OwnedId(kind, owner, number if kind is OwnerKind.MEMBER else None, rest)
    assert ids.parse(str(made)) == made


@given(st.text(st.sampled_from("cmb.0123x²"), max_size=12))
def test_id_is_read_back_and_anything_else_is_none(text: str) -> None:
    found = ids.parse(text)
    assert found is None or ids.parse(str(found)) == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "c",
        "c.",
        "b..bridge",
        "x.id1.1",
        "1701360000.12",
        "18b41dd3-ac26-4815-8a05-f974a605c088",
        "m.id1",
        "m.id1.",
        "m.id1.x.wait",
        "m.id1.²",
    ],
)
def test_text_that_names_no_owner(text: str) -> None:
    assert ids.parse(text) is None
    assert ids.call_of(text) is ids.conference_of(text) is ids.member_of(text) is None


def test_owner_of_an_id() -> None:
    call, member, conference = (
        ids.for_call("u1", 3, 1),
        ids.for_member("id1", 7, "wait", 1),
        ids.for_conference("id1", 2),
    )
    assert [ids.call_of(each) for each in (call, member, conference)] == ["u1", None, None]
    assert [ids.conference_of(each) for each in (call, member, conference)] == [None, "id1", "id1"]
    assert [ids.member_of(each) for each in (call, member, conference)] == [None, 7, None]


def test_bridges_recordings_and_taps_name_their_owners() -> None:
    assert ids.conference_of(ids.bridge_id("id1")) == "id1" != ids.bridge_id("id1")
    name = RecordingName("MA1", "id1", "r1")
    assert ids.parse_recording_name(str(name)) == name
    of_call = RecordingName("MA1", "", "r1", "u1", "out")
    assert ids.parse_recording_name(str(of_call)) == of_call
    assert str(of_call) == f"MA1/{ids.snoop_channel_id('u1', 'r1', 'out')}"
    assert ids.recording_name(ids.snoop_channel_id("u1", "r1", "out"), "MA1", "r1") == of_call
    assert ids.recorder_of(ids.snoop_channel_id("u1", "r1", "out")) == ("u1", "r1")
    assert ids.recorder_of("b.id1.recording.r1") is None
    tap = ids.tap_ids("u1", "my.app", "p1", 4)
    assert {ids.call_of(each) for each in tap} == {"u1"} and len(set(tap)) == 3
    assert {ids.tap_creator(each) for each in tap} == {("my.app", "p1")}


@pytest.mark.parametrize("text", ["r1", "MA1/r1", "b.id1.recording.r1", "MA1/c.u1.recording.r1", "MA1/b.id1.other.r1"])
def test_recordings_that_the_server_has_not_made(text: str) -> None:
    assert ids.parse_recording_name(text) is None


@pytest.mark.parametrize("text", ["", "b.id1.tap.conf.p1.1", "c.u1.2.conf.p1", "c.u1.tap", "c.u1.tap.conf"])
def test_text_that_is_no_tap(text: str) -> None:
    assert ids.tap_creator(text) is None


def test_news_of_another_bridge_of_a_conference_is_not_its_own_bridge_s() -> None:
    stage = Stage()
    players(stage, "ann", "bob")
    other = ids.for_conference(stage.conference_id(), "bridge", "private")
    assert other != stage.bridge_id() and ids.conference_of(other) == stage.conference_id()
    reported = stage.tell(
        ev.BridgeDestroyed(other),
        ev.ChannelLeftBridge("ann", other),
        ev.EffectFailed(do.DestroyBridge(other), "no", target_gone=True),
        ev.BridgeDestroyed(stage.conference_id()),
    )
    assert reported == [] and stage.hears("ann") == {"bob"}


def test_no_owner_has_a_period_in_its_id() -> None:
    """Otherwise its own ids would name another owner."""
    stage = Stage()
    stage.call("ann", stay(record=True))
    (call,), (conference,) = stage.engine.calls, stage.engine.conferences
    (recording,) = stage.all(do.StartRecording)
    assert not any("." in each for each in (call, conference, recording.recording_id))

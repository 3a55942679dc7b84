"""Aborts: a broken step, or stored state that is not valid, ends its call or conference completely, and no other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from ari_conf.core import commands as api
from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core import ids, invariants
from ari_conf.core.abort import INTERNAL_ERROR
from ari_conf.core.account import Account
from ari_conf.core.calls.call import Call
from ari_conf.core.calls.gather import GatherState
from ari_conf.core.conferences.conference import Conference
from ari_conf.core.conferences.conference_state import BridgeState, ClaimState
from ari_conf.core.conferences.member import Member
from ari_conf.core.conferences.member_state import MemberState
from ari_conf.core.elements import GetDigits, Play, Speak, Wait
from ari_conf.core.engine import Engine
from ari_conf.core.playback.player import PlayerState
from ari_conf.core.recording import RecordingState
from ari_conf.core.request_params import plausible
from ari_conf.core.restoration import Restoration
from ari_conf.core.step_failed import StepFailed
from tests.core.copies import copied
from tests.core.stage import MUSIC, Stage, players, stay, waiting

HANGUP = "http://hangup.example/"
BRIDGE = ids.bridge_id("id1")


@pytest.fixture
def stage() -> Stage:
    return Stage(hangup_url=HANGUP)


class Broken(Exception):
    pass


def breaks(*_: object) -> Any:
    raise Broken


def give_up(stage: Stage, failure: StepFailed) -> list[do.Effect]:
    assert isinstance(failure.__cause__, Broken)
    effects = stage.engine.abort_failed_step(failure, stage.now)
    stage.carry_out(effects)
    return effects


def break_at(stage: Stage, monkeypatch: pytest.MonkeyPatch, place: str, event: ev.Event) -> list[do.Effect]:
    """Handle this event while `place` raises, then abort the step."""
    with monkeypatch.context() as patch, pytest.raises(StepFailed) as failure:
        patch.setattr(f"ari_conf.core.{place}", breaks)
        stage.engine.handle_event(event, stage.now)
    return give_up(stage, failure.value)


def numbers(stage: Stage) -> list[int]:
    stored = [e.callback.params for e in stage.all(do.StoreRecording) if e.callback is not None]
    reported = [dict(e.params) for e in stage.all(do.PostCallback)] + [dict(params) for params in stored]
    return sorted(int(params["ConferenceSequence"]) for params in reported if "ConferenceSequence" in params)


def ended(stage: Stage) -> set[str]:
    """Return the callers whose hangup URL was requested."""
    return {dict(e.params)["CallUUID"].removeprefix("call-") for e in stage.all(do.PostCallback) if e.url == HANGUP}


# A step that breaks.


def test_only_the_calls_of_the_failed_step_are_ended(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    players(stage, "ann", "bob", record=True)
    stage.call("cid", stay("other"))
    stage.call("dan", Wait(60))
    broken, other = stage.conference_id(), stage.conference_id("other")
    stage.engine.take_changes()
    effects = break_at(stage, monkeypatch, "conferences.conference.Conference._on_digit", ev.DigitReceived("ann", "1"))
    assert {e.text for e in effects if isinstance(e, do.ReportProblem)} == {INTERNAL_ERROR}
    assert [e.conference_id for e in effects if isinstance(e, do.ReleaseName)] == [broken]
    assert stage.callback_texts()[2:] == ["enter cid", "exit ann conference_ended", "exit bob conference_ended"]
    assert [c["ConferenceLastMember"] for c in stage.callbacks(ConferenceAction="exit")] == ["false", "true"]
    assert [e.conference_id for e in stage.all(do.StoreRecording)] == [broken]
    assert {e.call_uuid for e in stage.all(do.AddAttendanceNote)} == {"call-ann", "call-bob"}
    assert ended(stage) == {"ann", "bob"}
    assert set(stage.asterisk.channels) == {"cid", "dan"} and set(stage.asterisk.bridges) == {stage.bridge_id("other")}
    assert set(stage.engine.calls) == {"call-cid", "call-dan"} and set(stage.engine.conferences) == {other}
    assert {key for key, thing in stage.engine.take_changes().items() if thing is None} >= {
        broken,
        "call-ann",
        "call-bob",
    }
    # The name is free, and the others go on.
    stage.call("eve", stay())
    assert stage.callback_texts()[-1] == "enter eve"
    stage.pass_time(60)
    assert stage.call_of("dan") is None and stage.call_of("cid") is not None


EVENTS: dict[str, ev.Event] = {
    "conferences.conference.Conference._on_entered_bridge": ev.ChannelEnteredBridge("ann", BRIDGE),
    "conferences.conference.Conference.update_media": ev.BridgeDestroyed(BRIDGE),
    "conferences.conference.Conference._update_members": ev.ChannelLeftBridge("ann", BRIDGE),
    "conferences.conference.Conference._after_member_left": ev.ChannelHungUp("ann", 16),
    "conferences.recording.ConferenceRecording.note_attendance": ev.ChannelHungUp("ann", 16),
    "conferences.recording.ConferenceRecording.hand_over": ev.RecordingFinished("id1", "id2"),
    "conferences.conference.Conference._hand_over_recording": ev.BridgeDestroyed(BRIDGE),
    "calls.call.Call.standard_params": ev.ChannelHungUp("ann", 16),
    "calls.call.Call.on_member_released": ev.ChannelLeftBridge("ann", BRIDGE),
    "calls.call.Call._hangup_callback": ev.ChannelHungUp("ann", 16),
    "registry.Registry.update_indexes": ev.DigitReceived("ann", "1"),
    "dispatcher.Dispatcher.remember_switch_off": ev.ChannelLeftBridge("ann", BRIDGE),
}


@pytest.mark.parametrize("place", EVENTS)
def test_a_failure_anywhere_repeats_no_callback_and_skips_no_sequence_number(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    players(stage, "ann", "bob", record=True, muted=True, action="http://action.example/")
    stage.call("zoe", stay("other"))
    event = EVENTS[place]
    if isinstance(event, ev.ChannelHungUp):
        stage.asterisk.channels.pop("ann")
        stage.asterisk.bridges[BRIDGE].channels.remove("ann")
    break_at(stage, monkeypatch, place, event)
    reported = [text for text in stage.callback_texts() if "zoe" not in text]
    assert sorted(text.split()[:2] for text in reported) == [
        ["enter", "ann"], ["enter", "bob"], ["exit", "ann"], ["exit", "bob"]]  # fmt: skip
    assert numbers(stage) == [1, 1, 2, 3, 4, 5], "of both conferences; the last is the recording's"
    assert [e.conference_id for e in stage.all(do.StoreRecording)] == ["id1"]
    assert ended(stage) == {"ann", "bob"}
    assert set(stage.engine.calls) == {"call-zoe"} and set(stage.asterisk.channels) == {"zoe"}
    assert stage.hears("zoe") == set() and set(stage.asterisk.bridges) == {stage.bridge_id("other")}
    stage.hang_up("zoe")
    stage.assert_nothing_is_left()


def test_a_member_who_entered_in_the_failed_step_has_entered(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.held = {do.ClaimName}
    stage.call("ann", stay())
    stage.held = set()
    break_at(stage, monkeypatch, "calls.call.Call.on_admitted", ev.NameClaimed("id1"))
    assert stage.callback_texts() == ["enter ann", "exit ann conference_ended"]
    assert [c["ConferenceSequence"] for c in stage.callbacks()] == ["1", "2"]


def test_a_call_that_breaks_leaves_its_conference_and_the_conference_goes_on(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    players(stage, "ann", "bob", exit_sound="beep:1")
    stage.held = {do.HangUp}
    break_at(stage, monkeypatch, "calls.call.Call._handle_live_event", ev.EffectFailed(do.SendDigits("bob", "1"), "no"))
    assert stage.callback_texts()[2:] == ["exit bob hangup"]
    stage.let_go()
    assert stage.hears("ann") == {f"b.{stage.conference_id()}.1.1"}
    assert set(stage.engine.calls) == {"call-ann"} and ended(stage) == {"bob"}


def test_a_deadline_that_breaks_costs_no_other_call_its_own(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ann", "bob", "cid"):
        stage.call(name, Wait(5), Speak(name))
    real = Call._forward_to_running

    def breaks_for_bob(call: Call, *more: Any) -> Any:
        return breaks() if call.channel_id == "bob" else real(call, *more)

    with monkeypatch.context() as patch:
        patch.setattr("ari_conf.core.calls.call.Call._forward_to_running", breaks_for_bob)
        with pytest.raises(StepFailed) as failure:
            stage.pass_time(5)
        stage.now += 5000
        give_up(stage, failure.value)
    stage.pass_time(1)
    assert sorted(e.media[0] for e in stage.all(do.PlayMedia)) == ["ann", "cid"]
    assert set(stage.engine.calls) == {"call-ann", "call-cid"} and "bob" not in stage.asterisk.channels


def test_the_command_of_a_failed_step_gets_a_reply(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    players(stage, "ann")
    command = ev.CommandReceived("c1", api.ForConference("A", "standup", api.Kick((1,))), stage.now + 5000)
    effects = break_at(stage, monkeypatch, "conferences.conference.Conference.leave", command)
    (reply,) = [e for e in effects if isinstance(e, do.CommandReply)]
    assert (reply.command_id, reply.status) == ("c1", 500) and "internal error" in dict(reply.body)["error"]


def test_a_call_that_could_not_even_arrive_is_hung_up(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.asterisk.call("ann")
    event = ev.CallArrived("ann", "call-ann", "request", "A", "1", "2")
    break_at(stage, monkeypatch, "calls.call.Call.from_arrival", event)
    stage.assert_nothing_is_left()


@pytest.mark.parametrize(
    "still",
    [
        "conferences.conference.Conference._exit",
        "conferences.conference.Conference._hand_over",
        "calls.call.Call.give_up",
        "dispatcher.Dispatcher._build_callback",
        "calls.call.Call.standard_params",
        "registry.Registry.update_indexes",
        "conferences.conference.Conference._hand_over_recording",
        "conferences.conference.Conference.leave",
    ],
)
def test_giving_up_never_breaks_and_leaves_nothing(stage: Stage, monkeypatch: pytest.MonkeyPatch, still: str) -> None:
    """Giving up works even if a function that it needs raises as well."""
    players(stage, "ann", "bob", record=True)
    stage.call("zoe", Wait(100_000))
    with monkeypatch.context() as patch:
        patch.setattr("ari_conf.core.conferences.conference.Conference._on_digit", breaks)
        patch.setattr(f"ari_conf.core.{still}", breaks)
        stage.asterisk.press("ann", "1")
        for _ in range(100):
            try:
                stage.go_on()
                stage.pass_time(60)
            except StepFailed as failure:
                stage._take(stage.engine.abort_failed_step(failure, stage.now))
    assert set(stage.asterisk.channels) == {"zoe"}
    assert not stage.asterisk.bridges and not stage.asterisk.recordings
    assert not {"call-ann", "call-bob"} & set(stage.engine.calls) and not stage.engine.conferences
    assert stage.all(do.ReleaseName)
    stage.hang_up("zoe")
    stage.assert_nothing_is_left()


# State that was read back.

Things = dict[str, Any]
Damage = Callable[[Things, Things], None]


def taken_over(stage: Stage, damage: Damage = lambda *_: None, parts: int = 1) -> list[do.Effect]:
    """Let another process take over; `damage` changes calls and conferences before it reads them."""
    calls: Things = {key: copied(call) for key, call in stage.engine.calls.items()}
    rooms: Things = {key: copied(room) for key, room in stage.engine.conferences.items()}
    damage(calls, rooms)
    # The process reads them from their snapshots.
    calls = {key: copied(call) for key, call in calls.items()}
    rooms = {key: copied(room) for key, room in rooms.items()}
    ids = iter(f"new{n}" for n in range(99))
    stage.engine = Engine(lambda: next(ids), "https://conference.example")
    restoration, some, more = Restoration(stage.engine), list(calls.values()), list(rooms.values())
    for n in range(parts):
        restoration.add(some[n::parts], more[parts - 1 - n :: parts], stage.engine.registry.next_member_id)
    effects = restoration.finish(stage.now)
    stage.carry_out(effects)
    return effects


def house(stage: Stage) -> None:
    """Build a conference that is recorded, another, one whose members wait, and calls that are in none."""
    players(stage, "ann", "bob", "cid", record=True)
    players(stage, "eve", "fay", name="other")
    stage.call("gus", waiting(name="third"))
    stage.call("hal", GetDigits((Play("digits"),), num_digits=4), Speak("next"))
    stage.call("ida", Play("song"), Wait(3600))
    stage.call("kim", Wait(3600))


EVERYBODY = {"ann", "bob", "cid", "eve", "fay", "gus", "hal", "ida", "kim"}


def room(rooms: Things, name: str = "standup") -> Conference:
    (found,) = [c for c in rooms.values() if c.name == name]
    assert isinstance(found, Conference)
    return found


def member(rooms: Things, who: str) -> Member:
    (found,) = [m for c in rooms.values() for m in c.members.values() if m.channel_id == who]
    assert isinstance(found, Member)
    return found


def both(*damages: Damage) -> Damage:
    def damage(calls: Things, rooms: Things) -> None:
        for each in damages:
            each(calls, rooms)

    return damage


def without_call(*who: str) -> Damage:
    def damage(calls: Things, _: Things) -> None:
        for name in who:
            del calls[f"call-{name}"]

    return damage


def call_with(who: str, **fields: Any) -> Damage:
    def damage(calls: Things, _: Things) -> None:
        for name, value in fields.items():
            setattr(calls[f"call-{who}"], name, value)

    return damage


def room_with(**fields: Any) -> Damage:
    def damage(_: Things, rooms: Things) -> None:
        found = room(rooms)
        for name, value in fields.items():
            setattr(found, name, value)

    return damage


def member_with(who: str, **fields: Any) -> Damage:
    def damage(_: Things, rooms: Things) -> None:
        found = member(rooms, who)
        for name, value in fields.items():
            setattr(found, name, value)

    return damage


def recording_with(**fields: Any) -> Damage:
    def damage(_: Things, rooms: Things) -> None:
        (recording,) = room(rooms).recordings.values()
        for name, value in fields.items():
            setattr(recording, name, value)

    return damage


def recorded_under_another_id(_: Things, rooms: Things) -> None:
    recordings = room(rooms).recordings
    recordings["x"] = recordings.popitem()[1]


def recorded_twice(_: Things, rooms: Things) -> None:
    recordings = room(rooms).recordings
    (recording,) = recordings.values()
    recordings["x"] = replace(recording, recording_id="x")


def player_with(who: str, **fields: Any) -> Damage:
    def damage(calls: Things, _: Things) -> None:
        running = calls[f"call-{who}"].running
        player = running.player if hasattr(running, "player") else running
        for name, value in fields.items():
            setattr(player, name, value)

    return damage


def not_listed(calls: Things, rooms: Things) -> None:
    del room(rooms).members[2]


def listed_under_another_id(calls: Things, rooms: Things) -> None:
    members = room(rooms).members
    members[77] = members.pop(2)


def listed_in_two_rooms(calls: Things, rooms: Things) -> None:
    found, other = member(rooms, "bob"), room(rooms, "other")
    twin = copied(found)
    twin.conference_id, twin.element, twin.member_id = other.conference_id, replace(found.element, name="other"), 9
    other.members[9] = twin


def no_room(calls: Things, rooms: Things) -> None:
    del rooms[room(rooms).conference_id]


def two_calls_one_channel(calls: Things, _: Things) -> None:
    calls["call-twin"] = replace_call(calls["call-kim"], call_uuid="twin", channel_id="ann")


def replace_call(call: Call, **fields: Any) -> Call:
    made = copied(call)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


FAR = 2**63
STANDUP = {"ann", "bob", "cid"}
DAMAGES: dict[str, tuple[Damage, set[str]]] = {
    "nothing": (lambda *_: None, set()),
    "a call is missing": (without_call("bob"), {"bob"}),
    "two are": (without_call("bob", "gus"), {"bob", "gus"}),
    "all of a room are": (without_call("ann", "bob", "cid"), STANDUP),
    "a room is missing": (no_room, STANDUP),
    "a call and its room are missing": (both(without_call("bob"), no_room), {"ann", "cid"}),
    "a room does not know a call": (not_listed, {"bob"}),
    "a member has another's id": (listed_under_another_id, STANDUP),
    "a member is in two rooms": (listed_in_two_rooms, set()),
    "a call is in no room": (call_with("bob", running=None, conference_id=None), {"bob"}),
    "a call plays, and is in a room": (lambda c, _: setattr(c["call-bob"], "running", c["call-kim"].running), {"bob"}),
    "a call is in another room": (call_with("bob", conference_id="id3"), {"bob"}),
    "a call is in a room that never was": (call_with("bob", conference_id="x"), {"bob"}),
    "a call in none has one": (call_with("kim", conference_id="id1"), {"kim"}),
    "a call has another channel": (call_with("bob", channel_id="x"), {"bob"}),
    "a call has another's channel": (call_with("bob", channel_id="kim"), {"bob"}),
    "a twin": (two_calls_one_channel, set()),
    "a call has no channel": (call_with("kim", channel_id=""), set()),
    "a call of another account": (call_with("bob", auth_id="B"), {"bob"}),
    "whose account is another": (call_with("bob", account=Account("B")), {"bob"}),
    "a call has ended": (call_with("kim", ended_at=5), {"kim"}),
    "a member's call has": (call_with("bob", ended_at=5), {"bob"}),
    "a call does nothing": (call_with("kim", running=None), {"kim"}),
    "a call waits for a document that nobody asked for": (
        call_with("kim", running=None, fetch_purpose="answer"), {"kim"}),
    "a call runs unknown": (call_with("kim", account=None), {"kim"}),
    "a call began when no calendar says": (call_with("kim", started_at=FAR), {"kim"}),
    "a call is nowhere in its document": (call_with("kim", position=99), {"kim"}),
    "a sound is nowhere": (player_with("ida", position=9), {"ida"}),
    "a sound before its first": (player_with("ida", position=-1), {"ida"}),
    "a sound is over": (player_with("ida", state=PlayerState.DONE), {"ida"}),
    "a sound has not begun": (player_with("ida", state=PlayerState.NEW), {"ida"}),
    "a sound waits": (player_with("ida", state=PlayerState.WAITING), {"ida"}),
    "a sound of nothing": (player_with("ida", media=""), {"ida"}),
    "a wait is played": (player_with("kim", state=PlayerState.PLAYING), {"kim"}),
    "a wait without an end": (player_with("kim", until=None), {"kim"}),
    "another's sound": (player_with("ida", owner="c.call-kim.2"), {"ida"}),
    "a sound for another": (player_with("ida", target=do.Target("channel", "kim")), {"ida"}),
    "digits without a prompt": (lambda c, _: setattr(c["call-hal"].running, "player", None), {"hal"}),
    "digits that are complete": (lambda c, _: setattr(c["call-hal"].running, "state", GatherState.COMPLETE), {"hal"}),
    "no bridge": (room_with(bridge=BridgeState.NONE), STANDUP),
    "a bridge that is gone": (room_with(bridge=BridgeState.DESTROYED), STANDUP),
    "a name that is asked for": (room_with(claim=ClaimState.REQUESTED), STANDUP),
    "a name that is released": (room_with(claim=ClaimState.RELEASED), STANDUP),
    "an end with members": (room_with(ending=True), STANDUP),
    "an end": (
        room_with(ending=True, claim=ClaimState.RELEASED, bridge=BridgeState.DESTROYING), STANDUP),
    "not begun": (room_with(started=False), STANDUP),
    "another account's": (room_with(auth_id="B"), STANDUP),
    "another name": (room_with(name="other"), STANDUP),
    "a room that began when no calendar says": (room_with(created_at=FAR), STANDUP),
    "nobody in it": (room_with(members={}), STANDUP),
    "a recording of another room": (recording_with(bridge_id="b.id3.bridge"), STANDUP),
    "a recording that ended": (recording_with(state=RecordingState.STOPPED), STANDUP),
    "a recording that was handed over": (recording_with(handed_over=True), STANDUP),
    "a recording without an id": (recording_with(recording_id=""), STANDUP),
    "a recording under another id": (recorded_under_another_id, STANDUP),
    "two recordings at a time": (recorded_twice, STANDUP),
    "a recording that stops forever": (recording_with(state=RecordingState.STOPPING), STANDUP),
    "a recording that began when no calendar says": (recording_with(started_at=FAR), STANDUP),
    "a recording that ended when no calendar says": (
        recording_with(state=RecordingState.STOPPING, ended_at=FAR, deadline=FAR), STANDUP),
    "a member who arrives": (member_with("bob", state=MemberState.AWAITING_NAME), STANDUP),
    "a member who waits": (member_with("bob", state=MemberState.WAITING), STANDUP),
    "a member who joins": (member_with("bob", state=MemberState.AWAITING_BRIDGE), STANDUP),
    "a member who has left": (member_with("bob", state=MemberState.LEFT), STANDUP),
    "a member who never leaves": (member_with("bob", state=MemberState.LEAVING), STANDUP),
    "a member of another room": (member_with("bob", conference_id="id3"), STANDUP),
    "a member of another account": (member_with("bob", auth_id="B"), STANDUP),
    "another's member": (member_with("bob", call_uuid="call-kim"), {"bob"}),
    "a member whose call is another member's": (member_with("bob", call_uuid="call-ann"), STANDUP),
    "a member whose channel is another member's": (member_with("bob", channel_id="ann"), STANDUP),
    "a member whose channel is another's": (member_with("bob", channel_id="kim"), {"bob"}),
    "a member whose channel never was": (member_with("bob", channel_id="x"), {"bob"}),
    "a member who joined when no calendar says": (member_with("bob", joined_at=FAR), STANDUP),
    "a member whose sounds are mixed up": (
        lambda _, r: setattr(member(r, "bob"), "exit_sound", member(r, "bob").wait_sound), STANDUP),
}  # fmt: skip


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("what", DAMAGES)
def test_inconsistent_record_costs_its_own_call_or_conference_alone(stage: Stage, what: str, parts: int) -> None:
    damage, costs = DAMAGES[what]
    house(stage)
    before = {who: stage.hears(who) for who in EVERYBODY}
    effects = taken_over(stage, damage, parts)
    assert bool(effects) == (what != "nothing")
    gone = EVERYBODY - set(stage.asterisk.channels)
    assert gone == costs, "these calls are hung up, and no others"
    assert {call.channel_id for call in stage.engine.calls.values()} <= EVERYBODY - costs
    for who in EVERYBODY - costs:
        assert stage.hears(who) - STANDUP == before[who] - STANDUP
    if costs == STANDUP:
        assert not [c for c in stage.engine.conferences.values() if c.name == "standup"]
        assert BRIDGE not in stage.asterisk.bridges and not stage.asterisk.recordings
        assert all(plausible(e.start_ms, e.end_ms) for e in stage.all(do.StoreRecording)), "a worker can write them"
        assert do.ReleaseName("A", "standup", "id1") in effects or what in ("another account's", "another name")
        players(stage, "new")
        assert stage.callback_texts()[-1] == "enter new", "the name is free"
        stage.hang_up("new")
    _is_whole(stage)
    _all_is_told(stage)


def _is_whole(stage: Stage) -> None:
    engine = stage.engine
    for call in engine.calls.values():
        assert list(invariants.call_violations(call)) == []
        assert (engine.registry.member_of(call) is not None) == call.in_conference
        assert engine.registry.call_by_channel[call.channel_id] == call.call_uuid
    for conference in engine.conferences.values():
        assert list(invariants.conference_violations(conference)) == []
        assert all(engine.registry.member_of(engine.calls[m.call_uuid]) is m for m in conference.members.values())
    assert len(engine.registry.call_by_channel) == len(engine.calls)


def _all_is_told(stage: Stage) -> None:
    """Send late events: nothing breaks, and nothing is left when all callers have hung up."""
    for who in sorted(EVERYBODY):
        for event in (ev.ChannelLeftBridge(who, BRIDGE), ev.DigitReceived(who, "1"), ev.TalkingStarted(who)):
            stage.tell(event)
    for where in (*stage.asterisk.channels, *stage.asterisk.bridges):
        if (stage.asterisk.channels.get(where) or stage.asterisk.bridges[where]).playbacks:
            stage.finish(where)
    stage.pass_time(30)
    for who in sorted(EVERYBODY):
        if who in stage.asterisk.channels:
            stage.hang_up(who)
        stage.tell(ev.ChannelHungUp(who, 16))
    stage.pass_time(600)
    assert not stage.engine.calls and not stage.engine.conferences and stage.engine.deadline is None


def test_consistent_state_is_left_unchanged(stage: Stage) -> None:
    house(stage)
    calls, rooms = dict(stage.engine.calls), dict(stage.engine.conferences)
    assert taken_over(stage) == []
    assert (stage.engine.calls, stage.engine.conferences) == (calls, rooms)
    assert stage.engine.take_changes() == {}


def test_a_conference_with_an_unreadable_member_continues_without_them(stage: Stage) -> None:
    house(stage)
    effects = taken_over(stage, without_call("bob"))
    assert stage.callback_texts()[-1] == "exit bob hangup" and stage.hears("ann") == {"cid"}
    assert do.HangUp("bob") in effects
    (problem,) = [e for e in effects if isinstance(e, do.ReportProblem)]
    assert (problem.auth_id, problem.call_uuid) == ("A", "call-bob") and "is not valid" in problem.text
    assert "bob" not in ended(stage), "nothing is known of that call"
    assert [int(c["ConferenceSequence"]) for c in stage.callbacks(ConferenceName="standup")] == [1, 2, 3, 4]


def test_a_room_that_does_not_fit_is_given_up_completely(stage: Stage) -> None:
    house(stage)
    taken_over(stage, room_with(bridge=BridgeState.NONE))
    assert [t for t in stage.callback_texts() if t.startswith("exit")] == [
        f"exit {who} conference_ended" for who in sorted(STANDUP)
    ]
    assert ended(stage) == STANDUP
    (stored,) = stage.all(do.StoreRecording)
    assert stored.conference_id == "id1" and stored.callback is not None
    assert {note.call_uuid for note in stage.all(do.AddAttendanceNote)} == {f"call-{who}" for who in STANDUP}
    reported = [int(c["ConferenceSequence"]) for c in stage.callbacks(ConferenceName="standup")]
    assert [*reported, int(dict(stored.callback.params)["ConferenceSequence"])] == list(range(1, 8))


def test_the_calls_of_an_unreadable_conference_end_with_callbacks_and_its_name_is_free(stage: Stage) -> None:
    house(stage)
    effects = taken_over(stage, no_room)
    assert {e.channel_id for e in effects if isinstance(e, do.HangUp)} == STANDUP == ended(stage)
    assert do.ReleaseName("A", "standup", "id1") in effects and do.DestroyBridge(BRIDGE) in effects
    assert len([e for e in effects if isinstance(e, do.DestroyBridge)]) == 1


def test_abort_is_written(stage: Stage) -> None:
    """If the process dies in the meantime, the next one takes over what it has ended and continues."""
    house(stage)
    stage.held = {do.HangUp, do.DestroyBridge}
    taken_over(stage, both(without_call("eve"), no_room))
    touched = stage.engine.take_changes()
    assert set(touched) >= {"call-eve", "call-ann", "id1"} and touched["call-eve"] is not None
    stage.held = {do.HangUp, do.DestroyBridge}
    assert taken_over(stage) == [], "it fits"
    stage.held, stage.waiting = set(), []
    stage.pass_time(5)
    assert EVERYBODY - set(stage.asterisk.channels) == STANDUP | {"eve"}


def test_a_member_of_two_conferences_leaves_the_one_unknown_to_the_call(stage: Stage) -> None:
    house(stage)
    taken_over(stage, listed_in_two_rooms)
    assert stage.hears("bob") == {"ann", "cid"} and stage.hears("eve") == {"fay"}
    assert set(room(stage.engine.conferences, "other").members) == {4, 5}


@pytest.mark.parametrize("newer_first", [True, False])
def test_of_two_rooms_of_one_name_the_newer_has_it(stage: Stage, newer_first: bool) -> None:
    """An older copy of the state contains a conference that ended long ago."""
    players(stage, "ann", "bob")
    old = stage.conference_id()
    copies: list[Any] = [copied(c) for c in
              (*stage.engine.calls.values(), *stage.engine.conferences.values())]  # fmt: skip
    stage.hang_up("ann", "bob")
    players(stage, "cid", "dan")
    new = stage.conference_id()

    def older_copy(calls: Things, rooms: Things) -> None:
        calls.update({c.call_uuid: c for c in copies if isinstance(c, Call)})
        rooms[old] = copies[-1]
        if not newer_first:
            rooms[new] = rooms.pop(new)

    effects = taken_over(stage, older_copy)
    assert "two conferences are named 'standup'" in str(effects)
    assert stage.engine.registry.conference_by_name == {("A", "standup"): new}
    stage.call("eve", stay())
    assert stage.hears("eve") == {"cid", "dan"}
    for who in ("ann", "bob"):
        stage.tell(ev.ChannelHungUp(who, 0))
    assert stage.engine.registry.conference_by_name == {("A", "standup"): new}
    stage.call("fay", stay())
    assert stage.hears("fay") == {"cid", "dan", "eve"}


def test_a_name_goes_to_the_other_if_the_one_that_had_it_is_given_up(stage: Stage) -> None:
    players(stage, "ann")
    players(stage, "bob", name="other")

    def of_one_name(_: Things, rooms: Things) -> None:
        one, other = room(rooms), room(rooms, "other")
        other.name, other.bridge = one.name, BridgeState.NONE
        for each in other.members.values():
            each.element = replace(each.element, name=one.name)

    taken_over(stage, of_one_name)
    stage.call("cid", stay())
    assert stage.hears("cid") == {"ann"}


def test_a_wait_sound_request_whose_call_is_lost(stage: Stage) -> None:
    stage.held = {do.FetchSoundDocument}
    stage.call("ann", waiting(wait_sound=MUSIC))
    players(stage, "bob", name="other")
    taken_over(stage, without_call("ann"))
    assert set(stage.engine.calls) == {"call-bob"} and set(stage.asterisk.channels) == {"bob"}

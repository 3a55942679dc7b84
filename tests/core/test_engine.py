"""Engine: late events have no effect; deadlines; the calls and conferences that a step changed."""

from __future__ import annotations

import pytest

from ari_conf.core import commands as api
from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core.calls.call import Call
from ari_conf.core.conferences.member import Member
from ari_conf.core.elements import Play, Wait
from ari_conf.core.engine import Engine
from ari_conf.core.problem_kinds import ProblemKind
from ari_conf.core.quality import LineFigures, LineMeasurement
from ari_conf.core.restoration import Restoration
from ari_conf.core.step_failed import StepFailed
from tests.core.stage import MUSIC, START, Stage, players, stay

LATE: list[ev.Event] = [
    ev.CallIdentified("call-x", None),
    ev.ChannelHungUp("x"),
    ev.ChannelEnteredBridge("x", "b.id9.bridge"),
    ev.ChannelLeftBridge("x", "b.id9.bridge"),
    ev.BridgeCreated("b.id9.bridge"),
    ev.BridgeDestroyed("b.id9.bridge"),
    ev.DigitReceived("x", "1"),
    ev.TalkingStarted("x"),
    ev.TalkingFinished("x"),
    ev.BeepHeard("x"),
    ev.ListeningStarted("x"),
    ev.ListeningFailed("x", "no"),
    ev.PhraseStarted("x", 100),
    ev.PhraseEnded("x", 100),
    ev.ToneHeard("x"),
    ev.LineMeasured("x", LineMeasurement(10.0, LineFigures(2.0), LineFigures(2.0))),
    ev.SoundPrepared("c.call-x.1.1", "a"),
    ev.SoundPrepared("m.id9.7.wait.1.1", "a"),
    ev.SoundFailed("b.id9.1.1", Play("a"), ProblemKind.SOUND_UNPLAYABLE, "no"),
    ev.PlaybackFinished("somebody else's"),
    ev.RecordingStarted("id9", "r"),
    ev.RecordingFinished("id9", "r"),
    ev.DocumentFetched("c.call-x.1", ()),
    ev.DocumentFailed("c.call-x.1", ProblemKind.DOCUMENT_UNREACHABLE, "no"),
    ev.SoundDocumentFetched("m.id9.7.waitSound.1", ()),
    ev.SoundDocumentFailed("m.id9.7.waitSound.1", ProblemKind.SOUND_DOCUMENT_FAILED, "no"),
    ev.NameClaimed("id9"),
    ev.NameTaken("id9", "another"),
    ev.EffectFailed(do.AddChannel("x", "b.id9.bridge"), "no"),
    ev.EffectFailed(do.StopMusic("x"), "no", target_gone=True),
    ev.EffectFailed(do.ReleaseName("A", "standup", "id9"), "no"),
    ev.DeadlineReached(),
]


@pytest.mark.parametrize("event", LATE, ids=repr)
@pytest.mark.parametrize("busy", [True, False])
def test_news_about_what_is_gone_or_never_was_yields_nothing(stage: Stage, event: ev.Event, busy: bool) -> None:
    if busy:
        stage.sounds[MUSIC] = (Play("jazz"),)
        players(stage, "ann", wait_sound=MUSIC, record=True)
    assert stage.tell(event) == []


def test_events_repeated_after_the_end_have_no_effect(stage: Stage) -> None:
    stage.sounds[MUSIC] = (Play("jazz"),)
    players(stage, "ann", "bob", wait_sound=MUSIC, enter_sound=MUSIC, exit_sound="beep:1", record=True)
    stage.hang_up("ann", "bob")
    happened = [event for event in stage.events if not isinstance(event, ev.CallArrived)]
    assert len(happened) > 20
    assert stage.tell(*happened) == []
    stage.assert_nothing_is_left()


def test_a_call_that_arrives_twice_is_one(stage: Stage) -> None:
    stage.call("ann", Wait(9))
    again = ev.CallArrived("ann", "call-again", "request-again", "A", "1", "2")
    assert stage.tell(again) == []
    assert list(stage.engine.calls) == ["call-ann"]


def test_the_deadline_is_the_next_of_all(stage: Stage) -> None:
    assert stage.engine.deadline is None
    stage.call("ann", Wait(9))
    stage.call("bob", Wait(5))
    assert stage.engine.deadline == START + 5000
    stage.hang_up("bob")
    assert stage.engine.deadline == START + 9000
    stage.hang_up("ann")
    assert stage.engine.deadline is None


def test_before_its_deadline_time_changes_nothing(stage: Stage) -> None:
    stage.call("ann", Wait(9))
    stage.now += 8999
    assert stage.tell(ev.DeadlineReached()) == []
    stage.now += 1
    assert stage.tell(ev.DeadlineReached()) != []


def test_deadlines_that_are_put_off_again_and_again_do_not_pile_up(stage: Stage) -> None:
    players(stage, "ann", digits_match=("1" * 99,))
    for _ in range(60):
        for _ in range(98):
            stage.press("ann", "1")
            stage.now += 1
        stage.pass_time(2)
    assert len(stage.engine.registry.deadlines._heap) < 200


def test_touched_says_what_is_to_be_written(stage: Stage) -> None:
    players(stage, "ann")
    conference_id = stage.conference_id()
    assert set(stage.engine.take_changes()) == {"call-ann", conference_id}
    assert stage.engine.take_changes() == {}
    stage.press("ann", "1")
    assert set(stage.engine.take_changes()) == {conference_id}
    stage.call("bob", Wait(9))
    assert set(stage.engine.take_changes()) == {"call-bob"}
    stage.hang_up("ann")
    assert stage.engine.take_changes() == {"call-ann": None, conference_id: None}


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (api.Kick((9,)), 404),
        (api.Record("r2"), 409),
        (api.Announce(Play("one more")), 409),
        (api.PlayToMembers((1,), Play("one more")), 409),
    ],
)
def test_a_command_that_is_refused_changes_nothing_that_is_to_be_written(
    stage: Stage, command: api.ConferenceCommand, status: int
) -> None:
    """Nothing changes, however often the command is given."""
    players(stage, "ann")

    def give(what: api.ConferenceCommand) -> do.Effect:
        return stage.tell(ev.CommandReceived("c", api.ForConference("A", "standup", what), stage.now + 5000))[-1]

    give(api.Record("r1"))
    for _ in range(100):
        give(api.Announce(Play("all")))
        give(api.PlayToMembers((1,), Play("her alone")))
    stage.engine.take_changes()
    refused = give(command)
    assert isinstance(refused, do.CommandReply) and refused.status == status
    assert stage.engine.take_changes() == {}


def test_changed_says_of_which_members(stage: Stage) -> None:
    players(stage, "ann", "bob", "cid")
    (conference,) = stage.engine.conferences.values()
    ann, bob, cid = conference.members.values()
    assert set(conference.take_changed_members()) == {ann.member_id, bob.member_id, cid.member_id}
    assert conference.take_changed_members() == {}
    stage.press("bob", "1")
    assert conference.take_changed_members() == {bob.member_id: bob}
    stage.hang_up("bob")
    assert conference.take_changed_members() == {bob.member_id: None}
    stage.talk("ann")
    assert conference.take_changed_members() == {ann.member_id: ann}


def test_changed_are_all_who_are_listened_to_from_now_on(stage: Stage) -> None:
    players(stage, "ann", "bob")
    (conference,) = stage.engine.conferences.values()
    cid = Member.create(9, conference.conference_id, "A", "call-cid", "cid", stay(record=True), "r")
    conference.join(cid, stage.now)
    conference.take_changed_members()
    conference.handle_event(ev.ChannelEnteredBridge("cid", conference.bridge_id), stage.now)
    assert len(conference.take_changed_members()) == 3


def test_one_call_s_trouble_is_not_anothers(stage: Stage) -> None:
    """ "Other calls never notice." """
    players(stage, "ann", "bob")
    stage.call("cid", Play("broken"))
    assert stage.hears("ann") == {"bob"}
    assert {e.call_uuid for e in stage.all(do.ReportProblem)} == {"call-cid"}


def test_late_second_document_while_the_caller_waits_in_a_conference(stage: Stage) -> None:
    stage.call("ann", stay(), Wait(9))
    assert stage.tell(ev.DocumentFetched("c.call-ann.1", (Wait(1),))) == []


# Calls of an account at once.


def refused(stage: Stage) -> list[str]:
    return [effect.channel_id for effect in stage.all(do.HangUp) if effect.reason == "busy"]


def test_an_account_may_have_so_many_calls_and_no_more(stage: Stage) -> None:
    stage.engine.calls_per_account = 2
    for name in ("ann", "bob", "cid"):
        stage.call(name, Wait(60))
    assert refused(stage) == ["cid"]
    assert sorted(stage.engine.calls) == ["call-ann", "call-bob"]
    (problem,) = stage.all(do.ReportProblem)
    assert (problem.auth_id, problem.call_uuid) == ("A", "call-cid")
    assert "the account has 2 calls" in problem.text and "ARI_CONF_CALLS_PER_ACCOUNT" in problem.text


def test_another_account_has_its_own(stage: Stage) -> None:
    stage.engine.calls_per_account = 1
    stage.call("ann", Wait(60))
    stage.call("bob", Wait(60), auth="B")
    assert refused(stage) == []


def test_hangup_makes_room(stage: Stage) -> None:
    stage.engine.calls_per_account = 1
    stage.call("ann", Wait(60))
    stage.hang_up("ann")
    stage.call("bob", Wait(60))
    assert refused(stage) == [] and list(stage.engine.calls) == ["call-bob"]


def test_any_number_where_there_is_no_limit(stage: Stage) -> None:
    for number in range(50):
        stage.call(f"c{number}", Wait(60))
    assert refused(stage) == [] and len(stage.engine.calls) == 50


def test_the_same_channel_again_is_no_second_call(stage: Stage) -> None:
    stage.engine.calls_per_account = 1
    stage.call("ann", Wait(60))
    assert stage.tell(ev.CallArrived("ann", "again", "r", "A", "+1", "+2")) == []


def test_rejected_calls_are_reported_once_a_minute(stage: Stage) -> None:
    stage.engine.calls_per_account = 1
    stage.call("ann", Wait(3600))
    for number in range(100):
        stage.ring(f"c{number}")
    assert len(stage.all(do.ReportProblem)) == 1 and len(refused(stage)) == 100
    stage.now += 60_000
    stage.ring("late")
    assert len(stage.all(do.ReportProblem)) == 2
    stage.now -= 3_600_000  # the clock was set back
    stage.ring("early")
    assert len(stage.all(do.ReportProblem)) == 3


def test_nothing_is_kept_of_accounts_that_were_refused_once(stage: Stage) -> None:
    stage.engine.calls_per_account = 1
    for number in range(100):
        stage.now += 10_000
        stage.call(f"c{number}", Wait(3600), auth=f"A{number}")
        stage.ring(f"d{number}", f"A{number}")
    assert len(stage.engine._refused_at) <= 7


def test_calls_of_a_process_before_count(stage: Stage) -> None:
    stage.call("ann", Wait(3600))
    calls = list(stage.engine.calls.values())
    engine = Engine(lambda: "id", calls_per_account=1)
    Restoration(engine).add(calls, [], 1)
    effects = engine.handle_event(ev.CallArrived("bob", "call-bob", "r", "A", "+1", "+2"), stage.now)
    assert do.HangUp("bob", "busy") in effects


def test_a_call_that_is_given_up_counts_no_more(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.engine.calls_per_account = 1
    stage.call("ann", Wait(3600))
    with monkeypatch.context() as patch, pytest.raises(StepFailed) as failure:
        patch.setattr(Call, "handle_event", lambda *_: 1 / 0)
        stage.engine.handle_event(ev.DigitReceived("ann", "1"), stage.now)
    stage.engine.abort_failed_step(failure.value, stage.now)
    # Until the channel is known to be gone, the call counts like any other.
    assert stage.engine.calls.of_account("A") == 1
    stage.engine.handle_event(ev.ChannelHungUp("ann", 16), stage.now)
    assert stage.engine.calls.of_account("A") == 0


def test_a_call_that_a_phone_transfers_ends_and_so_does_what_took_its_place() -> None:
    stage = Stage(hangup_url="http://hangup.example/")
    players(stage, "ann", "bob")
    # Asterisk keeps the old channel until its phone has confirmed.
    stage.held.add(do.HangUp)
    stage.tell(ev.ChannelReplaced("ann", by="new"))
    assert do.HangUp("new") in stage.effects and do.HangUp("ann") in stage.effects
    assert stage.hangup_request("ann")["HangupCause"] == "NORMAL_CLEARING"
    (conference,) = stage.engine.conferences.values()
    assert [member.channel_id for member in conference.members.values()] == ["bob"]
    (problem,) = [effect for effect in stage.effects if isinstance(effect, do.ReportProblem)]
    assert "transferred by a phone" in problem.text


def test_nor_is_anything_left_that_took_the_place_of_no_call(stage: Stage) -> None:
    assert stage.tell(ev.ChannelReplaced("stranger", by="new")) == [do.HangUp("new")]

"""Placed calls that find out who has answered: what runs, what the URLs are told, and the end of the call."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
import pytest

from ari_conf.core import commands as api
from ari_conf.core import effects as do
from ari_conf.core import elements as el
from ari_conf.core import events as ev
from ari_conf.core.account import Account
from ari_conf.core.calls.call import Call
from ari_conf.core.calls.call_state import CallState
from ari_conf.core.engine import Engine
from ari_conf.core.expectations import AsteriskState
from ari_conf.core.placing import CallOptions, CallToPlace, DialAttempt, MachineDetectionSettings
from ari_conf.core.problem_kinds import ProblemKind
from ari_conf.core.restoration import Restoration

T0 = 1_700_000_000_000
E = TypeVar("E")
ANSWER, HANGUP, TOLD = "http://app.example/answer", "http://app.example/hangup", "http://app.example/machine"


class Placed:
    """A call that was placed and is answered at T0. Times are ms since then."""

    def __init__(self, conference: el.Conference | None = None, **settings: Any) -> None:
        self.effects: list[do.Effect] = []
        self.engine = Engine(lambda: "id")
        self.now = 0
        detection = MachineDetectionSettings(**settings)
        options = CallOptions(ANSWER, hangup_url=HANGUP, conference=conference, machine_detection=detection)
        to_place = CallToPlace("u1", "15550001", "15550002", "", (DialAttempt("t", "PJSIP/1@t"),))
        command = api.ForAccount("A", api.PlaceCalls(Account("A"), options, (to_place,)))
        self.tell(ev.CommandReceived("c1", command, T0 + 10_000))
        self.channel_id = self.call.channel_id
        self.tell(ev.ChannelCreated(self.channel_id), ev.ChannelRinging(self.channel_id))
        self.tell(ev.ChannelAnswered(self.channel_id))

    @property
    def call(self) -> Call:
        return self.engine.calls["u1"]

    def tell(self, *events: ev.Event, at: int | None = None) -> None:
        self.now = self.now if at is None else at
        for event in events:
            self.effects += self.engine.handle_event(event, T0 + self.now)

    def until(self, ms: int) -> None:
        while (at := self.engine.deadline) is not None and at <= T0 + ms:
            self.tell(ev.DeadlineReached(), at=at - T0)
        self.now = ms

    def hears(self, *events: ev.ListeningEvent, at: int) -> None:
        self.until(at)
        self.tell(*events)

    def hears_a_person(self) -> None:
        self.hears(ev.ListeningStarted(self.channel_id), at=20)
        self.hears(ev.PhraseStarted(self.channel_id, 100), at=500)
        self.hears(ev.PhraseEnded(self.channel_id, 160), at=960)
        self.until(1900)

    def hears_a_machine(self) -> None:
        self.hears(ev.ListeningStarted(self.channel_id), at=20)
        self.hears(ev.ToneHeard(self.channel_id), at=1500)

    def all(self, kind: type[E]) -> list[E]:
        return [effect for effect in self.effects if isinstance(effect, kind)]

    def told(self, url: str) -> list[dict[str, str]]:
        """Return the parameters of the requests to that URL, documents and callbacks."""
        found = [(e.source, e.params) for e in self.all(do.FetchDocument)]
        found += [(e.url, e.params) for e in self.all(do.PostCallback)]
        for _, params in found:
            assert len(dict(params)) == len(params), "a parameter is there twice"
        return [dict(params) for to, params in found if to == url]

    def taken_over(self) -> None:
        """Let another process take over, with the state that this one has persisted."""
        call = msgspec.json.decode(msgspec.json.encode(self.call), type=Call)
        self.engine = Engine(lambda: "id")
        restoration = Restoration(self.engine)
        restoration.add([call], [], 1)
        self.effects += restoration.finish(T0 + self.now)
        self.effects += self.call.resume(AsteriskState({self.channel_id: True}, {}))  # type: ignore[arg-type]


def test_no_document_runs_while_it_listens() -> None:
    placed = Placed()
    assert placed.call.state is CallState.DETECTING
    assert placed.all(do.ListenForMachine) == [do.ListenForMachine(placed.channel_id, True, "u1")]
    placed.hears(ev.ListeningStarted(placed.channel_id), at=20)
    assert placed.told(ANSWER) == []


def test_then_it_runs_and_a_person_is_not_mentioned() -> None:
    placed = Placed()
    placed.hears_a_person()
    assert placed.call.state is CallState.FETCHING
    (asked,) = placed.told(ANSWER)
    assert "Machine" not in asked and asked["Event"] == "StartApp" and asked["CallStatus"] == "in-progress"
    assert placed.all(do.ListenForMachine)[-1] == do.ListenForMachine(placed.channel_id, False, "u1")


def test_a_machine_is_in_the_answer_request_and_in_all_later_ones() -> None:
    placed = Placed()
    placed.hears_a_machine()
    assert [asked["Machine"] for asked in placed.told(ANSWER)] == ["true"]
    placed.tell(ev.ChannelHungUp(placed.channel_id))
    assert [ended["Machine"] for ended in placed.told(HANGUP)] == ["true"]


def test_a_machine_is_hung_up_on_without_a_document() -> None:
    placed = Placed(if_machine="hangup")
    placed.hears_a_machine()
    assert placed.call.state is CallState.HANGING_UP and placed.all(do.HangUp) != []
    placed.tell(ev.ChannelHungUp(placed.channel_id))
    (ended,) = placed.told(HANGUP)
    names = "Machine", "HangupCauseCode", "HangupCauseName", "HangupSource", "CallStatus"
    assert [ended[name] for name in names] == ["true", "9100", "Machine Detected", "Plivo", "completed"]
    assert placed.told(ANSWER) == []


def test_a_person_is_not_hung_up_on() -> None:
    placed = Placed(if_machine="hangup")
    placed.hears_a_person()
    assert len(placed.told(ANSWER)) == 1 and placed.all(do.HangUp) == []


@pytest.mark.parametrize("machine", [True, False])
@pytest.mark.parametrize("if_machine", ["continue", "hangup"])
def test_with_a_url_the_document_runs_at_once_and_the_verdict_is_told_later(machine: bool, if_machine: str) -> None:
    placed = Placed(url=TOLD, method="GET", if_machine=if_machine)
    (asked,) = placed.told(ANSWER)
    assert placed.call.state is CallState.FETCHING and "Machine" not in asked
    if machine:
        placed.hears_a_machine()
    else:
        placed.hears_a_person()
    (told,) = placed.told(TOLD)
    assert [e.method for e in placed.all(do.PostCallback) if e.url == TOLD] == ["GET"]
    expected = {"Event": "MachineDetection", "Machine": str(machine).lower(), "IfMachine": if_machine}
    expected |= {"CallStatus": "in-progress", "Direction": "outbound", "From": "15550002", "To": "15550001"}
    expected |= dict.fromkeys(("CallUUID", "RequestUUID", "ALegUUID", "ALegRequestUUID"), "u1")
    assert {name: told.get(name) for name in expected} == expected
    assert len(placed.told(ANSWER)) == 1
    assert (placed.all(do.HangUp) != []) == (machine and if_machine == "hangup")


def test_the_verdict_finds_a_call_that_is_in_a_conference_meanwhile() -> None:
    placed = Placed(url=TOLD, if_machine="hangup", conference=el.Conference("standup"))
    assert placed.call.state is CallState.IN_CONFERENCE
    placed.hears_a_machine()
    assert len(placed.told(TOLD)) == 1 and placed.call.state is CallState.HANGING_UP


def test_a_conference_in_place_of_a_document_waits_too() -> None:
    placed = Placed(conference=el.Conference("standup"))
    assert placed.call.state is CallState.DETECTING
    placed.hears_a_person()
    assert placed.call.state is CallState.IN_CONFERENCE


def test_the_end_of_the_call_before_the_verdict() -> None:
    placed = Placed(url=TOLD)
    placed.hears(ev.ListeningStarted(placed.channel_id), at=20)
    placed.tell(ev.ChannelHungUp(placed.channel_id))
    placed.until(20_000)
    assert placed.told(TOLD) == [] and "Machine" not in placed.told(HANGUP)[0]
    assert placed.engine.calls == {}


def test_what_cannot_be_heard_is_a_person_s_and_a_problem() -> None:
    placed = Placed(if_machine="hangup")
    placed.hears(ev.ListeningFailed(placed.channel_id, "no chan_rtp"), at=40)
    assert len(placed.told(ANSWER)) == 1
    (problem,) = placed.all(do.ReportProblem)
    assert problem.kind is ProblemKind.MACHINE_DETECTION_FAILED and "no chan_rtp" in problem.text


def test_the_time_from_the_answer_is_the_longest_that_anyone_waits() -> None:
    placed = Placed(time_ms=2000)
    placed.until(2000)
    assert len(placed.told(ANSWER)) == 1


def test_the_request_s_hangup_while_it_listens() -> None:
    placed = Placed()
    placed.tell(ev.CommandReceived("c2", api.ForCall("A", "u1", api.HangUpCall()), T0 + 60_000))
    assert placed.call.state is CallState.HANGING_UP
    placed.until(30_000)
    assert placed.told(ANSWER) == []


class TestTakeover:
    def test_it_is_listened_to_again_and_goes_on(self) -> None:
        placed = Placed()
        placed.hears(ev.ListeningStarted(placed.channel_id), at=20)
        placed.taken_over()
        assert placed.all(do.ListenForMachine) == [do.ListenForMachine(placed.channel_id, True, "u1")] * 2
        assert placed.call.state is CallState.DETECTING and placed.told(ANSWER) == []
        placed.hears_a_machine()
        assert [asked["Machine"] for asked in placed.told(ANSWER)] == ["true"]

    def test_the_verdict_is_told_once(self) -> None:
        placed = Placed(url=TOLD)
        placed.hears_a_machine()
        placed.taken_over()
        placed.until(20_000)
        assert len(placed.told(TOLD)) == 1 and placed.all(do.ListenForMachine)[-1].on is False

    def test_silence_that_nobody_heard_is_nobody_s(self) -> None:
        placed = Placed(if_machine="hangup")
        placed.hears(ev.ListeningStarted(placed.channel_id), at=20)
        placed.now = 9000
        placed.taken_over()
        placed.until(9000)
        assert len(placed.told(ANSWER)) == 1 and placed.all(do.HangUp) == []

    def test_a_state_without_the_field_is_read(self) -> None:
        placed = Placed()
        record = msgspec.json.decode(msgspec.json.encode(placed.call))
        del record["outgoing"]["machine"]
        assert msgspec.convert(record, Call).outgoing.machine is None  # type: ignore[union-attr]

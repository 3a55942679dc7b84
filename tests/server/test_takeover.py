"""Tests of large state, and of state that is damaged or of another version: only its own call or conference is lost."""

from __future__ import annotations

import asyncio
import gc
import json
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from ari_conf.core import effects as do
from ari_conf.core.calls.call import Call
from ari_conf.core.elements import Wait
from ari_conf.core.engine import Engine
from ari_conf.core.events import CallArrived, ChannelHungUp, DigitReceived, Event, PlaybackFinished
from ari_conf.core.expectations import Expectation
from ari_conf.core.restoration import Restoration
from ari_conf.errors import AriError, AriNotFound, AriUnreachable
from ari_conf.server import takeover
from ari_conf.server.takeover import NEXT_MEMBER_ID, load
from ari_conf.store import state_store
from ari_conf.store.state_codec import encode
from ari_conf.store.state_store import StateStore, Step
from tests.core.stage import Stage, players
from tests.redis import RedisServer

MANY = 3000


def calls() -> dict[str, bytes]:
    arrived = [CallArrived(f"channel{n}", f"u{n}", "request", "MA1", "+4930", "100") for n in range(MANY)]
    return {event.call_uuid: encode(Call.from_arrival(event, 1)[0]) for event in arrived}


async def at_once(state: dict[str, bytes]) -> AsyncIterator[dict[str, bytes]]:
    yield state


async def test_state_larger_than_one_answer_is_loaded(redis_server: RedisServer):
    client = state_store.connect(redis_server.url)
    kept, state = StateStore(client, "one"), calls()
    await kept.write([Step(1, dict(state))])
    assert await kept.load() == state
    await client.aclose()


async def test_others_have_their_turn_while_much_is_read():
    """A process that does not renew its lease in time loses it."""
    turns = 0

    async def another() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    waiting = asyncio.create_task(another())
    state = calls()
    found = await takeover.load_in_batches(at_once(state))
    waiting.cancel()
    assert turns >= MANY // takeover.READ_BATCH - 1
    assert found == takeover.load(state)
    assert len(found[0]) == MANY
    assert gc.isenabled()


def written(**instead: Any) -> dict[str, bytes]:
    stage = Stage()
    players(stage, "ann")
    stage.call("bob", Wait(60))
    things = {**stage.engine.calls, **stage.engine.conferences}
    state = {key: encode(thing) for key, thing in things.items()}
    damaged = json.loads(state["call-bob"]) | instead
    return {**state, "call-bob": json.dumps(damaged).encode(), NEXT_MEMBER_ID: b"9"}


def test_readable_records_are_restored() -> None:
    calls, conferences, next_member_id = load(written())
    assert {call.channel_id for call in calls} == {"ann", "bob"}
    assert len(conferences) == 1 and next_member_id == 9


@pytest.mark.parametrize(
    "instead",
    [{"position": "1"}, {"position": True}, {"position": None}, {"elements": {}}, {"elements": "abc"}, {"account": 5},
     {"account": []}, {"fetch_purpose": "nothing"}, {"running": ["x"]}, {"running": 5}, {"channel_id": 7},
     {"headers": []}, {"recent_switch_offs": [[1]]}, {"recent_switch_offs": [["1", {}]]},
     {"recent_switch_offs": [[{}, {"type": "StopMusic", "channel_id": "bob"}]]}],
    ids=repr,
)  # fmt: skip
def test_one_that_is_damaged_is_left_out_alone(instead: dict[str, Any]) -> None:
    calls, conferences, _ = load(written(**instead))
    assert [call.channel_id for call in calls] == ["ann"] and len(conferences) == 1


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"5", b"null", b"\xff", b"[" * 100_000, b'{"type": "Call"}'])
def test_one_that_is_nothing_is_left_out_alone(text: bytes) -> None:
    calls, conferences, _ = load({**written(), "call-bob": text})
    assert [call.channel_id for call in calls] == ["ann"] and len(conferences) == 1


@pytest.mark.parametrize("text", [b"", b"x", b"true", b"-5", b"1.5", b"9" * 400])
def test_a_counter_that_is_damaged_is_counted_again(text: bytes) -> None:
    assert load({**written(), NEXT_MEMBER_ID: text})[2] == 2


def test_one_that_is_kept_under_anothers_id_is_left_out_alone() -> None:
    """Otherwise it would replace the other call."""
    state = written()
    calls, _, _ = load({**state, "call-bob": state["call-ann"]})
    assert [call.call_uuid for call in calls] == ["call-ann"]


class Written:
    """Stand-in for the store."""

    def __init__(self, state: dict[str, bytes]) -> None:
        self._state = state

    async def load_batches(self) -> AsyncIterator[dict[str, bytes]]:
        for key, text in self._state.items():
            yield {key: text}


@pytest.mark.parametrize(
    ("damaged", "hung_up"),
    [
        (("call-ann",), {"ann"}),
        (("id1",), {"ann", "cid"}),
        (("call-bob",), set()),
        (("call-ann", "id1"), {"cid"}),
        (("call-ann", "call-cid"), {"ann", "cid"}),
    ],
)
async def test_only_records_that_refer_to_an_unreadable_one_are_given_up(
    monkeypatch: pytest.MonkeyPatch, damaged: tuple[str, ...], hung_up: set[str]
) -> None:
    """This holds even if a call and its conference are restored in different batches."""
    monkeypatch.setattr(takeover, "RESTORE_BATCH", 1)
    stage = Stage()
    players(stage, "ann", "cid")
    stage.call("bob", Wait(60))
    players(stage, "dan", "eve", name="other")
    things = {**stage.engine.calls, **stage.engine.conferences}
    state = {key: b"{" if key in damaged else encode(thing) for key, thing in things.items()}
    engine = Engine(lambda: "new")
    restoration = Restoration(engine)
    await takeover.restore(Written(state), restoration)  # type: ignore[arg-type]
    effects = restoration.finish(stage.now)
    assert {effect.channel_id for effect in effects if isinstance(effect, do.HangUp)} == hung_up
    assert {"dan", "eve"} <= {call.channel_id for call in engine.calls.values() if not call.is_ending}
    for channel_id in ("ann", "bob", "cid", "dan", "eve"):
        engine.handle_event(ChannelHungUp(channel_id, 16), stage.now)
    assert not engine.calls


def arrived(channel_id: str, call_uuid: str = "u1") -> CallArrived:
    return CallArrived(channel_id, call_uuid, "request", "MA1", "+4930", "100")


def test_calls_wait_until_it_is_known_what_asterisk_has():
    reported: list[Event] = []
    arriving = takeover.ArrivalGate(reported.append)
    arriving.submit(arrived("before"))
    arriving.start()
    arriving.submit(arrived("meanwhile"))
    arriving.submit(DigitReceived("before", "1"))
    arriving.submit(ChannelHungUp("of the dead conference", 0))
    arriving.submit(arrived("meanwhile", "told again, as one of its channels"))
    waiting = reported[1:]
    arriving.stop()
    assert waiting == [DigitReceived("before", "1"), ChannelHungUp("of the dead conference", 0)]
    assert reported == [arrived("before"), *waiting, arrived("meanwhile")]
    arriving.submit(arrived("after"))
    assert reported[-1] == arrived("after")


def test_a_held_back_caller_who_hangs_up_never_arrived():
    reported: list[Event] = []
    arriving = takeover.ArrivalGate(reported.append)
    arriving.start()
    arriving.submit(arrived("ann"))
    arriving.submit(ChannelHungUp("ann", 0))
    arriving.stop()
    assert arrived("ann") not in reported


def test_they_wait_for_the_last_of_several_comparisons():
    reported: list[Event] = []
    arriving = takeover.ArrivalGate(reported.append)
    arriving.start()
    arriving.start()
    arriving.submit(arrived("ann"))
    arriving.stop()
    assert reported == []
    arriving.stop()
    assert reported == [arrived("ann")]


# Asterisk's state.


class Asterisk:
    """Fake Asterisk with these channels and playbacks, which does not answer the first questions about each object."""

    def __init__(self, channels: list[str], playbacks: list[str], unanswered: int = 0, refuses: str = "") -> None:
        self.channels, self.playbacks, self.unanswered, self.refuses = channels, playbacks, unanswered, refuses
        self.asked: Counter[str] = Counter()
        self.at_once = self.most_at_once = 0

    async def request(self, method: str, path: str, *, kind: Any = Any) -> Any:
        self.asked[path] += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        if path == self.refuses:
            raise AriError("refused", 500)
        if self.asked[path] <= self.unanswered:
            raise AriUnreachable("Asterisk did not answer")
        if path == "/channels":
            return msgspec.json.decode(json.dumps([{"id": id, "state": "Up"} for id in self.channels]), type=kind)
        if path == "/bridges":
            return msgspec.json.decode(b"[]", type=kind)
        if path.rpartition("/")[2] not in self.playbacks:
            raise AriNotFound("not found", 404)
        return {}


def playing(*playback_ids: str) -> dict[str, list[Expectation]]:
    return {id: [Expectation("playback", id, "ann", if_gone=PlaybackFinished(id))] for id in playback_ids}


async def seen(asterisk: Asterisk, *playback_ids: str, patient: bool = True) -> frozenset[str]:
    found = await takeover.take_snapshot(asterisk, playing(*playback_ids), "conf", set(), patient=patient)  # type: ignore[arg-type]
    return found.state.playbacks


async def test_the_request_about_a_playback_is_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    """The playback may have ended; if it were assumed to exist, its call would wait for its end forever."""
    monkeypatch.setattr(takeover, "RETRY_DELAY_S", 0.0)
    asterisk = Asterisk([], ["plays"], unanswered=3)
    assert await seen(asterisk, "ended", "plays") == {"plays"}
    assert asterisk.asked["/playbacks/ended"] == 4


async def test_but_none_holds_up_the_others_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """The playback is assumed to exist until the next comparison, a minute later."""
    monkeypatch.setattr(takeover, "RETRY_DELAY_S", 0.0)
    asterisk = Asterisk([], [], refuses="/playbacks/odd")
    with capture_logs() as logged:
        assert await seen(asterisk, "odd", "ended") == {"odd"}
    assert [line["path"] for line in logged if line["log_level"] == "warning"] == ["/playbacks/odd"]


async def test_requests_about_playbacks_are_limited_in_number() -> None:
    many = [f"p{n}" for n in range(100)]
    asterisk = Asterisk([], many[::2])
    assert await seen(asterisk, *many) == set(many[::2])
    assert 2 <= asterisk.most_at_once <= takeover.MAX_CONCURRENT_REQUESTS


async def test_a_starting_asterisk_is_requested_until_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(takeover, "RETRY_DELAY_S", 0.0)
    asterisk = Asterisk(["ann"], [], unanswered=50)
    found = await takeover.take_snapshot(asterisk, {}, "conf", set())  # type: ignore[arg-type]
    assert found.state.channels == {"ann": True}


async def test_unless_nobody_has_the_patience() -> None:
    with pytest.raises(AriUnreachable):
        await seen(Asterisk([], [], unanswered=1), patient=False)

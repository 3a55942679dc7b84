"""Tests of unreadable state at a takeover: the server gives up all that is known of it, and nothing else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import msgspec
import pytest
from structlog.testing import capture_logs

from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core import ids
from ari_conf.core.conferences.conference import Conference
from ari_conf.core.elements import Record, Speak, Wait
from ari_conf.core.engine import Engine
from ari_conf.core.restoration import Restoration
from ari_conf.errors import AriError, AriNotFound, AriUnreachable
from ari_conf.server import takeover, unreadable_state
from ari_conf.store import accounts, members, state_store
from ari_conf.store.state_store import StateStore, Step, state_key
from tests.core.stage import CALLBACK, Stage, players
from tests.redis import RedisServer

HANGUP = "http://hangup.example/"
NAME = "pbx"


class Asterisk:
    """Fake of ARI, in front of the stage's Asterisk."""

    app = "conf"

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.stored = {"other/thing", str(ids.RecordingName("A", "gone", "stored"))}
        """Files that no longer belong to a recording."""
        self.asked: list[str] = []
        self.can_not_tell: tuple[str, ...] = ()
        self.tells_of_one = False
        self.unanswered = 0

    async def request(self, method: str, path: str, *, kind: Any = Any) -> Any:
        self.asked.append(path)
        if path in self.can_not_tell:
            raise AriError("Allocation failed", 500)
        if self.asked.count(path) <= self.unanswered and path.count("/") == 1:
            raise AriUnreachable("it is starting")
        return msgspec.json.decode(json.dumps(self._answer(path)), type=kind)

    def _answer(self, path: str) -> Any:
        has = self._stage.asterisk
        live = {
            str(ids.recording_name(source_id if ids.recorder_of(id) is None else id, "A", id)): source_id
            for id, source_id in has.recordings.items()
        }
        if path == "/channels":
            return [self._channel(at, id) for at, id in reversed([*enumerate(has.channels)])]
        if path == "/bridges":
            return [{"id": b.bridge_id, "name": "ari_conf", "channels": b.channels} for b in has.bridges.values()]
        if path == "/recordings/stored":
            return [{"name": name, "format": "wav"} for name in (*self.stored, *live, "alone")]
        if path == "/applications/conf" and self.tells_of_one:
            return {"name": "conf", "channel_ids": [id for id in has.channels if id != "foreign"]}
        if path.startswith("/channels/"):
            return self._channel([*has.channels].index(path.removeprefix("/channels/")), path.rpartition("/")[2])
        name = path.removeprefix("/recordings/live/").replace("%2F", "/")
        if name not in live:
            raise AriNotFound("not found", 404)
        return {"name": name, "state": "recording"}

    def _channel(self, at: int, id: str) -> dict[str, Any]:
        return {
            "id": id,
            "name": f"PJSIP/{id}",
            "state": "Up",
            "caller": {"number": f"+49{id}", "name": id},
            "dialplan": {"exten": "100", "app_name": "Stasis", "app_data": "other" if id == "foreign" else "conf,A"},
            "creationtime": f"2026-01-01T00:00:{at:02}.000+0000",
        }


class House:
    """A room in which Ann, Bob and Cid are recorded; Dan is in another room, and Eve in none."""

    def __init__(self, stage: Stage, redis: RedisServer, kept: StateStore) -> None:
        self.stage, self.redis, self.store = stage, redis, kept
        self.asterisk = Asterisk(stage)
        self.known: unreadable_state.Recovered
        players(stage, "ann", "bob", "cid", record=True, record_file_format="wav")
        players(stage, "dan", name="other")
        stage.call("eve", Wait(3600), Speak("after"))

    async def write(self) -> None:
        step = Step(self.stage.now)
        step.state |= {**self.stage.engine.calls, **self.stage.engine.conferences}
        for key, thing in self.stage.engine.conferences.items():
            step.members[key] = dict(thing.members)
        await self.store.write([step])

    def spoil(self, key: str, how: Callable[[dict[str, Any]], Any] | bytes) -> None:
        if isinstance(how, bytes):
            self.redis.client.hset(state_key(NAME), key, how)
            return
        shot = json.loads(self.redis.client.hget(state_key(NAME), key) or b"")
        how(shot)
        self.redis.client.hset(state_key(NAME), key, json.dumps(shot).replace(" ", "").encode())

    async def take_over(self) -> list[do.Effect]:
        stage = self.stage
        ids = iter(f"new{n}" for n in range(99))
        engine = stage.engine = Engine(lambda: next(ids), "https://conference.example")
        restoration = Restoration(engine)
        texts = await takeover.restore(self.store, restoration)
        ari: Any = self.asterisk
        self.known = await unreadable_state.recover(texts, engine, self.store, ari, stage.now)
        restoration.add_unreadable(self.known.calls, self.known.conferences)
        before = len(stage.effects)
        stage.carry_out([*restoration.finish(stage.now), *self.known.problems])
        return stage.effects[before:]

    def all_ends(self) -> None:
        for who in tuple(self.stage.asterisk.channels):
            if who != "foreign":
                self.stage.hang_up(who)
        self.stage.pass_time(600)
        assert not self.stage.engine.calls and not self.stage.engine.conferences


@pytest.fixture
async def house(redis_server: RedisServer) -> AsyncIterator[House]:
    client = state_store.connect(redis_server.url)
    accounts.add(redis_server.client, 1, "A", hangup_url=HANGUP)
    yield House(Stage(hangup_url=HANGUP), redis_server, StateStore(client, NAME))
    await client.aclose()


def ended(stage: Stage) -> dict[str, str]:
    """Return the caller's number of each hangup callback, by call."""
    reported = [dict(e.params) for e in stage.all(do.PostCallback) if e.url == HANGUP]
    return {params["CallUUID"].removeprefix("call-"): params["From"] for params in reported}


def stored(stage: Stage) -> do.StoreRecording:
    (found,) = stage.all(do.StoreRecording)
    return found


def problems(effects: list[do.Effect]) -> list[str]:
    return [effect.text for effect in effects if isinstance(effect, do.ReportProblem)]


def set_to(*path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def spoil(shot: dict[str, Any]) -> None:
        for name in path[:-1]:
            shot = shot[name]
        shot[path[-1]] = value

    return spoil


def without(*path: str) -> Callable[[dict[str, Any]], None]:
    def spoil(shot: dict[str, Any]) -> None:
        for name in path[:-1]:
            shot = shot[name]
        del shot[path[-1]]

    return spoil


def recording(shot: dict[str, Any]) -> dict[str, Any]:
    (found,) = shot["recordings"].values()
    return cast("dict[str, Any]", found)


ROOM: dict[str, Callable[[dict[str, Any]], Any] | bytes] = {
    "nothing of it is left": b"{",
    "it is empty": b"",
    "it is another's": b'{"conference_id":"x"}',
    "it is a list": b"[]",
    "a name from another version": set_to("bridge", value="dreaming"),
    "a number instead of a word": set_to("claim", value=5),
    "its own name is gone": set_to("name", value=None),
    "so is its account": set_to("auth_id", value=[]),
    "the recording is of another version": lambda shot: recording(shot).update(state="paused"),
    "when it began is gone": lambda shot: recording(shot).pop("started_at"),
    "nothing of the recording is left": lambda shot: shot["recordings"].update(
        {key: ["x"] for key in shot["recordings"]}
    ),
    "nothing of the recordings is left": set_to("recordings", value=["x"]),
    "nobody wrote of a recording": lambda shot: shot.update(recordings={}, bridge="dreaming"),
}


@pytest.mark.parametrize("what", ROOM)
async def test_recording_of_an_unreadable_conference_is_handed_over(house: House, what: str) -> None:
    """The record is damaged: the members know whose element requested the recording, and Asterisk knows that it
    runs."""
    stage = house.stage
    await house.write()
    (recording_id,) = stage.asterisk.recordings
    house.spoil("id1", ROOM[what])
    effects = await house.take_over()
    found = stored(stage)
    assert (found.recording_id, found.auth_id, found.conference_id) == (recording_id, "A", "id1")
    assert (found.conference_name, found.file_format, found.call_uuid) == ("standup", "wav", "call-ann")
    assert found.callback is not None and found.callback.url == CALLBACK
    params = dict(found.callback.params)
    assert params["RecordingID"] == recording_id and params["From"] == "4930123" and "CallUUID" not in params
    assert not stage.asterisk.recordings, "the recording has ended"
    assert not any("without a callback" in text for text in problems(effects))
    # Given up completely.
    assert set(stage.asterisk.channels) == {"dan", "eve"} and set(ended(stage)) == {"ann", "bob", "cid"}
    assert [text for text in stage.callback_texts() if text.startswith("exit")] == [
        f"exit {who} conference_ended" for who in ("ann", "bob", "cid")
    ]
    assert do.ReleaseName("A", "standup", "id1") in effects
    house.all_ends()


async def test_its_numbers_go_on_if_they_can_be_read(house: House) -> None:
    await house.write()
    house.spoil("id1", set_to("bridge", value="dreaming"))
    await house.take_over()
    callback = stored(house.stage).callback
    reported = [int(c["ConferenceSequence"]) for c in house.stage.callbacks(ConferenceName="standup")]
    assert callback is not None
    assert [*reported, int(dict(callback.params)["ConferenceSequence"])] == list(range(1, 8))


async def test_a_recording_known_only_to_asterisk_is_stored_and_the_account_gets_a_problem(
    house: House,
) -> None:
    """Neither the conference nor its members can be read."""
    await house.write()
    for key in ("id1", "call-ann", "call-bob", "call-cid"):
        house.spoil(key, b"{")
    house.redis.client.delete(members.members_key("id1"))
    house.redis.client.hset("ari_conf:names:A", "standup", f"id1 {NAME}")
    (recording_id,) = house.stage.asterisk.recordings
    effects = await house.take_over()
    found = stored(house.stage)
    assert (found.recording_id, found.auth_id, found.conference_name) == (recording_id, "A", "standup")
    assert found.callback is None and found.file_format == "mp3"
    (text,) = [text for text in problems(effects) if "without a callback" in text]
    assert recording_id in text and "'standup'" in text
    assert set(house.stage.asterisk.channels) == {"dan", "eve"}, "no caller stays in Asterisk without the server"
    assert ids.bridge_id("id1") not in house.stage.asterisk.bridges
    house.all_ends()


async def test_a_recording_started_by_the_api_has_the_callback_of_the_api(house: House) -> None:
    await house.write()

    def asked_by_the_api(shot: dict[str, Any]) -> None:
        recording(shot).update(api_id="api1", state="of another version")
        recording(shot)["element"]["callback_url"] = "http://api.example/"

    house.spoil("id1", asked_by_the_api)
    await house.take_over()
    callback = stored(house.stage).callback
    assert callback is not None and callback.url == "http://api.example/"
    assert dict(callback.params)["api_id"] == "api1" and "record_url" in dict(callback.params)


async def test_one_that_was_handed_over_is_not_handed_over_again(house: House) -> None:
    house.stage.asterisk.recordings.clear()
    await house.write()
    house.spoil("id1", lambda shot: recording(shot).update(state="another", handed_over=True) or shot.pop("claim"))
    await house.take_over()
    assert not house.stage.all(do.StoreRecording)


async def test_one_that_had_ended_and_was_not_handed_over_is(house: House) -> None:
    house.stage.asterisk.recordings.clear()
    await house.write()
    house.spoil("id1", lambda shot: recording(shot).update(state="another", handed_over=False))
    await house.take_over()
    assert stored(house.stage).conference_id == "id1"


def call_recordings(stage: Stage) -> list[do.StoreRecording]:
    return [effect for effect in stage.all(do.StoreRecording) if effect.tracks]


async def test_a_recording_of_a_call_that_can_be_read_has_its_callback(house: House) -> None:
    house.stage.call("fay", Record(record_session=True, file_format="wav", callback_url=CALLBACK), Wait(3600))
    await house.write()
    house.spoil("call-fay", set_to("state", value="of another version"))
    await house.take_over()
    house.all_ends()
    (effect,) = call_recordings(house.stage)
    assert effect.callback is not None and effect.callback.url == CALLBACK
    assert (effect.call_uuid, effect.file_format, effect.tracks) == ("call-fay", "wav", ("in", "out"))
    assert not [text for text in problems(house.stage.effects) if "without a callback" in text]


@pytest.mark.parametrize("spoiled", [b"{", set_to("recordings", value=7)], ids=["no JSON", "no recordings"])
async def test_a_recording_of_a_call_that_can_not_be_read_is_stored_without_one(house: House, spoiled: Any) -> None:
    house.stage.hang_up("eve")
    house.stage.call("fay", Record(record_session=True, file_format="wav", callback_url=CALLBACK), Wait(3600))
    await house.write()
    house.spoil("call-fay", spoiled)
    effects = await house.take_over()
    house.all_ends()
    (effect,) = call_recordings(house.stage)
    assert effect.callback is None and (effect.file_format, effect.tracks) == ("mp3", ("in", "out"))
    (problem,) = [text for text in problems(effects) if "without a callback" in text]
    assert effect.recording_id in problem


async def test_other_conferences_recordings_go_on(house: House) -> None:
    players(house.stage, "fay", "gus", name="third", record=True)
    third = house.stage.bridge_id("third")
    await house.write()
    house.spoil("id1", b"{")
    await house.take_over()
    assert [*house.stage.asterisk.recordings.values()] == [third] and stored(house.stage).conference_id == "id1"
    assert house.stage.hears("fay") == {"gus"}


async def test_an_unreadable_member_ends_the_conference_and_the_others_get_callbacks(house: House) -> None:
    await house.write()
    house.redis.client.hset(members.members_key("id1"), "2", b'{"member_id":"two"}')
    await house.take_over()
    assert [t for t in house.stage.callback_texts() if t.startswith("exit")] == [
        f"exit {who} conference_ended" for who in ("ann", "cid")
    ]
    assert set(ended(house.stage)) == {"ann", "bob", "cid"} and stored(house.stage).conference_id == "id1"


# Calls.

CALL: dict[str, Callable[[dict[str, Any]], Any] | bytes] = {
    "nothing of it is left": b"{",
    "it is nothing": b"5",
    "it is another's": b'{"call_uuid":"call-dan","channel_id":"dan"}',
    "of another version": set_to("position", value="first"),
    "what it does is of another version": set_to("running", value={"type": "Dance"}),
    "its channel is gone": without("channel_id"),
    "its account's URLs are": set_to("account", value=5),
    "who calls is": set_to("from_", value=None),
}


@pytest.mark.parametrize("what", CALL)
async def test_a_call_that_can_not_be_read_and_is_in_no_conference_is_given_up_completely(
    house: House, what: str
) -> None:
    """Otherwise its caller would be taken for a new one, and hear everything again from the start."""
    stage = house.stage
    await house.write()
    house.spoil("call-eve", CALL[what])
    with capture_logs() as logged:
        effects = await house.take_over()
    assert set(stage.asterisk.channels) == {"ann", "bob", "cid", "dan"}
    (text,) = problems(effects)
    assert "it could not be read" in text
    (problem,) = [effect for effect in effects if isinstance(effect, do.ReportProblem)]
    assert (problem.auth_id, problem.call_uuid) == ("A", "call-eve")
    assert set(ended(stage)) == {"eve"}, "its account in Redis has the hangup URL"
    assert [line["id"] for line in logged if line["event"] == "state record unreadable"] == ["call-eve"]
    assert stage.hears("ann") == {"bob", "cid"}
    house.all_ends()


async def test_several_lost_calls_are_hung_up_and_none_is_reported_under_another_id(
    house: House,
) -> None:
    house.stage.call("fay", Wait(3600))
    await house.write()
    house.spoil("call-eve", b"{")
    house.spoil("call-fay", b"")
    effects = await house.take_over()
    assert set(house.stage.asterisk.channels) == {"ann", "bob", "cid", "dan"}
    assert len(problems(effects)) == 2 and not ended(house.stage)
    house.all_ends()


async def test_a_call_that_came_while_nobody_listened_is_a_new_one(house: House) -> None:
    """Its channel is younger than those in the records. A channel of another application is left alone."""
    await house.write()
    house.stage.asterisk.call("new")
    house.stage.asterisk.call("foreign")
    house.spoil("call-eve", b"{")
    await house.take_over()
    assert {"new", "foreign"} <= set(house.stage.asterisk.channels) and "eve" not in house.stage.asterisk.channels
    house.stage.tell(ev.CallArrived("new", "call-new", "request", "A", "+4930", "100"))
    assert "call-new" in {asked.call_uuid for asked in house.stage.all(do.IdentifyCall)}
    house.all_ends()


async def test_a_call_that_has_hung_up_meanwhile_costs_nobody_else(house: House) -> None:
    await house.write()
    del house.stage.asterisk.channels["eve"]
    house.spoil("call-eve", set_to("position", value="first"))
    await house.take_over()
    house.stage.tell(ev.ChannelHungUp("eve", 0))
    assert set(house.stage.asterisk.channels) == {"ann", "bob", "cid", "dan"} and set(ended(house.stage)) == {"eve"}
    house.all_ends()


async def test_a_member_with_an_unreadable_call_has_the_usual_callbacks(house: House) -> None:
    await house.write()
    house.spoil("call-bob", set_to("position", value="first"))
    await house.take_over()
    assert house.stage.callback_texts()[-1] == "exit bob hangup" and house.stage.hears("ann") == {"cid"}
    assert set(ended(house.stage)) == {"bob"} and house.stage.asterisk.recordings
    house.all_ends()


async def test_while_redis_does_not_know_the_account_it_is_hung_up_all_the_same(house: House) -> None:
    await house.write()
    house.spoil("call-eve", b"{")
    house.redis.client.delete(accounts.KEY)
    effects = await house.take_over()
    assert "eve" not in house.stage.asterisk.channels and len(problems(effects)) == 1 and not ended(house.stage)


async def test_readable_state_asks_nothing_of_asterisk(house: House) -> None:
    await house.write()
    engine = Engine(lambda: "new")
    assert await takeover.restore(house.store, Restoration(engine)) == {}
    assert {c.conference_id for c in engine.conferences.values()} == {"id1", house.stage.conference_id("other")}


async def test_everything_is_of_another_version(house: House) -> None:
    """All calls are given up, and none is taken for a new one."""
    await house.write()
    for key in (*house.stage.engine.calls, *house.stage.engine.conferences):
        house.spoil(key, lambda shot: shot.pop("auth_id"))
    await house.take_over()
    assert not house.stage.asterisk.channels and not house.stage.asterisk.bridges
    assert set(ended(house.stage)) == {"ann", "bob", "cid", "dan", "eve"}
    assert stored(house.stage).callback is not None
    house.all_ends()
    assert not [c for c in house.stage.engine.conferences.values() if isinstance(c, Conference)]


async def test_a_starting_asterisk_is_requested_until_it_answers(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(takeover, "RETRY_DELAY_S", 0.0)
    house.asterisk.unanswered = 3
    await house.write()
    house.spoil("call-eve", b"{")
    await house.take_over()
    assert set(ended(house.stage)) == {"eve"}


async def test_failed_question_to_asterisk_delays_nothing(house: House) -> None:
    """Everything that the records and members contain is reported nevertheless."""
    house.asterisk.can_not_tell = ("/channels", "/bridges", "/recordings/stored")
    await house.write()
    house.spoil("id1", set_to("bridge", value="dreaming"))
    house.spoil("call-eve", set_to("position", value="first"))
    await house.take_over()
    assert stored(house.stage).callback is not None and set(ended(house.stage)) == {"ann", "bob", "cid", "eve"}


async def test_a_spoiled_channel_list_is_requested_one_by_one(house: House) -> None:
    house.asterisk.can_not_tell, house.asterisk.tells_of_one = ("/channels",), True
    await house.write()
    house.spoil("call-eve", b"{")
    await house.take_over()
    assert "/channels/eve" in house.asterisk.asked
    assert set(ended(house.stage)) == {"eve"}


async def test_the_number_of_recording_status_requests_is_bounded(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unreadable_state, "MAX_STATUS_REQUESTS", 10)
    house.asterisk.stored |= {str(ids.RecordingName("A", f"gone{n}", "r")) for n in range(100)}
    await house.write()
    house.spoil("call-eve", b"{")
    await house.take_over()
    assert len([path for path in house.asterisk.asked if path.startswith("/recordings/live/")]) == 10


async def test_others_have_their_turn_while_very_many_are_looked_at(house: House) -> None:
    """A process that does not renew its lease in time loses it."""
    turns = 0

    async def another() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    texts = {f"u{n}": b'{"call_uuid":"u%d","channel_id":"c%d","auth_id":"A"}' % (n, n) for n in range(2000)}
    ari: Any = house.asterisk
    waiting = asyncio.create_task(another())
    known = await unreadable_state.recover(texts, Engine(lambda: "new"), house.store, ari, house.stage.now)
    waiting.cancel()
    assert len(known.calls) == 2000 and known.calls[7].account is not None
    assert turns >= 4 * 2000 // takeover.READ_BATCH

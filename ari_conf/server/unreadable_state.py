"""Unreadable records: collects what is still known of calls and conferences whose records can't be read.

They are then ended completely. If a record is JSON, each field and each member is read separately. Redis has the names
of conferences; Asterisk has the channels of calls, and what is being recorded. Nothing is guessed: unknown values are
left out, and a problem tells the account so.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar, get_type_hints
from urllib.parse import quote

import msgspec
import structlog

from ari_conf.ari import translate
from ari_conf.ari.client import Client
from ari_conf.common.supervision import for_each
from ari_conf.core import ids
from ari_conf.core.calls.call import Call
from ari_conf.core.calls.call_recording import CallRecording
from ari_conf.core.conferences.conference import Conference
from ari_conf.core.conferences.conference_state import BridgeState, ClaimState
from ari_conf.core.conferences.member import Member
from ari_conf.core.conferences.recording import ConferenceRecording
from ari_conf.core.effects import ReportProblem
from ari_conf.core.elements import Conference as Element
from ari_conf.core.engine import Engine
from ari_conf.core.events import CallArrived
from ari_conf.core.problem_kinds import ProblemKind
from ari_conf.core.recording import RecordingState
from ari_conf.errors import AriError, AriNotFound, AriUnreachable, StoreRefused, StoreUnavailable
from ari_conf.server import takeover
from ari_conf.store.state_store import StateStore

log = structlog.get_logger()
T = TypeVar("T")

CALL_FIELDS = (
    *("request_uuid", "channel_id", "auth_id", "from_", "to", "caller_name", "direction", "started_at", "account"),
    *("headers", "wideband", "answered_at", "hangup_cause", "hangup_code", "hangup_source", "outgoing"),
)
"""Fields of a call that the callbacks of its end need; what the call was doing no longer matters."""
CONFERENCE_FIELDS = ("auth_id", "name", "created_at", "entered", "sequence")
RECORDING_FIELDS = ("call_uuid", "element", "started_at", "wideband", "params", "api_id")
CHANNELS = "/channels"
MAX_STATUS_REQUESTS = 10_000
"""Maximum number of recordings in Asterisk's folder for which the server asks whether they are still running."""
DECODE_ERRORS = (TypeError, ValueError, RecursionError)


@dataclass(frozen=True, slots=True)
class Recovered:
    calls: list[Call] = field(default_factory=list)
    conferences: list[Conference] = field(default_factory=list)
    problems: list[ReportProblem] = field(default_factory=list)


class StoredRecording(msgspec.Struct):
    """A recording in Asterisk."""

    name: str


@dataclass(frozen=True, slots=True)
class Asterisk:
    """Asterisk's part of the recovered state: what no readable record contains."""

    arrivals: list[CallArrived]
    """The calls of the Stasis application in order of arrival, as if they had just arrived."""
    conferences: frozenset[str]
    """Ids of the conferences that have a bridge."""
    recordings: Mapping[str, ids.RecordingName]
    """Live recordings by conference id."""
    call_recordings: tuple[ids.RecordingName, ...] = ()
    """Live tracks of calls' recordings."""


async def recover(
    unreadable: Mapping[str, bytes], engine: Engine, store: StateStore, ari: Client, now: int
) -> Recovered:
    """Return what is known, waiting for Asterisk, which may still be starting, and for Redis.

    No event may be handled before: a destroyed bridge is no longer recorded, and a call that arrives later is new.
    """
    records = {key: _decode_record(key, text) async for key, text in _yielding(unreadable.items())}
    written = await _load_members(store, list(unreadable))
    members = {key: _decode_members(records[key], texts) async for key, texts in _yielding(written.items())}
    asterisk = await _take_snapshot(ari, _known_recording_names(engine))
    conferences = await _recover_conferences(records, members, asterisk, engine, store, now)
    calls = await _recover_calls(
        [key for key in records if key not in conferences], records, conferences, asterisk, engine, store, now
    )
    found = Recovered(list(calls.values()), list(conferences.values()))
    for call in found.calls:
        found.problems.extend(_recover_call_recordings(call, records.get(call.call_uuid, {}), asterisk, engine, now))
    for conference in found.conferences:
        found.problems.extend(
            _recover_recording(conference, records[conference.conference_id], asterisk, {**engine.calls, **calls}, now)
        )
    return found


async def _yielding(things: Iterable[T]) -> AsyncIterator[T]:
    """Yield the items, and let other tasks run in between, such as the renewal of the lease."""
    for n, thing in enumerate(things):
        if n % takeover.READ_BATCH == 0:
            await asyncio.sleep(0)
        yield thing


def _decode_record(key: str, text: bytes) -> dict[str, Any]:
    """Return the record if it is JSON and has the id `key`, otherwise {}."""
    try:
        record = msgspec.json.decode(text)
    except DECODE_ERRORS:
        return {}
    return record if isinstance(record, dict) and key in (record.get("call_uuid"), record.get("conference_id")) else {}


async def _load_members(store: StateStore, ids: list[str]) -> dict[str, dict[bytes, bytes]]:
    while True:
        try:
            return await store.members(ids)
        except StoreUnavailable as error:
            log.error("redis unavailable at startup", reason=str(error), waiting_for="members")
            await asyncio.sleep(takeover.REDIS_RETRY_DELAY_S)


def _decode_members(record: Mapping[str, Any], texts: Mapping[bytes, bytes]) -> list[Member]:
    """Return the members that can be read, in the order in which they joined."""
    inside = record.get("members")
    records: list[Any] = list(inside.values()) if isinstance(inside, dict) else []
    found: dict[int, Member] = {}
    for text in texts.values():
        try:
            records.append(msgspec.json.decode(text))
        except DECODE_ERRORS:
            continue
    for each in records:
        try:
            member = _convert(each, Member)
            found[member.member_id] = member
        except DECODE_ERRORS:
            continue
    return [found[id] for id in sorted(found)]


def _convert(shot: Any, kind: type[T]) -> T:
    """Convert decoded JSON to an object. Raises one of DECODE_ERRORS."""
    return msgspec.convert(shot, kind, str_keys=True)


def _readable(shot: Any, kind: type, names: Iterable[str]) -> dict[str, Any]:
    """Return those of the named fields that can be read, of an object that can't be read as a whole."""
    types, found = _types(kind), dict[str, Any]()
    for name in names if isinstance(shot, dict) else ():
        if name in shot:
            with contextlib.suppress(*DECODE_ERRORS):
                found[name] = _convert(shot[name], types[name])
    return found


@cache
def _types(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


# Asterisk's state.


def _known_recording_names(engine: Engine) -> set[str]:
    """Return the names of the recordings of all readable conferences."""
    found = [
        ids.RecordingName(c.auth_id, c.conference_id, recording_id)
        for c in engine.conferences.values()
        for recording_id in c.recordings
    ]
    found += [
        ids.RecordingName(c.auth_id, "", r.recording_id, c.call_uuid, track)
        for c in engine.calls.values()
        for r in c.recordings.values()
        for track in r.track_names
    ]
    return set(map(str, found))


async def _take_snapshot(ari: Client, recorded: set[str]) -> Asterisk:
    channels, bridges, stored = [await _list_all(ari, what) for what in (CHANNELS, "/bridges", "/recordings/stored")]
    names = [one.name for one in map(_decoder(StoredRecording), stored) if one.name not in recorded]
    decoded = _decoder(takeover.Channel)
    ours = [raw async for raw in _yielding(channels) if takeover.is_call_of(ari.app, decoded(raw))]
    messages = takeover.synthetic_stasis_starts(
        sorted(map(msgspec.json.decode, ours), key=lambda one: str(one.get("creationtime")))
    )
    arrived = [
        event for message in messages if isinstance(event := translate.to_event(message, lambda: ""), CallArrived)
    ]
    made = [found for name in names if (found := ids.parse_recording_name(name)) is not None]
    live = await _find_live_recordings(ari, made[:MAX_STATUS_REQUESTS])
    return Asterisk(
        arrived,
        frozenset(filter(None, (ids.conference_of(_decoder(takeover.Bridge)(raw).id) for raw in bridges))),
        {one.conference_id: one for one in live if one.conference_id},
        tuple(one for one in live if one.call_uuid),
    )


async def _list_all(ari: Client, what: str) -> list[msgspec.Raw]:
    """Return Asterisk's list, or [] if it can't produce it: less is then known, and no call waits for it."""
    while True:
        try:
            found: list[msgspec.Raw] | None = await ari.request("GET", what, kind=list[msgspec.Raw])
            return found or []
        except AriUnreachable as error:
            # Asterisk accepts connections before it has started completely.
            log.info("asterisk not ready", path=what, reason=str(error))
            await asyncio.sleep(takeover.RETRY_DELAY_S)
        except AriError as error:
            if what == CHANNELS:
                try:
                    fallback = await takeover.list_despite_spoiled(ari, ari.app, error)
                except AriUnreachable:
                    continue
                if fallback is not None:
                    return fallback[0]
            log.error("asterisk list not returned", path=what, reason=str(error), action="continuing without it")
            return []


def _decoder(kind: Any) -> Any:
    return msgspec.json.Decoder(kind).decode


async def _find_live_recordings(ari: Client, names: Iterable[ids.RecordingName]) -> list[ids.RecordingName]:
    """Return the live recordings among `names`: Asterisk lists them only together with those that are finished."""
    found: list[ids.RecordingName] = []

    async def check(name: ids.RecordingName) -> None:
        try:
            await ari.request("GET", f"/recordings/live/{quote(str(name), safe='')}")
        except AriNotFound:
            return
        except AriError as error:
            log.warning("recording status unknown", name=str(name), reason=str(error))
        else:
            found.append(name)

    await for_each(names, check, takeover.MAX_CONCURRENT_REQUESTS)
    return found


# Calls and conferences.


async def _recover_conferences(
    records: Mapping[str, dict[str, Any]],
    members: Mapping[str, list[Member]],
    asterisk: Asterisk,
    engine: Engine,
    store: StateStore,
    now: int,
) -> dict[str, Conference]:
    theirs = {c.conference_id: c for c in engine.calls.values() if isinstance(c.running, Element)}
    named: dict[str, tuple[str, str]] | None = None
    found: dict[str, Conference] = {}
    async for key, record in _yielding(records.items()):
        inside = [member for member in members[key] if member.conference_id == key]
        if not (inside or key in asterisk.conferences or key in theirs or record.get("conference_id") == key):
            continue
        if key == record.get("call_uuid"):
            continue
        fields = _readable(record, Conference, CONFERENCE_FIELDS)
        whose = [(m.auth_id, m.element.name) for m in inside]
        if (call := theirs.get(key)) is not None and isinstance(call.running, Element):
            whose.append((call.auth_id, call.running.name))
        if not (whose or {"auth_id", "name"} <= fields.keys()):
            named = await _load_names(store) if named is None else named
            whose = [named[key]] if key in named else []
        auth_id, name = whose[0] if whose else (fields.get("auth_id", ""), fields.get("name", ""))
        auth_id = auth_id or (asterisk.recordings[key].auth_id if key in asterisk.recordings else "")
        if not auth_id:
            reason = "its state record is unreadable"
            log.error("conference account unknown", id=key, reason=reason, action="destroying its bridge")
            continue
        fields |= {"auth_id": auth_id, "name": name}
        conference = Conference(key, created_at=fields.pop("created_at", now), max_members=1,
                          public_url=engine.registry.public_url, members={m.member_id: m for m in inside},
                          claim=ClaimState.GRANTED, bridge=BridgeState.READY, **fields)  # fmt: skip
        found[key] = conference
    return found


async def _load_names(store: StateStore) -> dict[str, tuple[str, str]]:
    """Return conference id -> (account, name) of this server's names in Redis, as far as they can be read."""
    found: dict[str, tuple[str, str]] = {}
    try:
        async for names in store.names_held():
            found |= {held.conference_id: (held.auth_id, held.name) for held in names}
    except (StoreUnavailable, StoreRefused) as error:
        log.error("names not looked up", reason=str(error))
    return found


async def _recover_calls(
    keys: list[str],
    records: Mapping[str, dict[str, Any]],
    conferences: Mapping[str, Conference],
    asterisk: Asterisk,
    engine: Engine,
    store: StateStore,
    now: int,
) -> dict[str, Call]:
    all_conferences = (*engine.conferences.values(), *conferences.values())
    member_by_call = {m.call_uuid: m for c in all_conferences for m in c.members.values()}
    arrived = {event.channel_id: event for event in asterisk.arrivals}
    found: dict[str, Call] = {}
    lost: list[str] = []
    async for key in _yielding(keys):
        fields = _readable(records[key], Call, CALL_FIELDS)
        if (member := member_by_call.get(key)) is not None:
            fields = {"channel_id": member.channel_id, "auth_id": member.auth_id} | fields
        if not fields.get("channel_id"):
            lost.append(key)
            continue
        found[key] = await _recover_call(key, arrived.get(fields["channel_id"]), fields, store, now)
    taken = {call.channel_id for call in (*engine.calls.values(), *found.values())}
    taken |= {member.channel_id for member in member_by_call.values()}
    unclaimed = [event for event in asterisk.arrivals if event.channel_id not in taken]
    return found | {call.call_uuid: call for call in await _calls_without_record(lost, unclaimed, engine, store, now)}


async def _calls_without_record(
    lost: list[str], unclaimed: list[CallArrived], engine: Engine, store: StateStore, now: int
) -> list[Call]:
    """Return a call for each record without a known channel, on the oldest channels that belong to no known call.

    Calls that arrived after the death of the previous process are younger. Which record belongs to which channel is
    known only if there is one of each.
    """
    found: list[Call] = []
    for event in unclaimed[: len(lost)]:
        sure = len(lost) == len(unclaimed) == 1
        log.error("unknown call hung up", channel_id=event.channel_id, reason="a state record is unreadable")
        call = await _recover_call(lost[0] if sure else engine.registry.new_id(), event, {}, store, now)
        if not sure:
            # A hangup callback could not say which call has ended.
            call.account = None
        found.append(call)
    return found


async def _recover_call(
    key: str, event: CallArrived | None, fields: dict[str, Any], store: StateStore, now: int
) -> Call:
    """Return the call with the known `fields`; the rest comes from Asterisk's `event`, if there is one."""
    values: dict[str, Any] = {"request_uuid": "", "channel_id": "", "auth_id": "", "from_": "", "to": ""}
    values |= {"caller_name": "", "direction": "inbound", "started_at": now}
    if event is not None:
        values |= {name: getattr(event, name) for name in ("channel_id", "auth_id", "from_", "to", "caller_name")}
        values["answered_at"] = now if event.answered else None
    call = Call(key, **(values | fields))
    if call.account is None or call.account.auth_id != call.auth_id:
        try:
            record = await store.account(call.auth_id)
        except (StoreUnavailable, StoreRefused, ValueError) as error:
            log.error("account not looked up", auth_id=call.auth_id, reason=str(error))
            record = None
        call.account = record.account() if record is not None else None
    return call


def _newest_recording(recordings: Any) -> Any:
    """Return the record of a conference's newest recording, or None. The record may be damaged."""
    return next(reversed(recordings.values()), None) if isinstance(recordings, dict) else None


def _recover_recording(
    conference: Conference, record: Mapping[str, Any], asterisk: Asterisk, calls: Mapping[str, Call], now: int
) -> Iterator[ReportProblem]:
    """Set the conference's recording, if it has or had one, so that it is stored.

    Yield a problem if its callback is lost.
    """
    key, written = conference.conference_id, _newest_recording(record.get("recordings"))
    live = asterisk.recordings.get(key)
    recording_id = live.recording_id if live is not None else ""
    try:
        whole = _convert(written, ConferenceRecording) if written is not None else None
    except DECODE_ERRORS:
        whole = None
    conference.auth_id = live.auth_id if live is not None else conference.auth_id
    if whole is not None and recording_id in ("", whole.recording_id):
        conference.recordings[whole.recording_id] = whole
        return
    if not recording_id:
        part = written if isinstance(written, dict) else {}
        if part.get("handed_over") is not False or not isinstance(part.get("recording_id"), str):
            return
        recording_id = part["recording_id"]
    fields = _readable(written, ConferenceRecording, RECORDING_FIELDS)
    requester = next((m for m in conference.members.values() if m.recording_id == recording_id), None)
    if requester is not None and "element" not in fields and not fields.get("api_id"):
        fields |= {"call_uuid": requester.call_uuid, "element": requester.element}
        if "params" not in fields and (call := calls.get(requester.call_uuid)) is not None:
            fields["params"] = tuple(each for each in call.standard_params("ConferenceRecord") if each[0] != "CallUUID")
    has_callback = "element" in fields
    values: dict[str, Any] = {"call_uuid": "", "element": Element(conference.name), "started_at": now}
    values["state"] = RecordingState.RUNNING
    conference.recordings[recording_id] = ConferenceRecording(
        recording_id=recording_id, bridge_id=conference.bridge_id, auth_id=conference.auth_id, **(values | fields)
    )
    if not has_callback:
        text = (
            f"recording {recording_id} of conference {conference.name!r} is stored as mp3, without a callback: the "
            "conference's state record could not be read; look the recording up by its ID"
        )
        yield ReportProblem(conference.auth_id, "", ProblemKind.RECORDING_INCOMPLETE, None, text)


def _recover_call_recordings(
    call: Call, record: Mapping[str, Any], asterisk: Asterisk, engine: Engine, now: int
) -> Iterator[ReportProblem]:
    """Set the recordings of the call that can be read, or that run in Asterisk, so that they are stored.

    Yield a problem for each whose callback is lost.
    """
    written = record.get("recordings")
    for recording_id, each in written.items() if isinstance(written, dict) else ():
        try:
            recording = _convert(each, CallRecording)
        except DECODE_ERRORS:
            continue
        if (recording.recording_id, recording.call_uuid) == (recording_id, call.call_uuid):
            call.recordings[recording_id] = recording
    live: dict[str, list[ids.RecordingName]] = {}
    for name in asterisk.call_recordings:
        if name.call_uuid == call.call_uuid and name.recording_id not in call.recordings:
            live.setdefault(name.recording_id, []).append(name)
    for recording_id, names in live.items():
        auth_id, tracks = names[0].auth_id, tuple(sorted(name.track for name in names))
        url = f"{engine.registry.public_url}/v1/Account/{auth_id}/Recording/{recording_id}.mp3"
        call.recordings[recording_id] = CallRecording(
            recording_id=recording_id, auth_id=auth_id, call_uuid=call.call_uuid, channel_id=call.channel_id,
            started_at=now, url=url, track_names=tracks, state=RecordingState.RUNNING,
        )  # fmt: skip
        text = (
            f"recording {recording_id} of the call is stored as mp3, without a callback: the call's state record could "
            "not be read; look the recording up by its ID"
        )
        yield ReportProblem(auth_id, call.call_uuid, ProblemKind.RECORDING_INCOMPLETE, None, text)

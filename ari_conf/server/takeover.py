"""Takeover: a snapshot of Asterisk for `core.reconciliation`, and the state of a dead process for its successor."""

from __future__ import annotations

import asyncio
import csv
import gc
from collections.abc import AsyncIterable, AsyncIterator, Callable, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec
import structlog

from ari_conf.ari.client import Client
from ari_conf.ari.translate import BRIDGE_NAME, NON_CALL_PREFIXES
from ari_conf.common.supervision import for_each
from ari_conf.core import ids
from ari_conf.core.calls.call import Call
from ari_conf.core.conferences.conference import Conference
from ari_conf.core.engine import Engine
from ari_conf.core.events import CallArrived, ChannelHungUp, Event
from ari_conf.core.expectations import AsteriskState, Expectation
from ari_conf.core.reconciliation.batches import expectations_by_owner
from ari_conf.core.restoration import Restoration
from ari_conf.errors import AriError, AriNotFound, AriUnreachable, StoreUnavailable
from ari_conf.store.state_codec import ValuePool, decode
from ari_conf.store.state_store import StateStore

log = structlog.get_logger()

T = TypeVar("T")
RETRY_DELAY_S = 0.2
REDIS_RETRY_DELAY_S = 0.5
MAX_CONCURRENT_REQUESTS = 8
"""Concurrent requests about playbacks, recordings, channels: half of the connections to Asterisk are left for calls."""
EXISTS_ATTEMPTS = 5
"""Attempts per playback or recording; after the last it counts as existing until the next reconciliation."""
READ_BATCH, RESTORE_BATCH, SCAN_BATCH = 200, 2000, 1000
NEXT_MEMBER_ID = "next_member_id"
"""Key of the next member id in the persisted state; all other keys are ids of calls and conferences."""


class Dialplan(msgspec.Struct):
    app_name: str = ""
    app_data: str = ""


class Channel(msgspec.Struct):
    """A channel in Asterisk: the fields that are needed of all channels."""

    id: str
    name: str = ""
    state: str = ""
    dialplan: Dialplan = msgspec.field(default_factory=Dialplan)


class Bridge(msgspec.Struct):
    id: str
    name: str = ""
    channels: list[str] = []


@dataclass(frozen=True, slots=True)
class AsteriskSnapshot:
    state: AsteriskState
    arrived: list[dict[str, Any]]
    """Unknown channels of the Stasis application, with all fields."""
    bridges_with_name: frozenset[str]
    """Ids of the bridges whose name is BRIDGE_NAME."""
    undescribed: frozenset[str] = frozenset()
    """Ids of unknown channels of the Stasis application that Asterisk can't describe: see `list_despite_spoiled`."""


async def idle_expectations(engine: Engine, busy: Callable[[str], bool]) -> dict[str, list[Expectation]]:
    """Return what the state expects of Asterisk, by call or conference id.

    Expectations of channels and bridges that are `busy` are unsure: effects are just changing them.
    """
    found: dict[str, list[Expectation]] = {}
    for key, expectations in expectations_by_owner(engine):
        found[key] = [e.unsure() if busy(e.busy_key) else e for e in expectations]
        if len(found) % SCAN_BATCH == 0:
            await asyncio.sleep(0)
    return found


async def take_snapshot(
    ari: Client, before: Mapping[str, list[Expectation]], app: str, known: Container[str], *, patient: bool = True
) -> AsteriskSnapshot:
    """Return a snapshot of Asterisk, with the playbacks and recordings that `before` expects.

    `known`: the channels of existing calls. `patient`: ask until Asterisk answers, since it may still be starting;
    otherwise raise AriError.
    """
    expected_there = [e.id for expectations in before.values() for e in expectations if e.kind == "channel"]
    (channels, undescribed), bridges = await asyncio.gather(
        _list_channels(ari, app, expected_there, patient=patient), _list_all(ari, "/bridges", patient=patient)
    )
    requested = [e for expectations in before.values() for e in expectations if e.kind in ("playback", "recording")]
    existing = await _find_existing(ari, requested)
    # It does not matter what Asterisk can't describe of a call: its channel exists.
    answered: dict[str, bool] = dict.fromkeys(undescribed, True)
    arrived: list[dict[str, Any]] = []
    ringing: set[str] = set()
    async for raw, channel in _decode_each(channels, Channel):
        answered[channel.id] = channel.state == "Up"
        if channel.state == "Ringing":
            ringing.add(channel.id)
        if channel.id not in known and is_call_of(app, channel):
            arrived.append(msgspec.json.decode(raw))
    seen = [bridge async for _, bridge in _decode_each(bridges, Bridge)]
    state = AsteriskState(
        channels=answered,
        bridges={bridge.id: frozenset(bridge.channels) for bridge in seen},
        playbacks=frozenset(id for kind, id in existing if kind == "playback"),
        recordings=frozenset(id for kind, id in existing if kind == "recording"),
        ringing=frozenset(ringing),
    )
    bridges_with_name = frozenset(bridge.id for bridge in seen if bridge.name == BRIDGE_NAME)
    return AsteriskSnapshot(state, arrived, bridges_with_name, frozenset(id for id in undescribed if id not in known))


async def _list_channels(
    ari: Client, app: str, expected_there: Iterable[str], *, patient: bool
) -> tuple[list[msgspec.Raw], list[str]]:
    """Return all channels, and the ids of those that Asterisk can't describe."""
    while True:
        try:
            return await _list_all(ari, "/channels", patient=False), []
        except AriUnreachable as error:
            if not patient:
                raise
            log.info("asterisk not ready", path="/channels", reason=str(error))
        except AriError as error:
            if (fallback := await list_despite_spoiled(ari, app, error, expected_there)) is not None:
                return fallback
            if not patient:
                raise
            log.info("asterisk not ready", path="/channels", reason=str(error))
        await asyncio.sleep(RETRY_DELAY_S)


async def list_despite_spoiled(
    ari: Client, app: str, error: AriError, expected_there: Iterable[str] = ()
) -> tuple[list[msgspec.Raw], list[str]] | None:
    """Return the result of `request_each_channel` if `error` means that a channel has spoiled the list, otherwise None.

    A channel does so if its number, name or Call-ID is no UTF-8: Asterisk answers 500, "Allocation failed" (seen on
    22.10.1). The Stasis application's channels and the expected ones are then requested.
    """
    if error.status != 500 or (own := await list_application(ari, app)) is None:
        return None
    log.warning("channel list not returned", reason=str(error), action="requesting each channel")
    return await request_each_channel(ari, {*own.channel_ids, *expected_there})


class ApplicationContent(msgspec.Struct):
    """Channels and bridges that a Stasis application has."""

    channel_ids: list[str] = []
    bridge_ids: list[str] = []


async def list_application(ari: Client, app: str) -> ApplicationContent | None:
    """Return what the Stasis application has, or None if Asterisk does not return it."""
    found: ApplicationContent | None = None
    with suppress(AriError):
        found = await ari.request("GET", f"/applications/{quote(app, safe='')}", kind=ApplicationContent)
    return found


async def request_each_channel(ari: Client, ids: Iterable[str]) -> tuple[list[msgspec.Raw], list[str]]:
    """Return the channels that exist, and the ids of those that Asterisk can't describe. Raises AriUnreachable."""
    found: list[msgspec.Raw] = []
    undescribed: list[str] = []

    async def request(id: str) -> None:
        try:
            raw = await ari.request("GET", f"/channels/{quote(id, safe='')}", kind=msgspec.Raw)
        except AriNotFound:
            return
        except AriUnreachable:
            raise
        except AriError:
            raw = None
        if raw:
            found.append(raw)
        else:
            undescribed.append(id)

    await for_each(ids, request, MAX_CONCURRENT_REQUESTS)
    return found, undescribed


async def _decode_each(raws: list[msgspec.Raw], kind: type[T]) -> AsyncIterator[tuple[msgspec.Raw, T]]:
    decoder = msgspec.json.Decoder(kind)
    for n, raw in enumerate(raws):
        if n % SCAN_BATCH == 0:
            await asyncio.sleep(0)
        yield raw, decoder.decode(raw)


async def list_own_bridges(ari: Client, app: str, bridges_with_name: frozenset[str]) -> frozenset[str]:
    """Return the bridges that this server made: those of `bridges_with_name` that belong to the Stasis application."""
    own = await list_application(ari, app)
    return bridges_with_name & set(own.bridge_ids) if own is not None else frozenset()


def is_call_of(app: str, channel: Channel) -> bool:
    """Return True if the channel is a call of the Stasis application."""
    if ids.is_placed(channel.id):
        return False
    if channel.name.startswith(NON_CALL_PREFIXES) or channel.dialplan.app_name != "Stasis":
        return False
    return _arguments(channel.dialplan.app_data)[0] == app


def _arguments(app_data: str) -> list[str]:
    return next(csv.reader([app_data]), [""])


def synthetic_stasis_starts(channels: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return StasisStart as Asterisk would have sent it, for calls that arrived while no server received events."""
    return [
        {"type": "StasisStart", "args": _arguments(channel["dialplan"]["app_data"])[1:], "channel": dict(channel)}
        for channel in channels
    ]


class StateLoader:
    """State loader: reads the previous process's state in parts, so that a large state does not delay other tasks."""

    def __init__(self) -> None:
        self._things: dict[str, Call | Conference] = {}
        self._next_member_id = b"1"
        self._pool: ValuePool = {}
        self.unreadable: dict[str, bytes] = {}
        """Records that are left out, by id: another version wrote them, or they are damaged."""

    def read(self, state: Iterable[tuple[str, bytes]]) -> None:
        """Read a part of the state; each of its calls and conferences is restored completely or left out."""
        for key, written in state:
            if key == NEXT_MEMBER_ID:
                self._next_member_id = written
                continue
            try:
                thing = decode(written, self._pool)
                if key != (thing.call_uuid if isinstance(thing, Call) else thing.conference_id):
                    raise ValueError("stored under another ID")
                self._things[key] = thing
                self.unreadable.pop(key, None)
            except (TypeError, ValueError, RecursionError) as error:
                if key not in self._things and key not in self.unreadable:
                    self.unreadable[key] = written
                    reason, action = repr(error)[:300], "ending its call or conference"
                    log.error("state record unreadable", id=key, reason=reason, action=action)

    def found(self) -> tuple[list[Call], list[Conference], int]:
        """Return calls, conferences, and the next member id."""
        calls = [thing for thing in self._things.values() if isinstance(thing, Call)]
        conferences = [thing for thing in self._things.values() if isinstance(thing, Conference)]
        highest = max((id for conference in conferences for id in conference.members), default=0)
        written = self._next_member_id
        return calls, conferences, max(int(written) if written.isdigit() and len(written) < 19 else 1, highest + 1)


class ArrivalGate:
    """Arrival gate: holds back calls that arrive while the state is being reconciled with Asterisk.

    The conference that they ask for may have died with Asterisk, and its end is about to be reported.
    """

    def __init__(self, deliver: Callable[[Event], None]) -> None:
        self._deliver = deliver
        self._reconciliations = 0
        self._waiting: dict[str, CallArrived] = {}

    @property
    def is_closed(self) -> bool:
        return self._reconciliations > 0

    def start(self) -> None:
        """Hold back new calls until `stop`; start and stop nest, since reconciliations may overlap."""
        self._reconciliations += 1

    def stop(self) -> None:
        self._reconciliations -= 1
        if not self._reconciliations:
            waiting, self._waiting = self._waiting, {}
            for event in waiting.values():
                self._deliver(event)

    def submit(self, event: Event) -> None:
        if isinstance(event, CallArrived) and self._reconciliations:
            # A call may arrive twice: by Asterisk's event, and as a channel of the snapshot.
            self._waiting.setdefault(event.channel_id, event)
            return
        if isinstance(event, ChannelHungUp):
            self._waiting.pop(event.channel_id, None)
        self._deliver(event)


def load(state: Mapping[str, bytes]) -> tuple[list[Call], list[Conference], int]:
    """Return calls, conferences, and the next member id of a whole state."""
    found = StateLoader()
    found.read(state.items())
    return found.found()


async def restore(store: StateStore, restoration: Restoration) -> dict[str, bytes]:
    """Restore the previous process's state, and return what can't be read: id -> text.

    Call `restoration.finish` afterwards.
    """
    while True:
        found = StateLoader()
        try:
            calls, conferences, next_member_id = await load_in_batches(store.load_batches(), found)
            break
        except StoreUnavailable as error:
            # Without the state, the server would treat existing calls as new ones.
            log.error("redis unavailable at startup", reason=str(error), waiting_for="state")
            await asyncio.sleep(REDIS_RETRY_DELAY_S)
    for first in range(0, max(len(calls), len(conferences)), RESTORE_BATCH):
        part = slice(first, first + RESTORE_BATCH)
        restoration.add(calls[part], conferences[part], next_member_id)
        await asyncio.sleep(0)
    if calls or conferences:
        log.info("state restored", calls=len(calls), conferences=len(conferences))
    return found.unreadable


async def load_in_batches(
    state: AsyncIterable[Mapping[str, bytes]], found: StateLoader | None = None
) -> tuple[list[Call], list[Conference], int]:
    """Return the same as `load`, but let other tasks run in between, such as the renewal of the lease."""
    found = found or StateLoader()
    with without_garbage_collection():
        async for mapping in state:
            items = iter(mapping.items())
            while part := list(islice(items, READ_BATCH)):
                found.read(part)
                await asyncio.sleep(0)
        return found.found()


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Load a large state: none of it is garbage, and looking for garbage again and again would take a third of the
    time. Little of it will become garbage later, so it is frozen out of future collections."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.freeze()


async def _list_all(ari: Client, path: str, *, patient: bool) -> list[msgspec.Raw]:
    while True:
        try:
            found: list[msgspec.Raw] | None = await ari.request("GET", path, kind=list[msgspec.Raw])
            if found is not None:
                return found
            raise AriError(f"Asterisk's response to GET {path} is not valid: expected a list")
        except AriError as error:
            if not patient:
                raise
            # Asterisk accepts connections before it has started completely.
            log.info("asterisk not ready", path=path, reason=str(error))
            await asyncio.sleep(RETRY_DELAY_S)


async def _find_existing(ari: Client, requested: Iterable[Expectation]) -> set[tuple[str, str]]:
    """Return (kind, id) of those that Asterisk still has, or about which it does not answer."""
    existing: set[tuple[str, str]] = set()

    async def check(one: Expectation) -> None:
        if await _exists(ari, _path(one)):
            existing.add((one.kind, one.id))

    await for_each(requested, check, MAX_CONCURRENT_REQUESTS)
    return existing


async def _exists(ari: Client, path: str) -> bool:
    for left in reversed(range(EXISTS_ATTEMPTS)):
        try:
            await ari.request("GET", path)
            break
        except AriNotFound:
            return False
        except AriError as error:
            if not left:
                action = "assuming that it exists until the next reconciliation"
                log.warning("existence not confirmed", path=path, reason=str(error), action=action)
                break
        await asyncio.sleep(RETRY_DELAY_S)
    return True


def _path(one: Expectation) -> str:
    if one.kind == "playback":
        return f"/playbacks/{quote(one.id, safe='')}"
    name = ids.recording_name(one.bridge_id, one.auth_id, one.id)
    return f"/recordings/live/{quote(str(name), safe='')}"

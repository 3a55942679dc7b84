"""Live state: what other processes may know of the calls and conferences that servers own.

Records are decoded from a part of the persisted fields. Only this module knows which these are, so that a persisted
field can be renamed without a change elsewhere. The other fields are skipped, such as a call's document, which may be
long. A record without these fields, or with other types, is from another version: it is logged and left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeVar

import msgspec
import structlog

from ari_conf.core.calls.call_state import CallState
from ari_conf.core.conferences.member_state import MemberState
from ari_conf.core.recording import RecordingState
from ari_conf.ownership.lease import lease_key
from ari_conf.store import members as member_fields
from ari_conf.store.state_codec import is_conference
from ari_conf.store.state_store import state_key

log = structlog.get_logger()

T = TypeVar("T", bound=msgspec.Struct)
Presence = Literal["waiting", "in", "held"]
"""waiting: for the start of the conference. in: in the mix, or about to be. held: on hold, or on the way there."""
PRESENCES: dict[MemberState, Presence | None] = {
    MemberState.AWAITING_NAME: None,
    MemberState.WAITING: "waiting",
    MemberState.AWAITING_BRIDGE: "in",
    MemberState.ENTERING_BRIDGE: "in",
    MemberState.IN_BRIDGE: "in",
    MemberState.LEAVING_FOR_HOLD: "held",
    MemberState.ON_HOLD: "held",
    MemberState.LEAVING: None,
    MemberState.LEFT: None,
}
"""State of a member -> their presence; None: not admitted yet, or leaving."""
Progress = Literal["queued", "calling", "ringing", "answered", "confirming"]
"""Progress of a placed call. ringing: early media included. confirming: answered, and the key is asked for."""
PROGRESS: dict[CallState, Progress] = {
    CallState.QUEUED: "queued",
    CallState.DIALING: "calling",
    CallState.RINGING: "ringing",
    CallState.EARLY: "ringing",
    CallState.CONFIRMING: "confirming",
}
"""State of a live call -> its progress; the other states are "answered"."""
ACTIVE_RECORDING = (RecordingState.REQUESTED, RecordingState.RUNNING)
SCAN_BATCH = 1000
CALLS_AT_ONCE = 20
"""Calls read from Redis in one request: a call is stored with its document, which may have 100 KB."""


class LineFigures(msgspec.Struct, frozen=True):
    """Figures of a member's line. None: unknown. Percent, milliseconds."""

    mos: float
    loss_in: float | None = None
    loss_out: float | None = None
    jitter_in_ms: float | None = None
    jitter_out_ms: float | None = None
    round_trip_ms: float | None = None


class LineRecord(msgspec.Struct, frozen=True):
    current: LineFigures
    worst: LineFigures
    average: LineFigures
    measured_s: float = msgspec.field(name="seconds")
    is_bad: bool = msgspec.field(name="bad", default=False)


class MemberRecord(msgspec.Struct, frozen=True):
    member_id: int
    call_uuid: str
    joined_ms: int = msgspec.field(name="joined_at")
    """Epoch milliseconds."""
    muted: bool
    deaf: bool
    held: bool = msgspec.field(name="hold_requested")
    """True while the API keeps the member on hold; until the conference starts, they wait all the same."""
    is_talking: bool = msgspec.field(name="talking")
    state: MemberState
    line: LineRecord | None = msgspec.field(name="quality", default=None)
    """None: the line has not been measured yet."""

    @property
    def presence(self) -> Presence | None:
        return PRESENCES[self.state]

    @property
    def is_heard(self) -> bool:
        """Return True if the other members hear what this one says."""
        return self.state is MemberState.IN_BRIDGE and not self.muted


class RecordingRecord(msgspec.Struct, frozen=True):
    recording_id: str
    state: RecordingState
    started_ms: int | None = msgspec.field(name="started_at")


class ConferenceRecord(msgspec.Struct, frozen=True):
    conference_uuid: str = msgspec.field(name="conference_id")
    auth_id: str
    name: str
    created_ms: int = msgspec.field(name="created_at")
    started: bool
    locked: bool
    is_ending: bool = msgspec.field(name="ending")
    floor_holder: int | None = msgspec.field(name="floor")
    """Member id."""
    recordings: dict[str, RecordingRecord]
    members: dict[str, MemberRecord]

    @property
    def present_members(self) -> list[MemberRecord]:
        """Return the members who are in the conference; none if it is ending."""
        return [] if self.is_ending else [m for m in self.members.values() if m.presence is not None]

    @property
    def active_recording(self) -> RecordingRecord | None:
        """Return the recording that runs or is about to."""
        return next((r for r in self.recordings.values() if r.state in ACTIVE_RECORDING), None)


class CallRecord(msgspec.Struct, frozen=True):
    from_number: str = msgspec.field(name="from_")
    to_number: str = msgspec.field(name="to")
    caller_name: str
    direction: str


class LiveCallRecord(msgspec.Struct, frozen=True):
    """A call as the API shows it while it is live."""

    call_uuid: str
    request_uuid: str
    auth_id: str
    direction: str
    caller_name: str
    from_number: str = msgspec.field(name="from_")
    to_number: str = msgspec.field(name="to")
    started_ms: int = msgspec.field(name="started_at")
    """Epoch milliseconds."""
    state: CallState
    answered_ms: int | None = msgspec.field(name="answered_at", default=None)

    @property
    def is_over(self) -> bool:
        """Return True if the call has ended, or is being hung up."""
        return self.state in (CallState.HANGING_UP, CallState.ENDED)

    @property
    def is_queued(self) -> bool:
        return self.state is CallState.QUEUED

    @property
    def progress(self) -> Progress:
        return PROGRESS.get(self.state, "answered")

    @property
    def status(self) -> str:
        """Return the call_status of Plivo's API."""
        if self.is_queued:
            return "queued"
        return "ringing" if self.answered_ms is None else "in-progress"


class _ConferenceElementRecord(msgspec.Struct, frozen=True):
    name: str
    dialed_by: str = ""


class _CallOptionsRecord(msgspec.Struct, frozen=True):
    conference: _ConferenceElementRecord | None = None


class _OutgoingRecord(msgspec.Struct, frozen=True):
    options: _CallOptionsRecord


class PlacedCallRecord(LiveCallRecord, frozen=True):
    """A live call, with what a placed one is for."""

    outgoing: _OutgoingRecord | None = None
    """None: the call has arrived."""

    @property
    def conference_name(self) -> str | None:
        """Return the name of the conference that the call is on its way into; None if it is on the way into none."""
        if self.outgoing is None or self.state not in PROGRESS:
            return None
        conference = self.outgoing.options.conference
        # The conference of a Dial is its legs' alone.
        return None if conference is None or conference.dialed_by else conference.name


async def read_conferences(redis: Any, asterisk: str, conference_ids: Sequence[str]) -> list[ConferenceRecord]:
    """Return those of an Asterisk's conferences that exist, each with its members at one moment."""
    texts = await member_fields.read_consistent(redis, state_key(asterisk), conference_ids)
    return [record for text in texts if (record := decode(text, ConferenceRecord)) is not None]


async def read_calls(redis: Any, asterisk: str, call_uuids: Sequence[str]) -> dict[str, CallRecord]:
    """Return those of an Asterisk's calls that exist, by call UUID."""
    found: dict[str, CallRecord] = {}
    for first in range(0, len(call_uuids), CALLS_AT_ONCE):
        some = call_uuids[first : first + CALLS_AT_ONCE]
        texts = await redis.hmget(state_key(asterisk), some)
        for call_uuid, text in zip(some, texts, strict=True):
            if (record := decode(text, CallRecord)) is not None:
                found[call_uuid] = record
    return found


async def read_placed_calls(redis: Any, asterisk: str, call_uuids: Sequence[str]) -> dict[str, PlacedCallRecord | None]:
    """Return those of an Asterisk's calls that exist, by call UUID. None: the record can't be read."""
    found: dict[str, PlacedCallRecord | None] = {}
    for first in range(0, len(call_uuids), CALLS_AT_ONCE):
        some = call_uuids[first : first + CALLS_AT_ONCE]
        for call_uuid, text in zip(some, await redis.hmget(state_key(asterisk), some), strict=True):
            if text is not None:
                found[call_uuid] = decode(text, PlacedCallRecord)
    return found


class _OwnedRecord(msgspec.Struct, frozen=True):
    auth_id: str


class LiveCount(NamedTuple):
    """Live calls and conferences of one account on one Asterisk."""

    asterisk: str
    calls: int
    conferences: int


def count_live(redis: Any, auth_id: str, lost_ms: int) -> list[LiveCount]:
    """Return where an account has live calls or conferences. Blocks.

    An Asterisk whose owner has not renewed its lease for `lost_ms` milliseconds is left out: nothing is live there."""
    seconds, micros = redis.time()
    now_ms, found = seconds * 1000 + micros // 1000, list[LiveCount]()
    for key in redis.scan_iter(match=state_key("*"), count=SCAN_BATCH, _type="hash"):
        asterisk = key.decode(errors="replace").removeprefix(state_key(""))
        renewed_ms = redis.hget(lease_key(asterisk), "renewed_ms")
        if renewed_ms is not None and now_ms - int(renewed_ms) > lost_ms:
            continue
        calls = conferences = 0
        for _, text in redis.hscan_iter(key, count=CALLS_AT_ONCE):
            if auth_id.encode() in text and is_of(text, auth_id):
                is_of_conference = is_conference(text)
                conferences += is_of_conference
                calls += not is_of_conference
        if calls or conferences:
            found.append(LiveCount(asterisk, calls, conferences))
    return found


def is_of(text: bytes, auth_id: str) -> bool:
    try:
        return msgspec.json.decode(text, type=_OwnedRecord).auth_id == auth_id
    except (ValueError, RecursionError):
        return False


def decode(text: bytes | None, kind: type[T]) -> T | None:
    """Return the record, or None if `text` is None or can't be read: the others are still shown."""
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=kind)
    except (ValueError, RecursionError) as error:
        log.warning(
            "state record unreadable", of=kind.__name__.removesuffix("Record"), reason=str(error), action="not shown"
        )
        return None

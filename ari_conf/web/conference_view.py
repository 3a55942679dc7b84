"""Conference view: the one form in which the API, the event stream and the dashboard show a conference.

`to_api` returns Plivo's fields and those that ari_conf adds to them, `to_live` those of the event stream
(docs/reference/event-stream.md). Times are epoch milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from ari_conf.store.live_state import (
    CallRecord,
    ConferenceRecord,
    LineFigures,
    LineRecord,
    MemberRecord,
    Presence,
    RecordingRecord,
    read_calls,
    read_conferences,
)


@dataclass(frozen=True, slots=True)
class MemberView:
    member_id: str
    call_uuid: str
    from_: str
    """Number without a leading `+`, like `to`."""
    to: str
    caller_name: str
    direction: str
    joined_ms: int
    state: Presence
    muted: bool
    deaf: bool
    held: bool
    """True while the API keeps the member on hold. Before the start, `state` is still "waiting"."""
    talking: bool
    """True while the member talks and the others hear it."""
    floor: bool
    line: LineRecord | None
    """None: the line has not been measured yet."""

    @classmethod
    def of(cls, member: MemberRecord, call: CallRecord, *, floor: bool) -> MemberView:
        """Return the view of a present member."""
        assert member.presence is not None
        return cls(
            member_id=str(member.member_id),
            call_uuid=member.call_uuid,
            from_=call.from_number.removeprefix("+"),
            to=call.to_number.removeprefix("+"),
            caller_name=call.caller_name,
            direction=call.direction,
            joined_ms=member.joined_ms,
            state=member.presence,
            muted=member.muted,
            deaf=member.deaf,
            held=member.held,
            talking=member.is_talking and member.is_heard,
            floor=floor,
            line=member.line,
        )

    def to_api(self, now_ms: int) -> dict[str, Any]:
        return {
            "member_id": self.member_id,
            "muted": self.muted,
            "deaf": self.deaf,
            "held": self.held,
            "from": self.from_,
            "to": self.to,
            "caller_name": self.caller_name,
            "direction": self.direction,
            "call_uuid": self.call_uuid,
            "join_time": _seconds(now_ms - self.joined_ms),
            "quality": self.line and _quality(self.line),
        }

    def to_live(self) -> dict[str, Any]:
        return {
            "call_uuid": self.call_uuid,
            "from": self.from_,
            "to": self.to,
            "caller_name": self.caller_name,
            "direction": self.direction,
            "joined_ms": self.joined_ms,
            "state": self.state,
            "muted": self.muted,
            "deaf": self.deaf,
            "held": self.held,
            "talking": self.talking,
            "floor": self.floor,
            "quality": self.line and {"bad": self.line.is_bad, "current": _coarse(self.line.current)},
        }


@dataclass(frozen=True, slots=True)
class ConferenceView:
    conference_uuid: str
    conference_name: str
    started: bool
    locked: bool
    created_ms: int
    recording: RecordingRecord | None
    """The running recording, if there is one."""
    members: tuple[MemberView, ...]
    """Present members, without those whose call can't be read."""

    @classmethod
    def of(cls, conference: ConferenceRecord, calls: Mapping[str, CallRecord]) -> ConferenceView:
        return cls(
            conference_uuid=conference.conference_uuid,
            conference_name=conference.name,
            started=conference.started,
            locked=conference.locked,
            created_ms=conference.created_ms,
            recording=conference.active_recording,
            members=tuple(
                MemberView.of(member, calls[member.call_uuid], floor=conference.floor_holder == member.member_id)
                for member in conference.present_members
                if member.call_uuid in calls
            ),
        )

    def to_api(self, now_ms: int) -> dict[str, Any]:
        return {
            "conference_name": self.conference_name,
            "conference_run_time": _seconds(now_ms - self.created_ms),
            "conference_member_count": str(len(self.members)),
            "conference_uuid": self.conference_uuid,
            "started": self.started,
            "locked": self.locked,
            "members": [member.to_api(now_ms) for member in self.members],
        }

    def to_live(self) -> dict[str, Any]:
        recording = self.recording
        return {
            "conference_uuid": self.conference_uuid,
            "conference_name": self.conference_name,
            "started": self.started,
            "locked": self.locked,
            "created_ms": self.created_ms,
            "recording": recording and {"recording_id": recording.recording_id, "since_ms": recording.started_ms},
            "members": {member.member_id: member.to_live() for member in self.members},
        }


async def read_views(
    redis: Any, asterisk: str, auth_id: str, conference_ids: Sequence[str], calls: dict[str, CallRecord]
) -> list[ConferenceView]:
    """Return the views of those conferences that the account has on an Asterisk and that have present members.

    `calls`: the calls that are known already, by UUID; the others are read and added. What is shown of a call never
    changes.
    """
    found = await read_conferences(redis, asterisk, conference_ids)
    shown = [record for record in found if record.auth_id == auth_id and record.present_members]
    calls |= await read_calls(redis, asterisk, sorted(_call_uuids(shown) - calls.keys()))
    return [ConferenceView.of(record, calls) for record in shown]


def _call_uuids(conferences: Iterable[ConferenceRecord]) -> set[str]:
    return {member.call_uuid for conference in conferences for member in conference.present_members}


def _quality(line: LineRecord) -> dict[str, Any]:
    return {
        "bad": line.is_bad,
        "measured_s": round(line.measured_s),
        "current": _figures(line.current),
        "worst": _figures(line.worst),
        "average": _figures(line.average),
    }


def _figures(figures: LineFigures) -> dict[str, Any]:
    return {name: value and round(value, 1) for name, value in msgspec.structs.asdict(figures).items()}


def _coarse(figures: LineFigures) -> dict[str, Any]:
    """Return the figures without the small variations of a good line: each difference is sent to all viewers."""
    return {
        "mos": round(figures.mos, 1),
        "loss_in": _multiple(figures.loss_in, 1),
        "loss_out": _multiple(figures.loss_out, 1),
        "jitter_in_ms": _multiple(figures.jitter_in_ms, 10),
        "jitter_out_ms": _multiple(figures.jitter_out_ms, 10),
        "round_trip_ms": _multiple(figures.round_trip_ms, 10),
    }


def _multiple(value: float | None, unit: int) -> int | None:
    """Return the nearest multiple of `unit`."""
    return None if value is None else unit * round(value / unit)


def _seconds(ms: int) -> str:
    return str(max(0, ms // 1000))

"""Samples of what the history keeps."""

from __future__ import annotations

from typing import Any

import msgspec

from ari_conf.core.effects import ArchiveCall, ArchiveConference, ArchiveMember, ArchiveTalks
from ari_conf.core.quality import LineFigures, LineQuality
from ari_conf.history import entries
from ari_conf.history.entries import CallbackOutcome, ProblemFound, RecordingStored

T0 = 1_790_000_000_000
"""Epoch milliseconds at which everything begins."""


def call(number: int = 1, auth_id: str = "A", **more: Any) -> ArchiveCall:
    fields: dict[str, Any] = {
        "call_uuid": f"call{number}", "auth_id": auth_id, "request_uuid": f"call{number}", "direction": "inbound",
        "from_": "491511", "to": "100", "caller_name": "Ann", "initiated_ms": T0, "answered_ms": T0 + 1_500,
        "ended_ms": T0 + 61_000, "status": "completed", "hangup_cause": 16, "hangup_code": 4010,
        "hangup_source": "Answer XML",
    }  # fmt: skip
    return ArchiveCall(**(fields | more))


def conference(number: int = 1, auth_id: str = "A", **more: Any) -> ArchiveConference:
    fields: dict[str, Any] = {
        "conference_id": f"conf{number}", "auth_id": auth_id, "name": "standup", "created_ms": T0, "started": True,
        "ended_ms": T0 + 60_000, "end_reason": "host_left", "members": 2,
    }  # fmt: skip
    return ArchiveConference(**(fields | more))


def member(number: int = 1, conference_id: str = "conf1", auth_id: str = "A", **more: Any) -> ArchiveMember:
    fields: dict[str, Any] = {
        "conference_id": conference_id, "member_id": number, "auth_id": auth_id, "call_uuid": f"call{number}",
        "joined_ms": T0 + 1_000 * number, "left_ms": T0 + 50_000, "exit_reason": "hangup", "from_": "491511",
        "to": "100", "caller_name": "Ann", "talk_ms": 3_000,
        "talks": ((T0 + 2_000, T0 + 3_000), (T0 + 5_000, T0 + 7_000)),
        "quality": LineQuality(LineFigures(4.0), LineFigures(2.9), LineFigures(3.9, 1.5, 0.5, 8.0, 7.0, 40.0), 48.0),
    }  # fmt: skip
    return ArchiveMember(**(fields | more))


def talks(number: int = 1, conference_id: str = "conf1", auth_id: str = "A") -> ArchiveTalks:
    return ArchiveTalks(conference_id, number, auth_id, ((T0 + 1_000, T0 + 1_500),))


def callback(number: int = 1, auth_id: str = "A", outcome: str = "delivered", **more: Any) -> CallbackOutcome:
    document = msgspec.Raw(
        msgspec.json.encode({"auth_id": auth_id, "url": "http://x/", "method": "POST", "params": []})
    )
    fields: dict[str, Any] = {
        "callback_id": f"callback{number}", "auth_id": auth_id, "outcome": outcome, "created_ms": T0,
        "settled_ms": T0 + number, "attempts": 1, "conference_id": "conf1", "call_uuid": "call1",
        "event": "ConferenceEnter", "document": document,
    }  # fmt: skip
    return CallbackOutcome(**(fields | more))


def problem(number: int = 1, auth_id: str = "A", **more: Any) -> ProblemFound:
    fields = {"at_ms": T0 + number, "call_uuid": "call1", "kind": "document_invalid", "text": f"text {number}"} | more
    return ProblemFound(auth_id, msgspec.Raw(msgspec.json.encode(fields)))


def recording(number: int = 1, auth_id: str = "A", **more: Any) -> RecordingStored:
    fields: dict[str, Any] = {
        "recording_id": f"rec{number}", "auth_id": auth_id, "conference_id": "conf1", "conference_name": "standup",
        "call_uuid": "call1", "start_ms": T0 + number, "end_ms": T0 + 60_000,
        "numbers": (("491511", "100"), ("491512", "100")), "document": msgspec.Raw(b'{"transcript":""}'),
    }  # fmt: skip
    return RecordingStored(**(fields | more))


def everything(auth_id: str = "A") -> list[entries.Item]:
    """Return one of each kind."""
    return [
        call(auth_id=auth_id), conference(auth_id=auth_id), member(auth_id=auth_id), talks(auth_id=auth_id),
        callback(auth_id=auth_id), problem(auth_id=auth_id), recording(auth_id=auth_id),
    ]  # fmt: skip


def texts(*items: entries.Item) -> list[bytes]:
    """Return the items as entries of an inbox."""
    return [entries.encode(entries.Entry(T0, item, "pbx")) for item in items]

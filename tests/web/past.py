"""The past, for tests of the history: ended calls and conferences, as workers write them into the database."""

from __future__ import annotations

import json
import time
from typing import Any

from sqlalchemy import Table

from ari_conf.history import tables
from ari_conf.history.database import HistoryDatabase
from ari_conf.recordings.index import StoredRecording
from ari_conf.settings import Settings

NOW_MS = round(time.time() * 1000)
HOUR_MS = 3_600_000
CALL: dict[str, Any] = {
    "request_uuid": "",
    "asterisk": "fake",
    "direction": "inbound",
    "from_number": "14155550100",
    "to_number": "14155550199",
    "caller_name": "Ann",
    "initiated_ms": NOW_MS - 90_500,
    "answered_ms": NOW_MS - 80_500,
    "ended_ms": NOW_MS - 10_500,
    "duration_s": 80,
    "bill_duration_s": 70,
    "status": "completed",
    "hangup_cause": "NORMAL_CLEARING",
    "hangup_cause_name": "Normal Hangup",
    "hangup_cause_code": 4000,
    "hangup_source": "Caller",
    "parent_call_uuid": None,
}
MEMBERSHIP: dict[str, Any] = {
    "from_number": "14155550100",
    "to_number": "14155550199",
    "caller_name": "Ann",
    "exit_reason": "hangup",
    "talk_ms": None,
}


class Past:
    def __init__(self, settings: Settings) -> None:
        self.database = HistoryDatabase(settings)
        self.database.migrate()

    def _insert(self, table: Table, **values: Any) -> None:
        with self.database.write() as connection:
            connection.execute(table.insert().values(**values))

    def call(self, call_uuid: str, auth_id: str = "A", **values: Any) -> None:
        self._insert(tables.calls, **CALL | {"call_uuid": call_uuid, "auth_id": auth_id} | values)

    def conference(self, conference_id: str, auth_id: str = "A", **values: Any) -> None:
        given: dict[str, Any] = {
            "name": "standup",
            "asterisk": "fake",
            "created_ms": NOW_MS - HOUR_MS,
            "ended_ms": NOW_MS - HOUR_MS + 600_000,
            "started": True,
            "end_reason": "conference_ended",
            "members": 0,
        }
        self._insert(tables.conferences, conference_id=conference_id, auth_id=auth_id, **given | values)

    def member(
        self, conference_id: str, member_id: int, joined_s: float, left_s: float, auth_id: str = "A", **values: Any
    ) -> None:
        """Insert a membership. Times: seconds since the conference's usual start."""
        given: dict[str, Any] = {
            "call_uuid": f"call-{member_id}",
            "joined_ms": NOW_MS - HOUR_MS + round(joined_s * 1000),
            "left_ms": NOW_MS - HOUR_MS + round(left_s * 1000),
        }
        keys = {"conference_id": conference_id, "member_id": member_id, "auth_id": auth_id}
        self._insert(tables.memberships, **MEMBERSHIP | given | keys | values)

    def talk(self, conference_id: str, member_id: int, start_s: float, end_s: float, auth_id: str = "A") -> None:
        times = {"start_ms": NOW_MS - HOUR_MS + round(start_s * 1000), "end_ms": NOW_MS - HOUR_MS + round(end_s * 1000)}
        self._insert(tables.talks, conference_id=conference_id, member_id=member_id, auth_id=auth_id, **times)

    def recording(self, recording_id: str, conference_id: str, auth_id: str = "A", **values: Any) -> None:
        start_ms = NOW_MS - HOUR_MS + 60_000
        stored: dict[str, Any] = {
            "recording_id": recording_id,
            "auth_id": auth_id,
            "conference_id": conference_id,
            "conference_name": "standup",
            "call_uuid": "",
            "file_format": "mp3",
            "key": f"recordings/{auth_id}/2026/01/01/{recording_id}.mp3",
            "size": 1000,
            "duration_ms": 30_000,
            "start_ms": start_ms,
            "end_ms": start_ms + 30_000,
            "stored_ms": start_ms + 31_000,
            "record_url": f"http://127.0.0.1/{recording_id}.mp3",
            **values,
        }
        StoredRecording(**stored)
        kept = ("recording_id", "auth_id", "conference_id", "conference_name", "call_uuid", "start_ms", "end_ms")
        self._insert(tables.recordings, document=json.dumps(stored), **{name: stored[name] for name in kept})

    def callback(self, callback_id: str, conference_id: str, outcome: str, auth_id: str = "A") -> None:
        self._insert(
            tables.callbacks,
            callback_id=callback_id,
            auth_id=auth_id,
            conference_id=conference_id,
            call_uuid="",
            event="ConferenceEnter",
            outcome=outcome,
            created_ms=NOW_MS,
            settled_ms=NOW_MS,
            attempts=1,
            document=json.dumps({"url": "http://ann:secret@example.com/events", "method": "POST", "params": []}),
        )

    def problem(self, problem_id: str, call_uuid: str, auth_id: str = "A", **values: Any) -> None:
        given = {"at_ms": NOW_MS, "kind": "document_warning", "code": None, "text": f"problem {problem_id}"}
        self._insert(tables.problems, problem_id=problem_id, auth_id=auth_id, call_uuid=call_uuid, **given | values)

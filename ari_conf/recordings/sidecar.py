"""Sidecar: `{recording_id}.json` beside a recording in the bucket. The schema is recording.schema.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from ari_conf.recordings.bucket import FOLDER, Uploaded
from ari_conf.recordings.index import StoredRecording
from ari_conf.recordings.jobs import RecordingNotes, StoreJob

VERSION = 1


@cache
def schema() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(__file__).parent / "recording.schema.json").read_text())
    return found


def object_key(auth_id: str, recording_id: str, start_ms: int, extension: str) -> str:
    """Return recordings/{auth_id}/{yyyy}/{mm}/{dd}/{recording_id}.{mp3,wav}, with the UTC day of its start."""
    day = datetime.fromtimestamp(start_ms / 1000, UTC).strftime("%Y/%m/%d")
    return f"{FOLDER}{auth_id}/{day}/{recording_id}.{extension}"


def sidecar_key(recording: StoreJob | StoredRecording) -> str:
    return object_key(recording.auth_id, recording.recording_id, recording.start_ms, "json")


def metadata(job: StoreJob) -> dict[str, str]:
    """Return the metadata of the recording's object; `bucket` percent-encodes what is not ASCII."""
    what = {"call-uuid": job.call_uuid}
    if job.conference_id:
        what = {"conference-id": job.conference_id, "conference-name": job.conference_name}
    return {
        "account": job.auth_id,
        "recording-id": job.recording_id,
        **what,
        "start": _format_time(job.start_ms),
        "end": _format_time(job.end_ms),
        "start-ms": str(job.start_ms),
        "end-ms": str(job.end_ms),
    }


def build_sidecar(
    job: StoreJob, notes: RecordingNotes, uploaded: Uploaded, duration_ms: int, rate: int
) -> dict[str, Any]:
    key = object_key(job.auth_id, job.recording_id, job.start_ms, job.file_format)
    return {
        "version": VERSION,
        "recording_id": job.recording_id,
        "account": job.auth_id,
        "conference": {"id": job.conference_id, "name": job.conference_name} if job.conference_id else None,
        "call_uuid": job.call_uuid,
        "key": key,
        "format": job.file_format,
        "sample_rate": rate,
        **({"channels": len(job.tracks)} if job.tracks else {}),
        "size": uploaded.size,
        "sha256": uploaded.sha256,
        "duration_ms": duration_ms,
        "start_ms": job.start_ms,
        "end_ms": job.end_ms,
        "start": _format_time(job.start_ms),
        "end": _format_time(job.end_ms),
        "members": [dict(member) for member in notes.members],
        "talk": _speech_intervals(notes, job.start_ms, duration_ms),
        "transcript": {"state": "waiting"} if job.transcribe else None,
    }


def with_transcript(document: Mapping[str, Any], transcript: Mapping[str, Any]) -> dict[str, Any]:
    return {**document, "transcript": dict(transcript)}


def _speech_intervals(notes: RecordingNotes, start_ms: int, duration_ms: int) -> list[dict[str, int]]:
    """Return the speech intervals, cut to the recording, in milliseconds from its start."""
    found = []
    for member_id, began, ended in notes.talk:
        first, last = max(0, began - start_ms), min(duration_ms, ended - start_ms)
        if last > first:
            found.append({"member_id": member_id, "start_ms": first, "end_ms": last})
    return sorted(found, key=lambda one: one["start_ms"])


def _format_time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")

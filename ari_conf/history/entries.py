"""Entries of the history's inbox: what a worker is to write into the database, as JSON in Redis.

A release reads the entries of older ones: fields are only added, with defaults. Entries that can't be read are kept
(`queues.history_inbox`).
"""

from __future__ import annotations

from hashlib import blake2s

import msgspec

from ari_conf.core.effects import ArchiveCall, ArchiveConference, ArchiveMember, ArchiveTalks


class CallbackOutcome(msgspec.Struct, frozen=True, omit_defaults=True, tag=True, kw_only=True):
    """Callback that was delivered, or has become a dead letter."""

    callback_id: str
    auth_id: str
    outcome: str
    """delivered or dead."""
    created_ms: int
    settled_ms: int
    attempts: int
    conference_id: str = ""
    call_uuid: str = ""
    event: str = ""
    document: msgspec.Raw
    """JSON of the `outbox.CallbackEntry` with its attempts."""


class ProblemFound(msgspec.Struct, frozen=True, tag=True):
    auth_id: str
    problem: msgspec.Raw
    """JSON of the `store.problems.Problem`."""


class RecordingStored(msgspec.Struct, frozen=True, omit_defaults=True, tag=True, kw_only=True):
    """Recording that is in the bucket, or whose transcript has changed."""

    recording_id: str
    auth_id: str
    conference_id: str
    conference_name: str
    call_uuid: str
    start_ms: int
    end_ms: int
    numbers: tuple[tuple[str, str], ...] = ()
    """(from, to) of each member's call."""
    document: msgspec.Raw
    """JSON of the `recordings.index.StoredRecording`."""


class RecordingDeleted(msgspec.Struct, frozen=True, tag=True):
    recording_id: str
    auth_id: str


Item = (
    ArchiveCall
    | ArchiveMember
    | ArchiveTalks
    | ArchiveConference
    | CallbackOutcome
    | ProblemFound
    | RecordingStored
    | RecordingDeleted
)


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    at_ms: int
    """Epoch milliseconds at which it was added."""
    item: Item
    asterisk: str = ""
    """Name of the Asterisk that had the call or conference."""


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Entry).decode


def text_hash(*parts: str) -> str:
    """Return an id that is the same for the same parts."""
    return blake2s("\0".join(parts).encode(errors="replace"), digest_size=16).hexdigest()

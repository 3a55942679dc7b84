"""Outcomes of callbacks, as the history keeps them."""

from __future__ import annotations

from msgspec import Raw, structs

from ari_conf.history import entries
from ari_conf.queues import outbox
from ari_conf.queues.outbox import CallbackEntry

MAX_KEPT_LENGTH = 4000
"""Maximum characters of a parameter in the history."""


def history_entry(partition: str, entry: CallbackEntry, outcome: str, now_ms: int) -> bytes:
    """Return the callback's entry for the history. `outcome`: delivered or dead. It is the same callback if resent."""
    first = outbox.encode(structs.replace(entry, attempts=(), reason=None))
    params = dict(entry.params)
    item = entries.CallbackOutcome(
        callback_id=entries.text_hash(partition, first.decode()),
        auth_id=entry.auth_id,
        outcome=outcome,
        created_ms=entry.at_ms,
        settled_ms=now_ms,
        attempts=len(entry.attempts),
        conference_id=params.get("ConferenceUUID", ""),
        call_uuid=params.get("CallUUID", ""),
        event=params.get("Event") or params.get("ConferenceAction", ""),
        document=Raw(outbox.encode(_shortened(entry))),
    )
    return entries.encode(entries.Entry(now_ms, item))


def _shortened(entry: CallbackEntry) -> CallbackEntry:
    """Return the entry with long values, such as the transcription of an hour, cut off."""
    if all(len(value) <= MAX_KEPT_LENGTH for _, value in entry.params):
        return entry
    params = tuple((name, _cut(value)) for name, value in entry.params)
    return structs.replace(entry, params=params)


def _cut(value: str) -> str:
    return value if len(value) <= MAX_KEPT_LENGTH else value[: MAX_KEPT_LENGTH - 1] + "…"

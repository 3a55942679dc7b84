"""Ledger of placed calls: the commands by which the server writes what it knows of a call in the limits.

They are part of the step that changes the call, so that the call's slot lives and ends with the call in the store, also
if the server or a web process dies. Each command may run twice.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ari_conf.dialing import keys
from ari_conf.dialing.limits import KEPT_MS, SLACK_MS


class LedgerEntry(NamedTuple):
    """Placed call that lives."""

    auth_id: str
    call_uuid: str
    trunk: str
    """Trunk over which it is dialed now, or was answered."""
    ends_ms: int
    """Epoch milliseconds at which the server hangs it up at the latest: the ring timeout, or the time limit."""
    answered_ms: int | None = None
    """Epoch milliseconds of its answer."""


def write(pipe: Any, entry: LedgerEntry, previous: LedgerEntry | None = None) -> None:
    """Add the commands that make the call's slot what the entry says. `previous`: what was written before, if known."""
    calls, trunk = keys.calls_key(entry.auth_id), keys.trunk_key(entry.trunk)
    expires_ms = entry.ends_ms + SLACK_MS
    if previous is not None and previous.trunk != entry.trunk:
        pipe.zrem(keys.trunk_key(previous.trunk), entry.call_uuid)
    for key in (calls, trunk):
        pipe.zadd(key, {entry.call_uuid: expires_ms})
        pipe.pexpire(key, KEPT_MS)
    if entry.answered_ms is not None:
        answered = keys.answered_key(entry.auth_id)
        pipe.hset(answered, entry.call_uuid, entry.answered_ms)
        pipe.pexpire(answered, KEPT_MS)


def end(pipe: Any, entry: LedgerEntry, ended_ms: int) -> None:
    """Add the commands that free the call's slot, and charge the time since its answer."""
    pipe.zrem(keys.calls_key(entry.auth_id), entry.call_uuid)
    pipe.zrem(keys.trunk_key(entry.trunk), entry.call_uuid)
    pipe.hdel(keys.answered_key(entry.auth_id), entry.call_uuid)
    if entry.answered_ms is not None:
        ended = keys.ended_key(entry.auth_id)
        pipe.hset(ended, entry.call_uuid, f"{entry.answered_ms} {ended_ms}")
        pipe.pexpire(ended, KEPT_MS)

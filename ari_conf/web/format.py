"""Formats that several responses have in common."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from ari_conf.queues.outbox import CallbackEntry


def attempts_json(entry: CallbackEntry) -> list[dict[str, Any]]:
    return [{"time": format_time(t.at_ms), "status": t.status, "error": t.error, "ms": t.ms} for t in entry.attempts]


def format_time(at_ms: int) -> str:
    """Return epoch ms in ISO 8601 format, in UTC."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")

"""Audit log of the changes of accounts: time, administrator, way, account and fields. A Redis stream keeps the newest
entries.

An entry is added in the transaction that makes the change, so that none lacks. It has no secrets: neither tokens nor
the logins and queries of URLs. The same entry goes to the log of the process; for a command, that is syslog.
"""

from __future__ import annotations

import getpass
import os
import socket
import syslog
from collections.abc import Mapping
from typing import Any, Literal, cast

import msgspec
import structlog
from redis import Redis

from ari_conf.common.redis_keys import PREFIX
from ari_conf.http_client.prepared_request import without_query

log = structlog.get_logger()

KEY = PREFIX + "audit"
MAX_ENTRIES = 10_000
MAX_VALUE_LENGTH = 300
"""Maximum characters of a value in an entry."""
Via = Literal["api", "page", "cli", "worker"]


class Actor(msgspec.Struct, frozen=True):
    """Administrator who makes a change, or the worker that continues one."""

    name: str
    """Name of the administrator's key, or user and machine of the command."""
    via: Via


WORKER = Actor("ari_conf", "worker")


class AuditEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    at_ms: int
    """Epoch milliseconds, by Redis' clock."""
    who: str
    via: Via
    action: str
    auth_id: str
    details: dict[str, str] = {}
    """Changes: name -> "new value", or "old value → new value"."""


def command_user() -> Actor:
    """Return the user of this command; behind sudo, the user who called it."""
    name = os.environ.get("SUDO_USER") or os.environ.get("USER") or _user_name()
    return Actor(f"{name}@{socket.gethostname()}", "cli")


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def entry(redis: Redis, actor: Actor, action: str, auth_id: str, details: Mapping[str, str] = {}) -> AuditEntry:
    seconds, micros = redis.time()
    shown = {name: value[:MAX_VALUE_LENGTH] for name, value in details.items()}
    return AuditEntry(seconds * 1000 + micros // 1000, actor.name, actor.via, action, auth_id, shown)


def add(pipe: Any, entry: AuditEntry) -> None:
    """Add an entry; `pipe` is the transaction that makes the change."""
    pipe.xadd(KEY, {"entry": msgspec.json.encode(entry)}, maxlen=MAX_ENTRIES, approximate=True)


def write_log(entry: AuditEntry) -> None:
    """Write the entry to the log, after the change."""
    if entry.via == "cli":
        syslog.openlog("ari-conf", 0, syslog.LOG_AUTHPRIV)
        syslog.syslog(syslog.LOG_INFO, msgspec.json.encode(entry).decode())
        return
    log.info(
        "account administered",
        action=entry.action,
        auth_id=entry.auth_id,
        who=entry.who,
        via=entry.via,
        changed=", ".join(entry.details),
    )


def shown(value: object) -> str:
    """Return a value of an account for an entry: a URL without its login and query."""
    text = "" if value is None else str(value)
    return without_query(text) if "://" in text else text


def read(redis: Redis, auth_id: str | None = None, limit: int = 20, offset: int = 0) -> tuple[int, list[AuditEntry]]:
    """Return (number of entries, one page of them with the newest first); with `auth_id`, those about that account."""
    found = list[AuditEntry]()
    for _, fields in cast("list[tuple[bytes, dict[bytes, bytes]]]", redis.xrevrange(KEY)):
        try:
            one = msgspec.json.decode(fields[b"entry"], type=AuditEntry)
        except (KeyError, ValueError) as error:
            log.warning("audit entry unreadable", reason=str(error))
            continue
        if auth_id in (None, one.auth_id):
            found.append(one)
    return len(found), found[offset : offset + limit]

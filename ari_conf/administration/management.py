"""Management of accounts by administrators: the same for the API, the page and the commands.

An auth id that has data is not given out again: the new account could read it. Each change is in the audit log.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import msgspec
from redis import Redis

from ari_conf.administration import audit, remains
from ari_conf.administration.audit import Actor, AuditEntry
from ari_conf.errors import AccountConflict, AccountUnreadable
from ari_conf.store import accounts, removals
from ari_conf.store.accounts import DAY_MS, EDITABLE_FIELDS, AccountRecord
from ari_conf.store.removals import Removal

TOKEN = "auth_token"
"""Name of the token in the audit log, which never has its value."""


class AccountStatus(NamedTuple):
    """Account as administrators see it."""

    auth_id: str
    record: AccountRecord | None
    """None: the record can't be read, or the account is being removed."""
    removal: Removal | None


class _Audited:
    """Entry of the audit log that is added in the transaction of a change, and logged after it."""

    def __init__(self, redis: Redis, actor: Actor, action: str) -> None:
        self._redis, self._actor, self._action = redis, actor, action
        self._entry: AuditEntry | None = None

    def add(self, pipe: Any, before: AccountRecord | None, after: AccountRecord) -> None:
        self._entry = audit.entry(self._redis, self._actor, self._action, after.auth_id, _changes(before, after))
        audit.add(pipe, self._entry)

    def log(self) -> None:
        if self._entry is not None:
            audit.write_log(self._entry)


def create(
    redis: Redis,
    actor: Actor,
    auth_id: str | None,
    token: str | None,
    fields: Mapping[str, Any],
    *,
    with_its_data: bool = False,
) -> AccountRecord:
    """Create an account, with a generated auth id and token if None is given.

    `with_its_data`: also if data of a removed account with this auth id exists, which the new account can then read.
    Raises AccountError."""
    replaces = _replaceable(redis, auth_id, with_its_data) if auth_id else None
    audited, seconds = _Audited(redis, actor, "created"), redis.time()[0]
    record = accounts.add(redis, seconds * 1000, auth_id, token, replaces=replaces, also=audited.add, **fields)
    audited.log()
    return record


def import_exported(redis: Redis, actor: Actor, line: bytes, *, with_its_data: bool = False) -> AccountRecord:
    """Create an account from a line of an export, like `create`. Raises AccountError."""
    record = accounts.parse_exported(line)
    replaces = _replaceable(redis, record.auth_id, with_its_data)
    audited = _Audited(redis, actor, "imported")
    accounts.restore(redis, record, replaces=replaces, also=audited.add)
    audited.log()
    return record


def change(
    redis: Redis,
    actor: Actor,
    auth_id: str,
    fields: Mapping[str, Any],
    token: str | None = None,
    keep_ms: int = DAY_MS,
) -> AccountRecord:
    """Change fields of an account, and replace its token if one is given: `accounts.change`. Raises AccountError."""
    audited = _Audited(redis, actor, "changed" if token is None else "token rotated" if not fields else "changed")
    record = accounts.change(redis, auth_id, fields, token, keep_ms, also=audited.add)
    audited.log()
    return record


def get(redis: Redis, auth_id: str) -> AccountStatus | None:
    """Return an account, also one that is being removed; None if it does not exist."""
    (found,) = _statuses(redis, [auth_id])
    return found


def list_page(redis: Redis, search: str, limit: int, offset: int) -> tuple[int, list[AccountStatus]]:
    """Return (number of accounts, one page of them by auth id) whose auth id contains `search`, in any case."""
    keys = [cast("list[bytes]", redis.hkeys(key)) for key in (accounts.KEY, removals.KEY)]
    ids = sorted({auth_id.decode() for some in keys for auth_id in some if search.lower() in auth_id.decode().lower()})
    found = _statuses(redis, ids[offset : offset + limit])
    return len(ids), [one for one in found if one is not None]


def _statuses(redis: Redis, ids: list[str]) -> list[AccountStatus | None]:
    if not ids:
        return []
    pipe: Any = redis.pipeline(transaction=False)
    records, found_removals, time = pipe.hmget(accounts.KEY, ids).hmget(removals.KEY, ids).time().execute()
    return [
        _status(auth_id, record, removal, time[0] * 1000)
        for auth_id, record, removal in zip(ids, records, found_removals, strict=True)
    ]


def _status(auth_id: str, record: bytes | None, removal: bytes | None, now_ms: int) -> AccountStatus | None:
    if record is None and removal is None:
        return None
    try:
        if removal is not None:
            return AccountStatus(auth_id, None, removals.decode(auth_id, removal))
        return AccountStatus(auth_id, accounts.read(auth_id, cast(bytes, record)).current(now_ms), None)
    except AccountUnreadable:
        return AccountStatus(auth_id, None, None)


def _replaceable(redis: Redis, auth_id: str, with_its_data: bool) -> bytes | None:
    """Return the record of the removed account whose auth id may be given out again, None without one.

    Raises AccountError if the account is being removed, or if data of it exists."""
    accounts.check_auth_id(auth_id)
    found = cast("bytes | None", redis.hget(removals.KEY, auth_id))
    removal = removals.decode(auth_id, found) if found else None
    if removal is not None and removal.phase != "removed":
        raise AccountConflict(f"account {auth_id} is being removed: wait until that is done, or choose another Auth ID")
    if with_its_data or redis.hexists(accounts.KEY, auth_id):
        return found
    left = remains.stored(redis, auth_id)
    if removal is None:
        # Calls for an account that does not exist yet leave problems: they are the new account's own.
        left = msgspec.structs.replace(left, problems=0)
    if left.counted():
        raise AccountConflict(
            f"{left.described()} of a removed account {auth_id} still exist, and the new account could read them: "
            "choose another Auth ID, delete them (`ari-conf account remove --purge`, or purge=true in the API), or "
            "keep them for the new account (`--with-its-data`, or with_its_data=true) if it is the same one"
        )
    return found


def _changes(before: AccountRecord | None, after: AccountRecord) -> dict[str, str]:
    """Return what the audit log says about a change."""
    if before is None:
        default = AccountRecord(auth_id="", token="", created_ms=0)
        return {
            name: audit.shown(getattr(after, name))
            for name in EDITABLE_FIELDS
            if getattr(after, name) != getattr(default, name)
        }
    found = {
        name: f"{audit.shown(getattr(before, name)) or 'none'} → {audit.shown(getattr(after, name)) or 'none'}"
        for name in EDITABLE_FIELDS
        if getattr(before, name) != getattr(after, name)
    }
    return found | ({TOKEN: "replaced"} if before.token != after.token else {})

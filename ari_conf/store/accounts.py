"""Accounts: the customers that may have calls, the URLs of their documents, and the tokens that sign requests to them.

One Redis hash, auth id -> JSON. An account that is being removed is in another hash: see `store.removals`. The
functions block; the server reads accounts through `state_store`.

`Also` functions add commands to the transaction that changes an account, such as the entry of the audit log.
"""

from __future__ import annotations

import secrets
import string
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, cast

import msgspec
import structlog
from redis import Redis

from ari_conf.common.redis_keys import PREFIX
from ari_conf.core.account import MAX_MEMBERS, PLIVOS_MEMBERS, Account
from ari_conf.core.elements import InvalidValue, http_method, integer, one_of, spoken_language, url
from ari_conf.errors import AccountConflict, AccountError, AccountNotFound, AccountUnreadable

log = structlog.get_logger()

KEY = PREFIX + "accounts"
REMOVALS_KEY = PREFIX + "removals"
"""Key of the accounts that are being removed."""
LETTERS_AND_DIGITS = string.ascii_letters + string.digits
DAY_MS = 24 * 3600 * 1000
MAX_DAYS = 36_500
"""Maximum days for which an account's data is kept, a century."""
MAX_OLD_TOKENS = 10
"""Maximum old tokens of an account that still sign: each makes the signatures of every request longer."""


class OldToken(msgspec.Struct, frozen=True):
    token: str
    until_ms: int
    """Epoch milliseconds until which the token signs, by Redis' clock: clocks of machines may differ."""


class AccountRecord(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    auth_id: str
    token: str
    created_ms: int
    old_tokens: tuple[OldToken, ...] = ()
    """Earlier tokens that still sign, the newest first."""
    answer_url: str | None = None
    answer_method: str = "POST"
    fallback_url: str | None = None
    fallback_method: str = "POST"
    hangup_url: str | None = None
    hangup_method: str = "POST"
    max_members: int = PLIVOS_MEMBERS
    """Maximum and default of maxMembers in the account's conferences."""
    transcription_rate: str = "0"
    transcription_language: str = "en"
    """Language that is spoken in the recordings; auto: the transcription engine detects it."""
    recording_auth: str = "none"
    """basic: RecordUrl requires auth_id and token; none: the URL alone gives access to the recording."""
    recordings_days: int = 0
    """Days after its end for which a recording is kept; 0: until it is deleted."""
    history_days: int = 0
    """Days for which the history keeps what has ended, other than recordings; 0: until the account is purged."""
    removed: bool = False
    """True while the account is being removed: it signs the requests of its last calls, and may have no new ones."""

    def current(self, now_ms: int) -> AccountRecord:
        """Return the record without tokens that no longer sign; `now_ms` is Redis' clock."""
        if not self.old_tokens:
            return self
        return msgspec.structs.replace(self, old_tokens=tuple(t for t in self.old_tokens if t.until_ms > now_ms))

    def signing_tokens(self, now_ms: int = 0) -> list[str]:
        """Return the tokens that sign, the newest first; `now_ms` is Redis' clock, and not needed after `current`.

        Spec: "During a token's rotation several signatures stand in the header"."""
        return [self.token, *(old.token for old in self.old_tokens if old.until_ms > now_ms)]

    def account(self) -> Account:
        kept = {name: getattr(self, name) for name in Account.__struct_fields__}
        return Account(**kept)

    def __repr__(self) -> str:
        # Tokens never get into a log.
        return f"AccountRecord({self.auth_id})"


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(AccountRecord).decode

_KINDS = ("_url", "_method", "_members", "_rate", "_language", "_auth", "_days")
EDITABLE_FIELDS = tuple(name for name in AccountRecord.__struct_fields__ if name.endswith(_KINDS))


def new_auth_id() -> str:
    """Return a new auth id like Plivo's: MA and 18 uppercase letters or digits."""
    return "MA" + "".join(secrets.choice(string.ascii_uppercase + string.digits) for _ in range(18))


def new_token() -> str:
    """Return a new token like Plivo's: 40 letters and digits."""
    return "".join(secrets.choice(LETTERS_AND_DIGITS) for _ in range(40))


Also = Callable[[Any, AccountRecord | None, AccountRecord], None]
"""Function of (pipeline, record before the change, record after it)."""


def _nothing(pipe: Any, before: AccountRecord | None, after: AccountRecord) -> None:
    pass


def add(
    redis: Redis,
    now_ms: int,
    auth_id: str | None = None,
    token: str | None = None,
    *,
    replaces: bytes | None = None,
    also: Also = _nothing,
    **fields: Any,
) -> AccountRecord:
    """Add an account; `fields` are EDITABLE_FIELDS. Raises AccountError if it exists, or a value is not allowed.

    `replaces`: what REMOVALS_KEY has of a removed account with this auth id, which the new account replaces."""
    auth_id = new_auth_id() if auth_id is None else auth_id
    check_auth_id(auth_id)
    record = AccountRecord(auth_id=auth_id, token=_token(token), created_ms=now_ms, **_checked(fields))
    return _create(redis, record, replaces, also)


def parse_exported(line: bytes) -> AccountRecord:
    """Return the account that `encode` has written. Raises AccountError if it can't be read or has a wrong value."""
    try:
        record = decode(line)
    except (msgspec.MsgspecError, ValueError) as error:
        raise AccountError(f"not an exported account: {error}") from None
    check_auth_id(record.auth_id)
    for token in (record.token, *(old.token for old in record.old_tokens)):
        _token(token)
    fields = _checked({name: getattr(record, name) for name in EDITABLE_FIELDS})
    return msgspec.structs.replace(record, removed=False, **fields)


def restore(redis: Redis, record: AccountRecord, *, replaces: bytes | None = None, also: Also = _nothing) -> None:
    """Add an account that `parse_exported` has returned, like `add`."""
    _create(redis, record, replaces, also)


def _create(redis: Redis, record: AccountRecord, replaces: bytes | None, also: Also) -> AccountRecord:
    auth_id = record.auth_id

    def transaction(pipe: Any) -> Any:
        if pipe.hexists(KEY, auth_id):
            raise AccountConflict(
                f"account {auth_id} already exists, and was not changed: choose another Auth ID, or change the "
                "existing account"
            )
        if pipe.hget(REMOVALS_KEY, auth_id) != replaces:
            raise AccountConflict(
                f"account {auth_id} was removed, and what belonged to it still exists: choose another Auth ID"
            )
        pipe.multi()
        pipe.hset(KEY, auth_id, encode(record))
        pipe.hdel(REMOVALS_KEY, auth_id)
        also(pipe, None, record)
        return record

    watched = KEY, REMOVALS_KEY
    return cast(AccountRecord, redis.transaction(transaction, *watched, value_from_callable=True))


def get(redis: Redis, auth_id: str) -> AccountRecord | None:
    """Return an account with the tokens that sign now; None if it does not exist. Raises AccountUnreadable."""
    pipe: Any = redis.pipeline(transaction=False)
    found, time = pipe.hget(KEY, auth_id).time().execute()
    return read(auth_id, found).current(time[0] * 1000) if found else None


def read(auth_id: str, found: bytes) -> AccountRecord:
    """Decode an account's record. Raises AccountUnreadable."""
    try:
        return decode(found)
    except ValueError as error:
        raise AccountUnreadable(
            f"the record of account {auth_id} in Redis could not be read ({error}): remove the account with "
            "`ari-conf account remove`, then import an export of it, or add it again"
        ) from error


def ids(redis: Redis) -> list[str]:
    return [auth_id.decode() for auth_id in cast("list[bytes]", redis.hkeys(KEY))]


def list_all(redis: Redis) -> list[AccountRecord]:
    """Return all accounts, by auth id. An account that can't be read is logged and left out."""
    found = []
    for auth_id, record in cast("dict[bytes, bytes]", redis.hgetall(KEY)).items():
        try:
            found.append(decode(record))
        except ValueError as error:
            log.error("account record unreadable", auth_id=auth_id.decode(errors="replace"), reason=str(error))
    return sorted(found, key=lambda record: record.auth_id)


def change(
    redis: Redis,
    auth_id: str,
    fields: Mapping[str, Any],
    token: str | None = None,
    keep_ms: int = DAY_MS,
    now_ms: int | None = None,
    also: Also = _nothing,
) -> AccountRecord:
    """Change EDITABLE_FIELDS of an account, and replace its token if one is given.

    The old token also signs for `keep_ms` milliseconds more, so that receivers can change theirs in that time. `now_ms`
    is Redis' clock, which is asked if it is not given. Raises AccountError if the account does not exist, or a value is
    not allowed."""
    checked = _checked(fields)
    if token is not None:
        _token(token)
    now = int(redis.time()[0]) * 1000 if now_ms is None else now_ms

    def changed(record: AccountRecord) -> AccountRecord:
        record = msgspec.structs.replace(record, **checked)
        if token is None or record.token == token:
            return record
        old = OldToken(record.token, now + keep_ms), *record.current(now).old_tokens[: MAX_OLD_TOKENS - 1]
        return msgspec.structs.replace(record, token=token, old_tokens=old if keep_ms > 0 else ())

    def transaction(pipe: Any) -> Any:
        found = pipe.hget(KEY, auth_id)
        if not found:
            raise does_not_exist(auth_id)
        before = read(auth_id, found)
        after = changed(before)
        pipe.multi()
        pipe.hset(KEY, auth_id, encode(after))
        also(pipe, before, after)
        return after

    # redis-py repeats the transaction if another client changed an account in the meantime.
    return cast(AccountRecord, redis.transaction(transaction, KEY, value_from_callable=True))


def update(redis: Redis, auth_id: str, **fields: Any) -> AccountRecord:
    """Change EDITABLE_FIELDS of an account, like `change`."""
    return change(redis, auth_id, fields)


def rotate_token(
    redis: Redis, auth_id: str, now_ms: int | None = None, keep_ms: int = DAY_MS, token: str | None = None
) -> AccountRecord:
    """Replace an account's token by `token`, or by a new one, like `change`."""
    return change(redis, auth_id, {}, _token(token), keep_ms, now_ms)


def check_auth_id(auth_id: str) -> None:
    # An auth id is part of the dialplan's Stasis(), of URLs and of file names.
    if not (0 < len(auth_id) <= 40 and set(auth_id) <= set(LETTERS_AND_DIGITS)):
        raise AccountError(f"Auth ID {auth_id!r} is not allowed; expected 1 to 40 letters and digits")


def _token(given: str | None) -> str:
    """Return the given token, or a new one. Raises AccountError if the token is not allowed."""
    if given is not None and not (16 <= len(given) <= 100 and given.isascii() and given.isalnum()):
        raise AccountError("the token is not allowed; expected 16 to 100 letters and digits")
    return given or new_token()


def _checked(fields: Mapping[str, Any]) -> dict[str, Any]:
    checked: dict[str, Any] = {}
    for name, value in fields.items():
        if name not in EDITABLE_FIELDS:
            raise AccountError(f"{name}: accounts have no such field; expected one of {', '.join(EDITABLE_FIELDS)}")
        try:
            checked[name] = _PARSERS[name.rpartition("_")[2]](value)
        except InvalidValue as allowed:
            raise AccountError(f"{name}: {value!r} is not allowed; expected {allowed}") from None
    return checked


def _url(value: str | None) -> str | None:
    return url(value) if value else None


def _rate(value: str) -> str:
    try:
        rate = Decimal(value)
    except InvalidOperation:
        rate = Decimal(-1)
    if not rate.is_finite() or rate < 0:
        raise InvalidValue("the price of a minute, a decimal number such as 0.0095")
    return format(rate, "f")


_PARSERS: dict[str, Callable[[Any], Any]] = {
    "url": _url,
    "method": http_method,
    "members": lambda value: integer(1, MAX_MEMBERS)(str(value)),
    "rate": _rate,
    "language": spoken_language,
    "auth": one_of("none", "basic"),
    "days": lambda value: integer(0, MAX_DAYS)(str(value)),
}


def does_not_exist(auth_id: str) -> AccountNotFound:
    return AccountNotFound(f"account {auth_id} does not exist")

"""Accounts: who may bring calls, where their documents come from, and the tokens that sign what is sent to them.

One Redis hash, auth id -> JSON. The functions are for the commands and the workers, and block; the application reads
accounts through `store`.
"""

from __future__ import annotations

import secrets
import string
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any, cast

import msgspec
import structlog
from redis import Redis

from ari_conf.core.account import MOST_MEMBERS, PLIVOS_MEMBERS, Account
from ari_conf.core.elements import NotAllowed, http_method, one_of, spoken_language, url, whole
from ari_conf.errors import AccountRefused, AccountUnreadable
from ari_conf.lanes import PREFIX

log = structlog.get_logger()

KEY = PREFIX + "accounts"
LETTERS_AND_DIGITS = string.ascii_letters + string.digits
DAY_MS = 24 * 3600 * 1000
MOST_OLD_TOKENS = 10
"""Of an account, that sign as well: each makes the signatures of each request longer."""


class OldToken(msgspec.Struct, frozen=True):
    token: str
    until_ms: int
    """Epoch milliseconds until which it still signs, by Redis' clock: those of machines may differ."""


class AccountRecord(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    auth_id: str
    token: str
    created_ms: int
    old_tokens: tuple[OldToken, ...] = ()
    """The newest first."""
    answer_url: str | None = None
    answer_method: str = "POST"
    fallback_url: str | None = None
    fallback_method: str = "POST"
    hangup_url: str | None = None
    hangup_method: str = "POST"
    max_members: int = PLIVOS_MEMBERS
    """Of a conference: the most that maxMembers may be, and its default."""
    transcription_rate: str = "0"
    transcription_language: str = "en"
    """Of what is said in its recordings; auto: the engine listens which."""
    recording_auth: str = "none"
    """basic: RecordUrl asks for auth_id and token; none: whoever knows it may hear it."""

    def current(self, now_ms: int) -> AccountRecord:
        """Without tokens that sign no more; `now_ms` is Redis' clock."""
        if not self.old_tokens:
            return self
        return msgspec.structs.replace(self, old_tokens=tuple(t for t in self.old_tokens if t.until_ms > now_ms))

    def tokens(self, now_ms: int = 0) -> list[str]:
        """What signs, the newest first: "During a token's rotation several signatures stand in the header". `now_ms` is
        Redis' clock; it isn't needed for a record that is current."""
        return [self.token, *(old.token for old in self.old_tokens if old.until_ms > now_ms)]

    def account(self) -> Account:
        kept = {name: getattr(self, name) for name in Account.__slots__}
        return Account(**kept)

    def __repr__(self) -> str:
        # Tokens never get into a log.
        return f"AccountRecord({self.auth_id})"


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(AccountRecord).decode

_KINDS = ("_url", "_method", "_members", "_rate", "_language", "_auth")
SETTABLE = tuple(name for name in AccountRecord.__struct_fields__ if name.endswith(_KINDS))


def new_auth_id() -> str:
    """Like Plivo's: MA and 18 more."""
    return "MA" + "".join(secrets.choice(string.ascii_uppercase + string.digits) for _ in range(18))


def new_token() -> str:
    """40 letters and digits, like Plivo's."""
    return "".join(secrets.choice(LETTERS_AND_DIGITS) for _ in range(40))


def add(
    redis: Redis, now_ms: int, auth_id: str | None = None, token: str | None = None, **fields: Any
) -> AccountRecord:
    """A new account; `fields` are SETTABLE. Raises AccountRefused."""
    auth_id = new_auth_id() if auth_id is None else auth_id
    _checked_auth_id(auth_id)
    record = AccountRecord(auth_id=auth_id, token=_token(token), created_ms=now_ms, **_checked(fields))
    if not redis.hsetnx(KEY, auth_id, cast(str, encode(record))):
        raise AccountRefused(
            f"there is an account {auth_id} already: choose another auth id, or change it by `ari-conf account set`"
        )
    return record


def restore(redis: Redis, line: bytes) -> str:
    """An account as `encode` has written it, with its tokens; returns its auth id. Raises AccountRefused, also if there
    is one of that auth id."""
    try:
        record = decode(line)
    except (msgspec.MsgspecError, ValueError) as error:
        raise AccountRefused(f"this is no exported account: {error}") from None
    _checked_auth_id(record.auth_id)
    for token in (record.token, *(old.token for old in record.old_tokens)):
        _token(token)
    checked = msgspec.structs.replace(record, **_checked({name: getattr(record, name) for name in SETTABLE}))
    if not redis.hsetnx(KEY, record.auth_id, cast(str, encode(checked))):
        raise AccountRefused(f"there is an account {record.auth_id} already: it stays as it is")
    return record.auth_id


def get(redis: Redis, auth_id: str) -> AccountRecord | None:
    """As it is now."""
    pipe: Any = redis.pipeline(transaction=False)
    found, time = pipe.hget(KEY, auth_id).time().execute()
    return _read(auth_id, found).current(time[0] * 1000) if found else None


def _read(auth_id: str, found: bytes) -> AccountRecord:
    try:
        return decode(found)
    except ValueError as error:
        raise AccountUnreadable(
            f"what Redis has of the account {auth_id} can't be read ({error}): remove it with "
            "`ari-conf account remove`, then import an export of it, or add it again"
        ) from error


def ids(redis: Redis) -> list[str]:
    return [auth_id.decode() for auth_id in cast("list[bytes]", redis.hkeys(KEY))]


def list_all(redis: Redis) -> list[AccountRecord]:
    """By auth id. One that can't be read hides no other."""
    found = []
    for auth_id, record in cast("dict[bytes, bytes]", redis.hgetall(KEY)).items():
        try:
            found.append(decode(record))
        except ValueError as error:
            log.error("an account can't be read", auth_id=auth_id.decode(errors="replace"), reason=str(error))
    return sorted(found, key=lambda record: record.auth_id)


def remove(redis: Redis, auth_id: str) -> None:
    """Callbacks of its that still wait become dead letters. Raises AccountRefused if there is none."""
    if not redis.hdel(KEY, auth_id):
        raise _none(auth_id)


def update(redis: Redis, auth_id: str, **fields: Any) -> AccountRecord:
    """Changes SETTABLE fields. Raises AccountRefused."""
    checked = _checked(fields)
    return _change(redis, auth_id, lambda record: msgspec.structs.replace(record, **checked))


def rotate_token(
    redis: Redis, auth_id: str, now_ms: int | None = None, keep_ms: int = DAY_MS, token: str | None = None
) -> AccountRecord:
    """A new token, `token` if it is given; the one before also signs for `keep_ms` more, so that receivers can change
    theirs in that time. `now_ms`: Redis' clock, if not given. Raises AccountRefused."""
    new = _token(token)
    now = int(redis.time()[0]) * 1000 if now_ms is None else now_ms

    def rotated(record: AccountRecord) -> AccountRecord:
        if record.token == new:
            return record
        old = OldToken(record.token, now + keep_ms), *record.current(now).old_tokens[: MOST_OLD_TOKENS - 1]
        return msgspec.structs.replace(record, token=new, old_tokens=old if keep_ms > 0 else ())

    return _change(redis, auth_id, rotated)


def _checked_auth_id(auth_id: str) -> None:
    # It stands in the dialplan's Stasis(), in URLs and in file names.
    if not (0 < len(auth_id) <= 40 and set(auth_id) <= set(LETTERS_AND_DIGITS)):
        raise AccountRefused(f"auth id {auth_id!r}: only 1 to 40 letters and digits are allowed")


def _token(given: str | None) -> str:
    """A new one if none is given."""
    if given is not None and not (16 <= len(given) <= 100 and given.isascii() and given.isalnum()):
        raise AccountRefused("the token: 16 to 100 letters and digits are allowed")
    return given or new_token()


def _change(redis: Redis, auth_id: str, change: Callable[[AccountRecord], AccountRecord]) -> AccountRecord:
    def transaction(pipe: Any) -> Any:
        found = pipe.hget(KEY, auth_id)
        if not found:
            raise _none(auth_id)
        changed = change(_read(auth_id, found))
        pipe.multi()
        pipe.hset(KEY, auth_id, encode(changed))
        return changed

    # Asked again from the start if somebody changed an account meanwhile.
    return cast(AccountRecord, redis.transaction(transaction, KEY, value_from_callable=True))


def _checked(fields: dict[str, Any]) -> dict[str, Any]:
    checked: dict[str, Any] = {}
    for name, value in fields.items():
        if name not in SETTABLE:
            raise AccountRefused(f"{name}: an account has no such field; it has {', '.join(SETTABLE)}")
        try:
            checked[name] = _READ[name.rpartition("_")[2]](value)
        except NotAllowed as allowed:
            raise AccountRefused(f"{name}: {value!r} can't be; allowed is {allowed}") from None
    return checked


def _url(value: str | None) -> str | None:
    return url(value) if value else None


def _rate(value: str) -> str:
    try:
        rate = Decimal(value)
    except InvalidOperation:
        rate = Decimal(-1)
    if not rate.is_finite() or rate < 0:
        raise NotAllowed("the price of a minute, a decimal number such as 0.0095")
    return format(rate, "f")


_READ: dict[str, Callable[[Any], Any]] = {
    "url": _url,
    "method": http_method,
    "members": lambda value: whole(1, MOST_MEMBERS)(str(value)),
    "rate": _rate,
    "language": spoken_language,
    "auth": one_of("none", "basic"),
}


def _none(auth_id: str) -> AccountRefused:
    return AccountRefused(f"there is no account {auth_id}")

"""Who calls: HTTP Basic with auth_id and auth_token, or the cookie of a log-in; and how often they may."""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import Annotated, Any
from uuid import NAMESPACE_URL, uuid5

from fastapi import Depends, HTTPException, Path, Request
from fastapi.security import HTTPBasic, HTTPBasicCredentials

from ari_conf import accounts
from ari_conf.accounts import AccountRecord
from ari_conf.lanes import PREFIX
from ari_conf.web import logins
from ari_conf.web.errors import Refused, too_much
from ari_conf.web.parts import Parts, parts_of
from ari_conf.web.paths import ACCOUNT, decoded

FAILURES_KEPT_S = 60
IPV6_NETWORK = 64
"""Bits of an IPv6 address that count: the rest is whatever its owner wants."""
_COUNT = """
local count = redis.call('INCR', KEYS[1])
if count == 1 then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
return {count, redis.call('PTTL', KEYS[1])}
"""
"""How often in a window that begins with the first time, by Redis' clock, and what is left of it."""
NOBODY = secrets.token_hex(20)
"""What the token of an account that there isn't is compared with: so that it takes as long."""
WINDOW_S = 1


@dataclass(frozen=True, slots=True)
class Caller:
    """An account that may do what it asks for, and what answers it."""

    auth_id: str
    api_id: str
    parts: Parts


class _Credentials(HTTPBasic):
    """As FastAPI's, but what is malformed is a wrong one."""

    async def __call__(self, request: Request) -> HTTPBasicCredentials | None:  # type: ignore[override]
        try:
            return await super().__call__(request)
        except HTTPException:
            return HTTPBasicCredentials(username="", password="")


basic = _Credentials(
    auto_error=False, scheme_name="Basic", description="auth_id and auth_token, as `ari-conf account add` gave them."
)


async def caller(
    request: Request,
    auth_id: Annotated[str, Path(description="The account.", min_length=1)],
    credentials: Annotated[HTTPBasicCredentials | None, Depends(basic)],
) -> Caller:
    parts = parts_of(request)
    # A router's routes don't know what they were included under.
    request.scope["routes"].append(ACCOUNT + request.scope["route"].path.removeprefix(ACCOUNT))
    record = await _whose(parts, request, credentials)
    await not_too_often(parts, record.auth_id)
    if decoded(auth_id) != record.auth_id:
        # Whether there is such an account is not this one's to know.
        raise Refused(404, "not found")
    return Caller(record.auth_id, _api_id(request, record.auth_id), parts)


def _api_id(request: Request, auth_id: str) -> str:
    """With an Idempotency-Key always the same: so that the owner, too, knows what it has done already."""
    key = request.headers.get("idempotency-key") if request.method == "POST" else None
    if key is None:
        return str(request.scope["api_id"])
    return str(uuid5(NAMESPACE_URL, "\0".join((auth_id, request.scope["path"], key))))


Calling = Annotated[Caller, Depends(caller)]


def _unauthorized(request: Request, error: str) -> Refused:
    return Refused(401, error, None if _by_page(request) else {"WWW-Authenticate": 'Basic realm="ari_conf"'})


def _by_page(request: Request) -> bool:
    """A browser that is told of Basic asks for it itself, over the page, which would have sent to the log-in."""
    headers = request.headers
    return (
        headers.get(logins.ASKED_BY[0]) == logins.ASKED_BY[1]
        or headers.get("accept") == "text/event-stream"
        or headers.get("sec-fetch-mode", "navigate") != "navigate"
    )


async def holds(request: Request, caller: Caller) -> bool:
    """Whether who has called may still do so: his account may be gone, his token or log-in too. Raises Refused."""
    record = await _whose(caller.parts, request, await basic(request))
    return record.auth_id == caller.auth_id


async def _whose(parts: Parts, request: Request, credentials: HTTPBasicCredentials | None) -> AccountRecord:
    """By Basic, or else by the cookie of a log-in. Raises Refused: 401, 403, 429."""
    if credentials is not None:
        return await authenticate(parts, request, credentials.username, credentials.password)
    record = await logins.account(parts, request)
    if record is None:
        raise _unauthorized(request, "this needs HTTP Basic authentication with auth_id and auth_token")
    logins.check(request)
    return record


async def authenticate(parts: Parts, request: Request, auth_id: str, token: str) -> AccountRecord:
    """Raises Refused: 401, or 429 after repeated failures of this address with this account. The right token is always
    taken: an auth_id is no secret, so whoever shares the account's address could lock it out otherwise."""
    redis: Any = parts.redis
    found, now = await redis.pipeline(transaction=False).hget(accounts.KEY, auth_id).time().execute()
    record = accounts.decode(found) if found else None
    if record is not None and _is_right(record, token, now[0] * 1000):
        return record
    if record is None:
        _same(NOBODY, token)
    # Of accounts that there aren't all are counted as one: else each made-up one would be a key.
    await _count_failure(parts, address_of(request), auth_id if record else "-")
    raise _unauthorized(request, "auth_id or auth_token is wrong")


async def _count_failure(parts: Parts, address: str, auth_id: str) -> None:
    """Raises Refused 429."""
    failures = f"{PREFIX}auth-failures:{address}:{auth_id}"
    redis: Any = parts.redis
    count, left_ms = await redis.eval(_COUNT, 1, failures, FAILURES_KEPT_S * 1000)
    if count > parts.settings.auth_failures:
        wait = max(1, -(-left_ms // 1000))
        raise too_much(f"too many wrong tokens: try again in {wait} s", wait)


def address_of(request: Request) -> str:
    return network_of(request.client.host if request.client else "")


def network_of(host: str) -> str:
    """By what an address is counted; of IPv6 its network, in which one machine may have any number of addresses. What
    a proxy gives us that is no address counts as one."""
    try:
        address = ip_address(host)
    except ValueError:
        return "unknown"
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        # From its bytes: a scope's name, which may follow, is any text.
        return str(IPv6Network((address.packed, IPV6_NETWORK), strict=False))
    return str(address)


def _is_right(record: AccountRecord, token: str, now_ms: int) -> bool:
    """Each is compared, whichever is right: an old token holds as long as it signs."""
    return any([_same(kept, token) for kept in record.tokens(now_ms)])  # noqa: C419


def _same(kept: str, given: str) -> bool:
    return hmac.compare_digest(kept.encode(), given.encode(errors="replace"))


async def not_too_often(parts: Parts, auth_id: str) -> None:
    """Raises Refused 429."""
    limit = parts.settings.api_rate
    if not limit:
        return
    redis: Any = parts.redis
    count, _ = await redis.eval(_COUNT, 1, f"{PREFIX}api-rate:{auth_id}", WINDOW_S * 1000)
    if count > limit:
        raise too_much(f"more than {limit} requests in a second: try again", WINDOW_S)


async def once_in(parts: Parts, auth_id: str, what: str, seconds: int) -> None:
    """For what an account may do once in so long, whichever process is asked. Raises Refused 429."""
    redis: Any = parts.redis
    count, left_ms = await redis.eval(_COUNT, 1, f"{PREFIX}api-rate:{what}:{auth_id}", seconds * 1000)
    if count > 1:
        wait = max(1, -(-left_ms // 1000))
        raise too_much(f"this is done once in {seconds} s: try again in {wait} s", wait)

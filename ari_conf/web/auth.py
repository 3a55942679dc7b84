"""Authentication (HTTP Basic with auth_id and auth_token, or a session cookie) and rate limiting of API requests."""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import Annotated, Any
from uuid import NAMESPACE_URL, uuid5

from fastapi import Depends, HTTPException, Path, Request
from fastapi.security import HTTPBasic, HTTPBasicCredentials

from ari_conf.common import lua
from ari_conf.common.redis_keys import PREFIX
from ari_conf.store import accounts
from ari_conf.store.accounts import AccountRecord
from ari_conf.web import sessions
from ari_conf.web.errors import ApiError, too_much
from ari_conf.web.middleware import ACCOUNT, decode_path_part
from ari_conf.web.resources import Resources, resources_of

FAILURES_KEPT_S = 60
IPV6_NETWORK = 64
"""Prefix length, in bits, by which IPv6 addresses are counted: an owner may choose the rest freely."""
_COUNT_USE = lua.load("ari_conf.web.scripts.count_use")
DUMMY_TOKEN = secrets.token_hex(20)
"""Token to compare with if the account does not exist, so that the check takes as long as for an account that does."""
WINDOW_S = 1


@dataclass(frozen=True, slots=True)
class ApiClient:
    """API client: the authenticated account of a request, and the resources that serve the request."""

    api_id: str
    resources: Resources
    record: AccountRecord
    """The account, as it was when the request was authenticated."""

    @property
    def auth_id(self) -> str:
        return self.record.auth_id


class _LenientBasic(HTTPBasic):
    """FastAPI's HTTP Basic, except that malformed credentials count as wrong ones."""

    async def __call__(self, request: Request) -> HTTPBasicCredentials | None:  # type: ignore[override]
        try:
            return await super().__call__(request)
        except HTTPException:
            return HTTPBasicCredentials(username="", password="")


basic = _LenientBasic(
    auto_error=False, scheme_name="Basic", description="auth_id and auth_token, as printed by `ari-conf account add`."
)


async def current_client(
    request: Request,
    auth_id: Annotated[str, Path(description="The account.", min_length=1)],
    credentials: Annotated[HTTPBasicCredentials | None, Depends(basic)],
) -> ApiClient:
    resources = resources_of(request)
    # The path of a router's route lacks the prefix under which the router was included.
    request.scope["routes"].append(ACCOUNT + request.scope["route"].path.removeprefix(ACCOUNT))
    record = await _identify(resources, request, credentials)
    await not_too_often(resources, record.auth_id)
    if decode_path_part(auth_id) != record.auth_id:
        # An account must not learn whether another account exists.
        raise ApiError(404, "not found")
    return ApiClient(_api_id(request, record.auth_id), resources, record)


def _api_id(request: Request, auth_id: str) -> str:
    """Return the request's api_id. An Idempotency-Key fixes it, so that the owner, too, recognizes a repetition."""
    key = request.headers.get("idempotency-key") if request.method == "POST" else None
    if key is None:
        return str(request.scope["api_id"])
    return str(uuid5(NAMESPACE_URL, "\0".join((auth_id, request.scope["path"], key))))


CurrentClient = Annotated[ApiClient, Depends(current_client)]


def _unauthorized(request: Request, error: str) -> ApiError:
    return ApiError(401, error, None if is_from_page(request) else {"WWW-Authenticate": 'Basic realm="ari_conf"'})


def is_from_page(request: Request) -> bool:
    """Return whether a page in a browser, such as the dashboard, sent the request.

    The 401 must then not offer Basic: the browser would ask for a password, and the dashboard could not show the login
    page.
    """
    headers = request.headers
    return (
        headers.get(sessions.CSRF_HEADER[0]) == sessions.CSRF_HEADER[1]
        or headers.get("accept") == "text/event-stream"
        or headers.get("sec-fetch-mode", "navigate") != "navigate"
    )


async def is_still_valid(request: Request, client: ApiClient) -> bool:
    """Return whether the credentials or session of the request still belong to the API client's account.

    Raises ApiError if the account, the auth token or the session is no longer valid."""
    record = await _identify(client.resources, request, await basic(request))
    return record.auth_id == client.auth_id


async def _identify(resources: Resources, request: Request, credentials: HTTPBasicCredentials | None) -> AccountRecord:
    """Return the account that Basic credentials or else a session cookie identify. Raises ApiError 401, 403 or 429."""
    if credentials is not None:
        return await authenticate(resources, request, credentials.username, credentials.password)
    record = await sessions.current_account(resources, request)
    if record is None:
        raise _unauthorized(request, "authentication is required: use HTTP Basic with auth_id and auth_token")
    sessions.check_csrf(request)
    return record


async def authenticate(resources: Resources, request: Request, auth_id: str, token: str) -> AccountRecord:
    """Return the account if the auth token is right.

    The right token is always accepted: an auth_id is no secret, so a client at the account's address could otherwise
    lock the account out. Raises ApiError 401, or 429 after repeated failures of this address with this account."""
    redis: Any = resources.redis
    found, now = await redis.pipeline(transaction=False).hget(accounts.KEY, auth_id).time().execute()
    record = accounts.decode(found) if found else None
    if record is not None and _token_matches(record, token, now[0] * 1000):
        return record
    if record is None:
        tokens_equal(DUMMY_TOKEN, token)
    # All accounts that do not exist count as one; otherwise each made-up auth_id would create a key.
    await count_failure(resources, address_of(request), auth_id if record else "-")
    raise _unauthorized(request, "auth_id or auth_token is wrong")


async def count_failure(resources: Resources, address: str, auth_id: str) -> None:
    """Count a wrong token. Raises ApiError 429 if the address has sent too many for this account."""
    failures = f"{PREFIX}auth-failures:{address}:{auth_id}"
    redis: Any = resources.redis
    count, left_ms = await redis.eval(_COUNT_USE, 1, failures, FAILURES_KEPT_S * 1000)
    if count > resources.settings.auth_failures:
        wait = max(1, -(-left_ms // 1000))
        raise too_much(f"too many wrong tokens: try again in {wait} s", wait)


def address_of(request: Request) -> str:
    return network_of(request.client.host if request.client else "")


def network_of(host: str) -> str:
    """Return the key by which an address is counted: the address, or for IPv6 its network.

    One machine may have any number of addresses in an IPv6 network. Text from a proxy that is not an address is
    "unknown"."""
    try:
        address = ip_address(host)
    except ValueError:
        return "unknown"
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        # Use the bytes: the text may end with a scope id, which can be any text.
        return str(IPv6Network((address.packed, IPV6_NETWORK), strict=False))
    return str(address)


def _token_matches(record: AccountRecord, token: str, now_ms: int) -> bool:
    """Return whether the token is right. An old token is accepted as long as it signs.

    Every token is compared, so that the time does not reveal which one matches."""
    return any([tokens_equal(kept, token) for kept in record.signing_tokens(now_ms)])  # noqa: C419


def tokens_equal(kept: str, given: str) -> bool:
    return hmac.compare_digest(kept.encode(), given.encode(errors="replace"))


async def not_too_often(resources: Resources, auth_id: str) -> None:
    """Count a request. Raises ApiError 429 if the account has sent more than `api_rate` within a second."""
    limit = resources.settings.api_rate
    if not limit:
        return
    redis: Any = resources.redis
    count, _ = await redis.eval(_COUNT_USE, 1, f"{PREFIX}api-rate:{auth_id}", WINDOW_S * 1000)
    if count > limit:
        raise too_much(f"more than {limit} requests in a second: try again", WINDOW_S)


async def once_in(resources: Resources, auth_id: str, what: str, seconds: int) -> None:
    """Count an operation that an account may run once per `seconds`, across all web processes.

    Raises ApiError 429 if the account has run it within that time."""
    redis: Any = resources.redis
    count, left_ms = await redis.eval(_COUNT_USE, 1, f"{PREFIX}api-rate:{what}:{auth_id}", seconds * 1000)
    if count > 1:
        wait = max(1, -(-left_ms // 1000))
        raise too_much(f"at most 1 such request in {seconds} s is allowed: try again in {wait} s", wait)

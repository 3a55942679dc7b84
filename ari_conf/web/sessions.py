"""Sessions: logins to the dashboard. A session is stored in Redis and ends there.

| key | value |
|---|---|
| ari_conf:session:HASH | JSON: the account, and a proof that its auth token is still the same; expires |
| ari_conf:sessions:ACCOUNT | list of the account's session keys, the newest first; expires with the last |

The cookie holds a random id, and Redis holds the hash of the id, so that Redis' content is no use for a login. The auth
token is in neither.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Any, cast
from urllib.parse import urlsplit

import msgspec
from fastapi import Request

from ari_conf.common import lua
from ari_conf.common.redis_keys import PREFIX
from ari_conf.store import accounts
from ari_conf.store.accounts import AccountRecord
from ari_conf.web.errors import ApiError
from ari_conf.web.resources import Resources

COOKIE = "ari_conf"
CSRF_HEADER = ("x-requested-with", "ari_conf")
"""Header that proves a request comes from the dashboard. A form of another site can't send a header, and a script of
another site can send one only after a preflight request, which the API never allows."""


MAX_PER_ACCOUNT = 100
"""Maximum number of sessions of an account; one more ends the oldest."""
_CREATE = lua.load("ari_conf.web.scripts.create_session")


class Session(msgspec.Struct, frozen=True):
    auth_id: str
    proof: str


async def create(resources: Resources, record: AccountRecord, token: str) -> tuple[str, int]:
    """Create a session and return (value of the cookie, its lifetime in seconds)."""
    cookie = secrets.token_urlsafe(32)
    session = msgspec.json.encode(Session(record.auth_id, proof(cookie, token)))
    seconds = round(resources.settings.login_hours * 3600)
    await store(resources, _session_key(cookie), _account_key(record.auth_id), session, seconds)
    return cookie, seconds


async def store(resources: Resources, session_key: str, list_key: str, session: bytes, seconds: int) -> None:
    """Store a session for `seconds`, and its key in a list of at most MAX_PER_ACCOUNT."""
    redis: Any = resources.redis
    await redis.eval(_CREATE, 2, session_key, list_key, session, seconds, MAX_PER_ACCOUNT)


async def delete(resources: Resources, request: Request) -> None:
    redis: Any = resources.redis
    cookie = request.cookies.get(COOKIE)
    found = await redis.get(_session_key(cookie)) if cookie else None
    if cookie and found is not None:
        session = msgspec.json.decode(found, type=Session)
        await (
            redis.pipeline(transaction=True)
            .delete(_session_key(cookie))
            .lrem(_account_key(session.auth_id), 0, _session_key(cookie))
            .execute()
        )


async def current_account(resources: Resources, request: Request) -> AccountRecord | None:
    """Return the account of the session that the request's cookie names, or None if the session does not exist."""
    cookie = request.cookies.get(COOKIE)
    redis: Any = resources.redis
    found = await redis.get(_session_key(cookie)) if cookie else None
    if not cookie or found is None:
        return None
    session = msgspec.json.decode(found, type=Session)
    kept, now = await redis.pipeline(transaction=False).hget(accounts.KEY, session.auth_id).time().execute()
    record = accounts.decode(kept) if kept else None
    # The session ends with the auth token that created it, and with the account.
    tokens = record.signing_tokens(now[0] * 1000) if record else []
    if not any(hmac.compare_digest(proof(cookie, token), session.proof) for token in tokens):
        return None
    return record


def check_csrf(request: Request, instead: str = "HTTP Basic") -> None:
    """Raise ApiError 403 if a page of another site may have made the browser send this request.

    `instead`: what API clients use."""
    if not same_site(request):
        raise ApiError(403, f"the session cookie is only accepted from the dashboard: use {instead}")
    if request.method in ("GET", "HEAD"):
        return
    origin = request.headers.get("origin") or request.headers.get("sec-fetch-site")
    if request.headers.get(CSRF_HEADER[0]) != CSRF_HEADER[1] or not origin:
        raise ApiError(403, f"with the session cookie, X-Requested-With: {CSRF_HEADER[1]} and Origin are required")


def same_site(request: Request) -> bool:
    """Return whether the request comes from the dashboard, as far as the browser says.

    Sec-Fetch-Site is "none" if the user typed the URL into the address bar."""
    if request.headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        return False
    origin = request.headers.get("origin")
    public = urlsplit(cast(Resources, request.app.state.resources).settings.public_url)
    ours = (f"{request.url.scheme}://{request.headers.get('host', '')}", f"{public.scheme}://{public.netloc}")
    return origin is None or origin in ours


def _session_key(cookie: str) -> str:
    return f"{PREFIX}session:{hashed(cookie)}"


def hashed(cookie: str) -> str:
    return hashlib.sha256(cookie.encode()).hexdigest()


def _account_key(auth_id: str) -> str:
    return f"{PREFIX}sessions:{auth_id}"


def proof(cookie: str, token: str) -> str:
    return hmac.new(cookie.encode(), token.encode(), hashlib.sha256).hexdigest()

"""Authentication of administrators: a key of `ARI_CONF_ADMIN_KEY` as a bearer token, or a session of its own.

An administrator's key and an account's token are never accepted for each other.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Concatenate, ParamSpec, TypeVar, cast

import msgspec
from fastapi import Depends, HTTPException, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from redis import Redis

from ari_conf.administration.audit import Actor
from ari_conf.common.redis_keys import PREFIX
from ari_conf.errors import AccountConflict, AccountError, AccountNotFound, TrunkConflict, TrunkError, TrunkNotFound
from ari_conf.web import auth, sessions
from ari_conf.web.errors import ApiError
from ari_conf.web.resources import Resources, resources_of

P = ParamSpec("P")
T = TypeVar("T")

COOKIE = "ari_conf_admin"
SESSIONS_KEY = f"{PREFIX}admin-sessions"
SHARE = "/admin"
"""Share of administrators in what accounts share. No account has this name, because a slash is not allowed in one."""
OFF = "the administrator's API is off: set ARI_CONF_ADMIN_KEY of the web process, and restart it"
DUMMY_KEY = secrets.token_hex(32)

bearer = HTTPBearer(
    auto_error=False, scheme_name="Administrator", description="A key of ARI_CONF_ADMIN_KEY, as a bearer token."
)


class AdminSession(msgspec.Struct, frozen=True):
    name: str
    """Name of the key."""
    proof: str


@dataclass(frozen=True, slots=True)
class Admin:
    """Authenticated administrator of a request, and the resources that serve it."""

    actor: Actor
    api_id: str
    resources: Resources

    async def run(self, work: Callable[Concatenate[Redis, P], T], *args: P.args, **named: P.kwargs) -> T:
        """Run work on Redis in a thread. Raises ApiError 400, 404 or 409 if it raises AccountError or TrunkError."""
        try:
            return await self.resources.reads.run(SHARE, work, self.resources.sync_redis, *args, **named)
        except (AccountError, TrunkError) as error:
            missing, conflict = (AccountNotFound, TrunkNotFound), (AccountConflict, TrunkConflict)
            status = 404 if isinstance(error, missing) else 409 if isinstance(error, conflict) else 400
            raise ApiError(status, str(error)) from None


async def current_admin(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]
) -> Admin:
    resources = resources_of(request)
    if request.headers.get("authorization", "").lower().startswith("basic "):
        # An account's request for itself: Plivo has such a call.
        raise HTTPException(404)
    request.scope["routes"].append(request.scope["route"].path)
    if not resources.settings.admin_keys:
        raise ApiError(404, OFF)
    if credentials is not None:
        actor = Actor(await authenticate(resources, request, credentials.credentials), "api")
    else:
        name = await session_name(resources, request)
        if name is None:
            headers = None if auth.is_from_page(request) else {"WWW-Authenticate": 'Bearer realm="ari_conf"'}
            raise ApiError(401, "authentication is required: send Authorization: Bearer KEY", headers)
        sessions.check_csrf(request, "a bearer token")
        actor = Actor(name, "page")
    await auth.not_too_often(resources, SHARE)
    return Admin(actor, str(request.scope["api_id"]), resources)


CurrentAdmin = Annotated[Admin, Depends(current_admin)]


async def authenticate(resources: Resources, request: Request, key: str) -> str:
    """Return the name of the administrator's key. Raises ApiError 401, or 429 after repeated failures of this address.

    The right key is always accepted, as the right token of an account is. All keys are compared, so that the time does
    not reveal which one matches."""
    keys = resources.settings.admin_keys or {"": DUMMY_KEY}
    matching = [name for name, kept in keys.items() if auth.tokens_equal(kept, key)]
    if matching:
        return matching[0]
    await auth.count_failure(resources, auth.address_of(request), SHARE)
    raise ApiError(401, "the administrator's key is wrong", {"WWW-Authenticate": 'Bearer realm="ari_conf"'})


# Sessions of the administrator's page. As for accounts, the cookie's id is in Redis as a hash only.


async def create_session(resources: Resources, name: str) -> tuple[str, int]:
    """Create a session and return (value of the cookie, its lifetime in seconds)."""
    cookie = secrets.token_urlsafe(32)
    session = AdminSession(name, sessions.proof(cookie, resources.settings.admin_keys[name]))
    seconds = round(resources.settings.login_hours * 3600)
    await sessions.store(resources, _key(cookie), SESSIONS_KEY, msgspec.json.encode(session), seconds)
    return cookie, seconds


async def session_name(resources: Resources, request: Request) -> str | None:
    """Return the name of the key that the session of the request's cookie began with; None without a session.

    The session ends with that key."""
    cookie = request.cookies.get(COOKIE)
    redis: Any = resources.redis
    found = await redis.get(_key(cookie)) if cookie else None
    if not cookie or found is None:
        return None
    session = msgspec.json.decode(cast(bytes, found), type=AdminSession)
    key = resources.settings.admin_keys.get(session.name)
    if key is None or not hmac.compare_digest(sessions.proof(cookie, key), session.proof):
        return None
    return session.name


async def delete_session(resources: Resources, request: Request) -> None:
    cookie = request.cookies.get(COOKIE)
    if cookie:
        redis: Any = resources.redis
        await redis.pipeline(transaction=True).delete(_key(cookie)).lrem(SESSIONS_KEY, 0, _key(cookie)).execute()


def _key(cookie: str) -> str:
    return f"{PREFIX}admin-session:{sessions.hashed(cookie)}"

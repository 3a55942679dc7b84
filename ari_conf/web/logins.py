"""Logged in with a browser: what the cookie stands for is in Redis, and ends there.

| key | is |
|---|---|
| ari_conf:login:HASH | JSON: the account, and what tells whether its token is still the one; expires |
| ari_conf:login:of:ACCOUNT | list of the account's hashes, the newest first; expires with the last |

The cookie holds a random id, Redis its hash: whoever can read the one can't use the other. The token is in neither.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Any, cast
from urllib.parse import urlsplit

import msgspec
from fastapi import Request

from ari_conf import accounts
from ari_conf.accounts import AccountRecord
from ari_conf.lanes import PREFIX
from ari_conf.web.errors import Refused
from ari_conf.web.parts import Parts

COOKIE = "ari_conf"
ASKED_BY = ("x-requested-with", "ari_conf")
"""No form of another site can send a header, and no script of one without being asked first: the API allows none."""


MOST_OF_AN_ACCOUNT = 100
"""Log-ins at a time; one more ends the oldest."""
_BEGIN = """
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
redis.call('LPUSH', KEYS[2], KEYS[1])
redis.call('EXPIRE', KEYS[2], ARGV[2])
for _, oldest in ipairs(redis.call('LRANGE', KEYS[2], ARGV[3], -1)) do redis.call('DEL', oldest) end
redis.call('LTRIM', KEYS[2], 0, ARGV[3] - 1)
"""


class Login(msgspec.Struct, frozen=True):
    auth_id: str
    proof: str


async def begin(parts: Parts, record: AccountRecord, token: str) -> tuple[str, int]:
    """(what the cookie is to hold, for how many seconds it holds)"""
    cookie = secrets.token_urlsafe(32)
    login = Login(record.auth_id, _proof(cookie, token))
    seconds = round(parts.settings.login_hours * 3600)
    keys = _key(cookie), _of(record.auth_id)
    await cast(Any, parts.redis).eval(_BEGIN, 2, *keys, msgspec.json.encode(login), seconds, MOST_OF_AN_ACCOUNT)
    return cookie, seconds


async def end(parts: Parts, request: Request) -> None:
    redis: Any = parts.redis
    cookie = request.cookies.get(COOKIE)
    found = await redis.get(_key(cookie)) if cookie else None
    if cookie and found is not None:
        login = msgspec.json.decode(found, type=Login)
        await redis.pipeline(transaction=True).delete(_key(cookie)).lrem(_of(login.auth_id), 0, _key(cookie)).execute()


async def account(parts: Parts, request: Request) -> AccountRecord | None:
    """Whose log-in the request's cookie is; None: nobody's (any more)."""
    cookie = request.cookies.get(COOKIE)
    redis: Any = parts.redis
    found = await redis.get(_key(cookie)) if cookie else None
    if not cookie or found is None:
        return None
    login = msgspec.json.decode(found, type=Login)
    kept, now = await redis.pipeline(transaction=False).hget(accounts.KEY, login.auth_id).time().execute()
    record = accounts.decode(kept) if kept else None
    # It ends with the token with which it began, and with the account.
    tokens = record.tokens(now[0] * 1000) if record else []
    if not any(hmac.compare_digest(_proof(cookie, token), login.proof) for token in tokens):
        return None
    return record


def check(request: Request) -> None:
    """Raises Refused 403 if a page of another site may have made the browser send this."""
    if not same_site(request):
        raise Refused(403, "this must come from ari_conf's own page")
    if request.method in ("GET", "HEAD"):
        return
    told = request.headers.get("origin") or request.headers.get("sec-fetch-site")
    if request.headers.get(ASKED_BY[0]) != ASKED_BY[1] or not told:
        raise Refused(403, f"with the cookie this needs the header X-Requested-With: {ASKED_BY[1]}, and Origin")


def same_site(request: Request) -> bool:
    """As far as the browser says from where it comes. "none": it was typed into the address bar."""
    if request.headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        return False
    origin = request.headers.get("origin")
    public = urlsplit(cast(Parts, request.app.state.parts).settings.public_url)
    ours = (f"{request.url.scheme}://{request.headers.get('host', '')}", f"{public.scheme}://{public.netloc}")
    return origin is None or origin in ours


def _key(cookie: str) -> str:
    return f"{PREFIX}login:{hashlib.sha256(cookie.encode()).hexdigest()}"


def _of(auth_id: str) -> str:
    return f"{PREFIX}login:of:{auth_id}"


def _proof(cookie: str, token: str) -> str:
    return hmac.new(cookie.encode(), token.encode(), hashlib.sha256).hexdigest()

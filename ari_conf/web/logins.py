"""Logged in with a browser: what the cookie stands for is in Redis, and ends there.

| key | is |
|---|---|
| ari_conf:login:HASH | JSON: the account, and what tells whether its token is still the one; expires |

The cookie holds a random id, Redis its hash: whoever can read the one can't use the other. The token is in neither.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
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


class Login(msgspec.Struct, frozen=True):
    auth_id: str
    proof: str


async def begin(parts: Parts, record: AccountRecord, token: str) -> tuple[str, int]:
    """(what the cookie is to hold, for how many seconds it holds)"""
    cookie = secrets.token_urlsafe(32)
    login = Login(record.auth_id, _proof(cookie, token))
    seconds = round(parts.settings.login_hours * 3600)
    await cast(Any, parts.redis).set(_key(cookie), msgspec.json.encode(login), ex=seconds)
    return cookie, seconds


async def end(parts: Parts, request: Request) -> None:
    if cookie := request.cookies.get(COOKIE):
        await cast(Any, parts.redis).delete(_key(cookie))


async def account(parts: Parts, request: Request) -> AccountRecord | None:
    """Whose log-in the request's cookie is; None: nobody's (any more)."""
    cookie = request.cookies.get(COOKIE)
    found = await cast(Any, parts.redis).get(_key(cookie)) if cookie else None
    if not cookie or found is None:
        return None
    login = msgspec.json.decode(found, type=Login)
    kept = await cast(Any, parts.redis).hget(accounts.KEY, login.auth_id)
    record = accounts.decode(kept) if kept else None
    # It ends with the token with which it began, and with the account.
    tokens = record.tokens(int(time.time() * 1000)) if record else []
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


def _proof(cookie: str, token: str) -> str:
    return hmac.new(cookie.encode(), token.encode(), hashlib.sha256).hexdigest()

"""Prepared requests: headers, body and signatures of one request."""

from __future__ import annotations

import re
import secrets
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote_plus, unquote

from ari_conf.common.version import VERSION
from ari_conf.core.elements import without_login
from ari_conf.http_client import signature
from ari_conf.http_client.url_guard import CheckedUrl, check_url

needs_no_quoting = re.compile(r"[A-Za-z0-9_.~-]*").fullmatch

HEADERS = {
    "User-Agent": f"ari_conf/{VERSION}",
    "Accept": "*/*",
    # A small compressed body can expand to a huge one.
    "Accept-Encoding": "identity",
}


@dataclass(frozen=True, slots=True)
class PreparedRequest:
    method: str
    target: CheckedUrl
    url: str
    """The URL as it is sent and signed."""
    body: bytes | None
    headers: dict[str, str]


def prepare(
    method: str, url: str, params: signature.Pairs, tokens: Sequence[str], conditions: Mapping[str, str]
) -> PreparedRequest:
    """Build the signed request. `conditions` are further headers.

    Raises RequestRefused for the URL itself; its addresses are checked on connecting.
    """
    target = check_url(url)
    url = target.url
    body = None
    headers = {**conditions, **HEADERS}
    form = _encode_form(params)
    if method == "POST":
        body = form.encode()
        headers |= {"Content-Type": "application/x-www-form-urlencoded", "Content-Length": str(len(body))}
    elif form:
        # Spec: "GET: in the query, added to what the URL already has."
        url += ("&" if "?" in url else "?") + form
    nonce = f"{secrets.randbelow(10**20):020d}"
    headers |= signature.headers(method, url, params if method == "POST" else (), tokens, nonce)
    headers |= _authorization(target.login)
    return PreparedRequest(method, target, url, body, headers)


def _authorization(login: str) -> dict[str, str]:
    """Return the header that browsers and curl send for a URL's `name:password@`; empty without a login."""
    if not login:
        return {}
    name, _, password = (unquote(part) for part in login.partition(":"))
    return {"Authorization": f"Basic {b64encode(f'{name}:{password}'.encode(errors='replace')).decode()}"}


def _encode_form(params: signature.Pairs) -> str:
    """Encode parameters as urlencode does, which takes four times as long if nothing needs escaping."""
    return "&".join([f"{_quote(name)}={_quote(value)}" for name, value in params])


def _quote(text: str) -> str:
    # A lone surrogate can't be sent; "?" replaces it, as in the signature.
    return text if needs_no_quoting(text) else quote_plus(text, errors="replace")


def without_query(url: str) -> str:
    """Return the URL for messages and logs: the query may hold secrets, and a login before the host is one."""
    return without_login(url.partition("#")[0].partition("?")[0])

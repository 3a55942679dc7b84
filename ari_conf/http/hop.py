"""One request on its way: what is sent, and where its answer leads. For `fetch` and `deliver` alike."""

from __future__ import annotations

import re
import secrets
import ssl
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from urllib.parse import quote_plus, unquote, urljoin, urlsplit

import certifi

from ari_conf.core.elements import without_login
from ari_conf.errors import RequestRefused
from ari_conf.http import signature
from ari_conf.http.guard import Target, check_url
from ari_conf.http.retry import Failure

MOST_REDIRECTS = 5
MOST_HEAD = 64 * 1024
"""Bytes until the answer's own body begins."""
MOST_INTERIM = 16
"""Answers such as `100 Continue` before the one that counts."""
FRAMING_PER_BYTE = 2
"""Bytes that come for each of a body's own, beyond the first 128 KB: chunks of less than five bytes have more."""
TOO_MUCH_HEAD = f"its answer begins with more than {MOST_HEAD} bytes of headers, or {MOST_INTERIM} interim answers"
NO_ANSWER = "it did not answer in time"
PLAIN = re.compile(r"[A-Za-z0-9_.~-]*").fullmatch
REDIRECTS = (301, 302, 303, 307, 308)
KEPT_ALIVE_S = 4.0
"""Idle connections are dropped then: most servers close theirs after 5 s, and a POST that meets the closing is lost.
It also bounds for how long a connection outlives a change in the DNS."""

HEADERS = {
    "User-Agent": "ari_conf/0.1",
    "Accept": "*/*",
    # A small compressed body can be a huge one.
    "Accept-Encoding": "identity",
}


class TryFailed(Exception):
    """A try came to nothing; what is known of it becomes an Outcome."""

    def __init__(self, failure: Failure, reason: str) -> None:
        super().__init__(reason)
        self.failure: Failure = failure
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Hop:
    method: str
    target: Target
    url: str
    """As sent and as signed."""
    body: bytes | None
    headers: dict[str, str]


def prepare(method: str, url: str, params: signature.Pairs, tokens: Sequence[str]) -> Hop:
    """Raises RequestRefused for the URL itself; its host's addresses are judged where the connection is made."""
    target = check_url(url)
    url = target.url
    body = None
    sent = HEADERS
    form = _form(params)
    if method == "POST":
        body = form.encode()
        sent = {**HEADERS, "Content-Type": "application/x-www-form-urlencoded", "Content-Length": str(len(body))}
    elif form:
        # "GET: in the query, added to what the URL already has."
        url += ("&" if "?" in url else "?") + form
    nonce = f"{secrets.randbelow(10**20):020d}"
    signed = signature.headers(method, url, params if method == "POST" else (), tokens, nonce)
    return Hop(method, target, url, body, {**sent, **signed, **_authorization(target.login)})


def _authorization(login: str) -> dict[str, str]:
    """As browsers and curl send what stands before a URL's host."""
    if not login:
        return {}
    name, _, password = (unquote(part) for part in login.partition(":"))
    return {"Authorization": f"Basic {b64encode(f'{name}:{password}'.encode(errors='replace')).decode()}"}


def _form(params: signature.Pairs) -> str:
    """As urlencode, which takes four times as long where there is nothing to escape."""
    return "&".join([f"{_quoted(name)}={_quoted(value)}" for name, value in params])


def _quoted(text: str) -> str:
    # A lone surrogate can't be sent: "?" goes in its place, as in the signature.
    return text if PLAIN(text) else quote_plus(text, errors="replace")


def redirected(
    hop: Hop, status: int, location: str | None, params: signature.Pairs
) -> tuple[str, str, signature.Pairs] | None:
    """(method, URL, parameters) of the next hop; None if the answer leads nowhere else.

    As browsers do: 307 and 308 repeat the request; the others make a POST a GET, without its body. A GET's parameters
    are the Location's affair: they were in the query of the URL that was asked. Raises RequestRefused.
    """
    if status not in REDIRECTS or not location:
        return None
    try:
        url = urljoin(hop.url, location.strip()).partition("#")[0]
        login = "@" in urlsplit(url).netloc
    except ValueError:
        raise RequestRefused("it redirects to what is no URL") from None
    if login:
        raise RequestRefused("it redirects to a URL with a user name or a password before its host")
    if hop.target.login and _same_origin(hop.target, url):
        url = url.replace("://", f"://{hop.target.login}@", 1)
    if hop.method == "POST" and status in (307, 308):
        return "POST", url, params
    return "GET", url, ()


def _same_origin(target: Target, url: str) -> bool:
    """Only there is a login sent once more."""
    further = check_url(url)
    scheme = target.url.partition(":")[0]
    return (further.host, further.port) == (target.host, target.port) and further.url.startswith(f"{scheme}:")


def too_many_redirects() -> TryFailed:
    return TryFailed("redirects", f"it redirects more than {MOST_REDIRECTS} times")


def without_query(url: str) -> str:
    """For messages and logs: a query may hold secrets, and what stands before the host does."""
    return without_login(url.partition("#")[0].partition("?")[0])


@cache
def tls_context() -> ssl.SSLContext:
    """What the system trusts (SSL_CERT_FILE too), and, since a small machine may have no certificates, certifi's."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    context.set_alpn_protocols(["http/1.1"])
    return context

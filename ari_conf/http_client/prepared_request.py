"""Prepared requests: headers, body and signatures of a request, and the redirect that a response asks for.

`fetch` and `deliver` both use this module.
"""

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

from ari_conf.common.version import VERSION
from ari_conf.core.elements import without_login
from ari_conf.errors import RequestRefused
from ari_conf.http_client import signature
from ari_conf.http_client.retry_policy import Failure
from ari_conf.http_client.url_guard import CheckedUrl, check_url

MOST_REDIRECTS = 5
MOST_HEAD = 64 * 1024
"""Maximum number of bytes before the body of the final response begins."""
MOST_INTERIM = 16
"""Maximum number of interim responses, such as `100 Continue`, before the final one."""
FRAMING_PER_BYTE = 2
"""Maximum ratio of received bytes to body bytes, beyond the first 128 KB. Chunks of less than five bytes exceed it."""
TOO_MUCH_HEAD = f"its response begins with more than {MOST_HEAD} bytes of headers or {MOST_INTERIM} interim responses"
NO_ANSWER = "it did not respond in time"
PLAIN = re.compile(r"[A-Za-z0-9_.~-]*").fullmatch
REDIRECTS = (301, 302, 303, 307, 308)
KEPT_ALIVE_S = 4.0
"""Seconds after which an idle connection is closed. Most servers close theirs after 5 s, and a POST sent at that moment
is lost. It also limits for how long a connection is used after a change in the DNS."""

HEADERS = {
    "User-Agent": f"ari_conf/{VERSION}",
    "Accept": "*/*",
    # A small compressed body can expand to a huge one.
    "Accept-Encoding": "identity",
}


class AttemptFailed(Exception):
    """Failure of an attempt; its caller makes an AttemptOutcome of it."""

    def __init__(self, failure: Failure, reason: str) -> None:
        super().__init__(reason)
        self.failure: Failure = failure
        self.reason = reason


@dataclass(frozen=True, slots=True)
class PreparedRequest:
    method: str
    target: CheckedUrl
    url: str
    """The URL as it is sent and signed."""
    body: bytes | None
    headers: dict[str, str]


def prepare(method: str, url: str, params: signature.Pairs, tokens: Sequence[str]) -> PreparedRequest:
    """Build the signed request. Raises RequestRefused for the URL itself; its addresses are checked on connecting."""
    target = check_url(url)
    url = target.url
    body = None
    sent = HEADERS
    form = _form(params)
    if method == "POST":
        body = form.encode()
        sent = {**HEADERS, "Content-Type": "application/x-www-form-urlencoded", "Content-Length": str(len(body))}
    elif form:
        # Spec: "GET: in the query, added to what the URL already has."
        url += ("&" if "?" in url else "?") + form
    nonce = f"{secrets.randbelow(10**20):020d}"
    signed = signature.headers(method, url, params if method == "POST" else (), tokens, nonce)
    return PreparedRequest(method, target, url, body, {**sent, **signed, **_authorization(target.login)})


def _authorization(login: str) -> dict[str, str]:
    """Return the header that browsers and curl send for a URL's `name:password@`; empty without a login."""
    if not login:
        return {}
    name, _, password = (unquote(part) for part in login.partition(":"))
    return {"Authorization": f"Basic {b64encode(f'{name}:{password}'.encode(errors='replace')).decode()}"}


def _form(params: signature.Pairs) -> str:
    """Encode parameters as urlencode does, which takes four times as long if nothing needs escaping."""
    return "&".join([f"{_quoted(name)}={_quoted(value)}" for name, value in params])


def _quoted(text: str) -> str:
    # A lone surrogate can't be sent; "?" replaces it, as in the signature.
    return text if PLAIN(text) else quote_plus(text, errors="replace")


def next_hop(
    hop: PreparedRequest, status: int, location: str | None, params: signature.Pairs
) -> tuple[str, str, signature.Pairs] | None:
    """Return (method, URL, parameters) of the next hop; None if the response is not a redirect.

    As in browsers, 307 and 308 repeat the request, and the others turn a POST into a GET without its body. The
    parameters of a GET are in the query of the requested URL, and the Location decides whether they are sent again.
    Raises RequestRefused.
    """
    if status not in REDIRECTS or not location:
        return None
    try:
        url = urljoin(hop.url, location.strip()).partition("#")[0]
        login = "@" in urlsplit(url).netloc
    except ValueError:
        raise RequestRefused("it redirects to an invalid URL") from None
    if login:
        raise RequestRefused("it redirects to a URL with a user name or password, which is not allowed")
    if hop.target.login and _same_origin(hop.target, url):
        url = url.replace("://", f"://{hop.target.login}@", 1)
    if hop.method == "POST" and status in (307, 308):
        return "POST", url, params
    return "GET", url, ()


def _same_origin(target: CheckedUrl, url: str) -> bool:
    """Return whether `url` has the target's origin, the only one to which the target's login is sent again."""
    further = check_url(url)
    scheme = target.url.partition(":")[0]
    return (further.host, further.port) == (target.host, target.port) and further.url.startswith(f"{scheme}:")


def too_many_redirects() -> AttemptFailed:
    return AttemptFailed("redirects", f"it redirects more than {MOST_REDIRECTS} times")


def without_query(url: str) -> str:
    """Return the URL for messages and logs: the query may hold secrets, and a login before the host is one."""
    return without_login(url.partition("#")[0].partition("?")[0])


@cache
def tls_context() -> ssl.SSLContext:
    """Return a context that trusts the system's certificates (also SSL_CERT_FILE) and, as some have none, certifi's."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    context.set_alpn_protocols(["http/1.1"])
    return context

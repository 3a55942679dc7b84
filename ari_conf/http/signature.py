"""Signatures of a request, so that its receiver can check it with Plivo's SDK (`plivo.utils`), the referee of this.

"During a token's rotation several signatures stand in the header, joined by a comma": so in V3. The SDK compares V2 as
a whole, so that a joined V2 is valid for nobody: it is made with the newest token alone.

Where the SDK (4.63) contradicts itself: of a path it leaves out what follows a semicolon in the last segment (as
`urlparse` does), which is followed here; of a query with anything but ASCII it raises, so that nobody can be followed
and the decoded text is signed.

Plivo's SDKs of other languages read a URL in other ways: Ruby, Java and .NET leave its port out, Go, Java and .NET
decode its path, Go and Ruby take one value for each key of the query, PHP decodes no query and encodes letters twice,
and none but Python's leaves out what follows a semicolon. All of them split V3 at its commas. So each reading that
differs is signed as well.
"""

from __future__ import annotations

import hmac
import re
from base64 import b64encode
from collections.abc import Iterable, Sequence
from urllib.parse import parse_qsl, unquote, urlencode, urlparse, urlsplit

Pairs = Sequence[tuple[str, str]]
ODD = re.compile(r"[;%+]|://[^/?]*:\d+(?:[/?]|$)")
"""What is read in several ways: a semicolon, an escape, a port."""


def headers(method: str, url: str, params: Pairs, tokens: Sequence[str], nonce: str) -> dict[str, str]:
    """The five headers for a request to `url`, none if there is no token.

    `url` is what the receiver sees. GET: the parameters may stand in its query already, then `params` is empty.
    `tokens`: all that are valid, the newest first. `nonce`: 20 decimal digits.
    """
    if not tokens:
        return {}
    if method == "GET" and params:
        url += ("&" if "?" in url else "?") + urlencode(params, errors="replace")
        params = ()
    parts = urlparse(url)
    base = f"{parts.scheme}://{parts.netloc}{parts.path}"
    texts = [f"{text}.{nonce}" for text in _readings(method, url, base, params)]
    signed = ",".join(_sign(token, text) for token in tokens for text in texts)
    return {
        "X-Plivo-Signature-V3": signed,
        "X-Plivo-Signature-V3-Nonce": nonce,
        # Plivo signs this one with the main account's token; our accounts have no subaccounts: it is the same.
        "X-Plivo-Signature-Ma-V3": signed,
        "X-Plivo-Signature-V2": _sign(tokens[0], base + nonce),
        "X-Plivo-Signature-V2-Nonce": nonce,
    }


def _readings(method: str, url: str, base: str, params: Pairs) -> list[str]:
    """What is signed: as Plivo's Python SDK reads it, then as those of other languages do, each once."""
    parts = urlsplit(url)
    # keep_blank_values: the SDK does, and a receiver sees the key.
    query = parse_qsl(parts.query, keep_blank_values=True)

    def text(base: str, query: Pairs) -> str:
        found = _get(base, [*query, *params]) if method == "GET" else _post(base, query, params)
        # A lone surrogate (a caller's name that is not UTF-8) becomes "?", as in the request itself.
        return found.encode(errors="replace").decode()

    first = text(base, query)
    keys = {key for key, _ in query}
    if not ODD.search(url) and len(keys) == len(query) and first.isascii():
        return [first]
    begins = f"{parts.scheme}://{parts.netloc}"
    without_port = begins.rpartition(":")[0] if parts.port is not None else begins
    decoded = unquote(parts.path)
    last, raw = list(dict(query).items()), [_pair(part) for part in parts.query.split("&") if part]
    readings = (
        text(f"{begins}{parts.path}", query),  # Node
        text(f"{begins}{decoded}", list(dict(reversed(query)).items())),  # Go
        text(f"{without_port}{parts.path}", last),  # Ruby
        text(f"{without_port}{decoded}", last),  # Java, .NET
        text(f"{begins}{parts.path}", raw).encode().decode("latin-1"),  # PHP
    )
    return list(dict.fromkeys((first, *readings)))


def _pair(part: str) -> tuple[str, str]:
    key, _, value = part.partition("=")
    return key, value


def _get(base: str, merged: Pairs) -> str:
    # "GET: s = base + "?" + the query and the parameters merged, sorted, `k=v` joined by `&` (no `?` if there is none)"
    return f"{base}?{_joined(merged)}" if merged else base


def _post(base: str, query: Pairs, params: Pairs) -> str:
    # "POST: s = base; if there is a query or a parameter, + "?" + q; if there are both, + "."; + over the sorted keys
    # key immediately followed by value"
    asked = f"?{_joined(query)}" if query or params else ""
    dot = "." if query and params else ""
    return base + asked + dot + "".join(key + value for key, value in sorted(params))


def _joined(pairs: Iterable[tuple[str, str]]) -> str:
    return "&".join(f"{key}={value}" for key, value in sorted(pairs))


def _sign(token: str, text: str) -> str:
    return b64encode(hmac.digest(token.encode(), text.encode(errors="replace"), "sha256")).decode()

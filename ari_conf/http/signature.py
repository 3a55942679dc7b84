"""Signatures of a request, so that its receiver can check it with Plivo's SDK (`plivo.utils`), the referee of this.

"During a token's rotation several signatures stand in the header, joined by a comma": so in V3. The SDK compares V2 as
a whole, so that a joined V2 is valid for nobody: it is made with the newest token alone.

Where the SDK (4.63) contradicts itself: of a path it leaves out what follows a semicolon in the last segment (as
`urlparse` does), which is followed here; of a query with anything but ASCII it raises, so that nobody can be followed
and the decoded text is signed.
"""

from __future__ import annotations

import hmac
from base64 import b64encode
from collections.abc import Iterable, Sequence
from urllib.parse import parse_qsl, urlparse

Pairs = Sequence[tuple[str, str]]


def headers(method: str, url: str, params: Pairs, tokens: Sequence[str], nonce: str) -> dict[str, str]:
    """The five headers for a request to `url`, none if there is no token.

    `url` is what the receiver sees. GET: the parameters may stand in its query already, then `params` is empty.
    `tokens`: all that are valid, the newest first. `nonce`: 20 decimal digits.
    """
    if not tokens:
        return {}
    parts = urlparse(url)
    base = f"{parts.scheme}://{parts.netloc}{parts.path}"
    # keep_blank_values: the SDK does, and a receiver sees the key.
    query = parse_qsl(parts.query, keep_blank_values=True)
    text = _get(base, [*query, *params]) if method == "GET" else _post(base, query, params)
    signed = ",".join(_sign(token, f"{text}.{nonce}") for token in tokens)
    return {
        "X-Plivo-Signature-V3": signed,
        "X-Plivo-Signature-V3-Nonce": nonce,
        # Plivo signs this one with the main account's token; our accounts have no subaccounts: it is the same.
        "X-Plivo-Signature-Ma-V3": signed,
        "X-Plivo-Signature-V2": _sign(tokens[0], base + nonce),
        "X-Plivo-Signature-V2-Nonce": nonce,
    }


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
    # A lone surrogate (a caller's name that is not UTF-8) becomes "?", as in the request itself.
    return b64encode(hmac.digest(token.encode(), text.encode(errors="replace"), "sha256")).decode()

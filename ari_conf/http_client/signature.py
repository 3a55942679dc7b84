"""Request signatures, which receivers can check with Plivo's SDKs; the Python SDK (`plivo.utils`) is the reference.

Spec: "During a token's rotation several signatures stand in the header, joined by a comma". This holds for V3. The SDK
compares V2 as a whole, so that no receiver could validate a joined V2: V2 is signed with the newest token only.

The Python SDK (4.63) is inconsistent in two cases. In a path, it drops what follows a semicolon in the last segment, as
`urlparse` does; this module does the same. For a query with non-ASCII characters it raises; this module signs the
decoded text.

Plivo's SDKs for other languages read a URL differently: Ruby, Java and .NET drop the port; Go, Java and .NET decode the
path; Go and Ruby take one value for each key of the query; PHP does not decode the query and encodes letters twice; and
only Python's drops what follows a semicolon. All of them split V3 at its commas, so each reading that differs is signed
as well.
"""

from __future__ import annotations

import hmac
import re
from base64 import b64encode
from collections.abc import Iterable, Sequence
from urllib.parse import parse_qsl, unquote, urlencode, urlparse, urlsplit

Pairs = Sequence[tuple[str, str]]
READ_DIFFERENTLY = re.compile(r"[;%+]|://[^/?]*:\d+(?:[/?]|$)")
"""Pattern of URL parts that SDKs read differently: a semicolon, an escape, a port."""


def headers(method: str, url: str, params: Pairs, tokens: Sequence[str], nonce: str) -> dict[str, str]:
    """Return the five signature headers for a request to `url`; none without a token.

    `url` is the URL that the receiver sees; for GET, its query may already contain the parameters, and `params` is
    empty then. `tokens` are all valid tokens, the newest first; `nonce` has 20 decimal digits.
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
        # Plivo signs this one with the main account's token. ari_conf has no subaccounts, so it equals V3.
        "X-Plivo-Signature-Ma-V3": signed,
        "X-Plivo-Signature-V2": _sign(tokens[0], base + nonce),
        "X-Plivo-Signature-V2-Nonce": nonce,
    }


def _readings(method: str, url: str, base: str, params: Pairs) -> list[str]:
    """Return the distinct texts to sign: first as Plivo's Python SDK reads the URL, then as its other SDKs do."""
    parts = urlsplit(url)
    # keep_blank_values: the SDK keeps them, and the receiver sees the key.
    query = parse_qsl(parts.query, keep_blank_values=True)

    def text(base: str, query: Pairs) -> str:
        found = _text_of_get(base, [*query, *params]) if method == "GET" else _text_of_post(base, query, params)
        # A lone surrogate (a caller's name that is not UTF-8) becomes "?", as in the request itself.
        return found.encode(errors="replace").decode()

    first = text(base, query)
    keys = {key for key, _ in query}
    if not READ_DIFFERENTLY.search(url) and len(keys) == len(query) and first.isascii():
        return [first]
    begins = f"{parts.scheme}://{parts.netloc}"
    without_port = begins.rpartition(":")[0] if parts.port is not None else begins
    decoded = unquote(parts.path)
    last, raw = list(dict(query).items()), [_split_pair(part) for part in parts.query.split("&") if part]
    readings = (
        text(f"{begins}{parts.path}", query),  # Node
        text(f"{begins}{decoded}", list(dict(reversed(query)).items())),  # Go
        text(f"{without_port}{parts.path}", last),  # Ruby
        text(f"{without_port}{decoded}", last),  # Java, .NET
        text(f"{begins}{parts.path}", raw).encode().decode("latin-1"),  # PHP
    )
    return list(dict.fromkeys((first, *readings)))


def _split_pair(part: str) -> tuple[str, str]:
    key, _, value = part.partition("=")
    return key, value


def _text_of_get(base: str, merged: Pairs) -> str:
    # Spec: "GET: s = base + "?" + the query and the parameters merged, sorted, `k=v` joined by `&` (no `?` if there is
    # none)"
    return f"{base}?{_join(merged)}" if merged else base


def _text_of_post(base: str, query: Pairs, params: Pairs) -> str:
    # Spec: "POST: s = base; if there is a query or a parameter, + "?" + q; if there are both, + "."; + over the sorted
    # keys key immediately followed by value"
    asked = f"?{_join(query)}" if query or params else ""
    dot = "." if query and params else ""
    return base + asked + dot + "".join(key + value for key, value in sorted(params))


def _join(pairs: Iterable[tuple[str, str]]) -> str:
    return "&".join(f"{key}={value}" for key, value in sorted(pairs))


def _sign(token: str, text: str) -> str:
    return b64encode(hmac.digest(token.encode(), text.encode(errors="replace"), "sha256")).decode()

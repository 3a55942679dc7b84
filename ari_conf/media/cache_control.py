"""Lifetime of a fetched sound: RFC 9111, as far as it matters for sounds. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

DEFAULT_FRESH_S = 60
"""Seconds after which the origin is asked again if it states no lifetime (decided): a replaced greeting is heard within
a minute, and the origin isn't asked once per caller."""
STALE_S = 86400
"""Further seconds for which a copy replaces the sound of an origin that fails (decided; RFC 9111 4.2.4, as
stale-if-error)."""
MAX_S = 30 * 86400


@dataclass(frozen=True, slots=True)
class Freshness:
    fresh_s: int
    """Seconds for which the origin isn't asked again."""
    stale_s: int
    """Further seconds for which the copy is used if the origin fails. 0: never."""
    keep: bool
    """False: no later request may find the copy."""


def freshness(cache_control: str | None) -> Freshness:
    """Return the lifetime that the response's Cache-Control header states."""
    directives = _directives(cache_control or "")
    if "no-store" in directives:
        # RFC 9111: "The no-store response directive indicates that a cache MUST NOT store any part of … the immediate
        # request or the response". This call must hear the sound, so the file stays for a while, but no other request
        # finds it.
        return Freshness(0, 0, False)
    if "no-cache" in directives:
        # RFC 9111: "MUST NOT be used to satisfy any other request without forwarding it for validation"
        return Freshness(0, 0, True)
    age = directives.get("max-age", "")
    fresh = (
        min(int(age), MAX_S) if re.fullmatch(r"[0-9]{1,12}", age) else 0 if "max-age" in directives else DEFAULT_FRESH_S
    )
    # RFC 9111: "once the response has become stale, a cache MUST NOT reuse that response … until it has been validated"
    return Freshness(fresh, 0 if "must-revalidate" in directives else STALE_S, True)


def _directives(header: str) -> dict[str, str]:
    parts = (part.strip().partition("=") for part in header.split(","))
    return {name.strip().lower(): value.strip().strip('"') for name, _, value in parts if name.strip()}

"""How often, how long and when again: the policy that a URL's fragment sets, and the decision after each try.

`https://example.com/events#ct=2000&rt=3000&rc=3&rp=all`: the fragment is ours, never sent.

What became of a try, and what it is to `rp`:

| failure or status | what happened | rp |
|---|---|---|
| (2xx) | success | |
| dns | the name has no address | ct |
| connect | refused, unreachable, no connection (name, TCP, TLS) within ct | ct |
| tls | the handshake failed, the certificate is not valid | ct |
| read | no first byte, or no next packet, within rt; tt is over | rt |
| broken | the connection closed early, the body is shorter than announced, not HTTP | rt |
| (4xx) | such a status; Retry-After is honoured | 4xx |
| (5xx) | such a status; Retry-After is honoured | 5xx |
| (other) | 1xx and 3xx that lead nowhere | never |
| body | too long, or encoded in a way that was not asked for: the same would come again | never |
| redirects | more than 5: the same would come again | never |
| refused | it points where no request may go: asking again is asking for a DNS answer that slips through | never |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Literal
from urllib.parse import parse_qsl

Failure = Literal["dns", "connect", "tls", "read", "broken", "body", "redirects", "refused"]

RETRIED_AS: dict[Failure, str] = {"dns": "ct", "connect": "ct", "tls": "ct", "read": "rt", "broken": "rt"}
KINDS = ("ct", "rt", "4xx", "5xx")
FIRST_BACKOFF_MS = 250
LONGEST_RETRY_AFTER_DIGITS = 9
LONGEST_FRAGMENT = 8192
"""Characters that are read; no URL of an element or an account is so long."""
MAX_WARNINGS = 10
RANGES = {"ct": (100, 10_000), "rt": (100, 40_000), "tt": (100, 55_000), "rc": (0, 5)}
FIELDS = {"ct": "connect_ms", "rt": "read_ms", "tt": "total_ms", "rc": "retries"}


@dataclass(frozen=True, slots=True)
class Policy:
    connect_ms: int = 2000
    """From looking the name up to the end of the TLS handshake."""
    read_ms: int = 40_000
    """To the first byte, and between packets."""
    total_ms: int = 55_000
    """Over all tries together, with what is waited between them."""
    retries: int = 1
    retry_on: frozenset[str] = frozenset({"ct", "rt"})
    """Of KINDS."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One try: either `status` or `failure` is set."""

    at_ms: int
    """When it began, epoch milliseconds."""
    ms: int
    """How long it took."""
    status: int = 0
    failure: Failure | None = None
    reason: str = ""
    """Of a failure: what happened, to be read after the URL's name and a colon."""
    retry_after_ms: int | None = None
    redirects: int = 0
    """That were followed."""

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def told(self) -> str:
        """What happened, in the user's words."""
        return self.reason if self.failure else f"it answered with status {self.status}"


def parse(url: str) -> tuple[str, Policy, tuple[str, ...]]:
    """The URL without its fragment, the fragment's policy, and warnings in the user's words."""
    bare, _, fragment = url.partition("#")
    numbers: dict[str, int] = {}
    retry_on = Policy().retry_on
    warnings: list[str] = []
    if len(fragment) > LONGEST_FRAGMENT:
        warnings.append(f"the URL's fragment is cut after {LONGEST_FRAGMENT} characters")
    for key, value in parse_qsl(fragment[:LONGEST_FRAGMENT], keep_blank_values=True):
        if key in RANGES:
            number = _number(key, value, warnings)
            if number is not None:
                numbers[FIELDS[key]] = number
        elif key == "rp":
            retry_on = _kinds(value, warnings) or retry_on
        # "er | region | accepted, ignored"
        elif key != "er":
            warnings.append(f"{_cut(key)}= in the URL's fragment means nothing: known are ct, rt, tt, rc, rp")
    more = len(warnings) - MAX_WARNINGS
    last = (f"{more} more complaints about the URL's fragment are not listed",) if more > 0 else ()
    return bare, Policy(**numbers, retry_on=retry_on), (*warnings[:MAX_WARNINGS], *last)


def _cut(text: str) -> str:
    return text if len(text) <= 40 else text[:37] + "..."


def _number(key: str, value: str, warnings: list[str]) -> int | None:
    low, high = RANGES[key]
    digits = value.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()):
        warnings.append(f"{key}={_cut(value)} in the URL's fragment is no whole number: the default is used")
        return None
    # Only the sign and nine digits count: Python refuses to convert numbers of thousands of digits.
    number = int(digits[:9]) * (-1 if value.startswith("-") else 1)
    # "A value out of range is clamped, an unknown key ignored, both with a warning."
    clamped = min(max(number, low), high)
    if clamped != number:
        warnings.append(f"{key}={_cut(value)} in the URL's fragment must be {low} to {high}: {clamped} is used")
    return clamped


def _kinds(value: str, warnings: list[str]) -> frozenset[str]:
    words = {word.strip() for word in value.split(",")} - {""}
    wrong = sorted(words - {*KINDS, "all"})
    if wrong or not words:
        warnings.append(
            f"rp={_cut(value)} in the URL's fragment: allowed are ct, rt, 4xx, 5xx, all, by comma; the rest is ignored"
        )
    return frozenset(KINDS) if "all" in words else frozenset(words - set(wrong))


def next_try(policy: Policy, tries: Sequence[Outcome], elapsed_ms: int, random: float) -> int | None:
    """Milliseconds until the next try, None if there is none: delivered, not to be retried, or no time left.

    `tries` are those made so far, at least one; `elapsed_ms` is since the first began; `random` is in [0, 1).
    """
    last = tries[-1]
    left_ms = policy.total_ms - elapsed_ms
    if len(tries) > policy.retries or left_ms <= 0 or _kind(last) not in policy.retry_on:
        return None
    # "full-jitter exponential backoff from 250 ms within tt": what is left of tt bounds the draw, so that a short tt
    # still leaves room for the tries that the user asked for.
    delay_ms = int(random * min(FIRST_BACKOFF_MS * 2 ** (len(tries) - 1), left_ms))
    # "`Retry-After` is honoured within tt": asked to come back later than that, there is no other try.
    if last.retry_after_ms is not None and last.retry_after_ms >= left_ms:
        return None
    return max(delay_ms, last.retry_after_ms or 0)


def _kind(outcome: Outcome) -> str | None:
    if outcome.failure is not None:
        return RETRIED_AS.get(outcome.failure)
    return {4: "4xx", 5: "5xx"}.get(outcome.status // 100)


def retry_after_ms(value: str | None, now_ms: int) -> int | None:
    """Of a Retry-After header (RFC 9110, 10.2.3: seconds, or an HTTP date); None if there is none to be understood."""
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        return int(text[:LONGEST_RETRY_AFTER_DIGITS]) * 1000
    try:
        date = parsedate_to_datetime(text)
        # An HTTP date is in GMT, also where it doesn't say so.
        seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0, int(seconds * 1000) - now_ms)

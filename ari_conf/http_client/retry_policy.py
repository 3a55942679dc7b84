"""Retry policy: the timeouts and retries that a URL fragment sets, and the decision after each attempt.

`https://example.com/events#ct=2000&rt=3000&rc=3&rp=all`: the fragment is for ari_conf, and never sent.

Outcomes of an attempt, and the value of `rp` that retries each:

| failure or status | what happened | rp |
|---|---|---|
| (2xx) | success | |
| dns | the name has no address | ct |
| connect | refused, unreachable, no connection (name, TCP, TLS) within ct | ct |
| tls | the handshake failed, the certificate is not valid | ct |
| read | no first byte, or no next packet, within rt; tt has passed | rt |
| broken | the connection closed early, the body is shorter than announced, not HTTP | rt |
| (4xx) | such a status; Retry-After is honored | 4xx |
| (5xx) | such a status; Retry-After is honored | 5xx |
| (other) | 1xx, and 3xx without a redirect to follow | never |
| body | too long, or encoded in a way that was not requested: a retry would get the same | never |
| redirects | more than 5: a retry would get the same | never |
| refused | the URL is not allowed: retries would help an attacker whose DNS responses vary | never |
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
RETRY_CONDITIONS = ("ct", "rt", "4xx", "5xx")
FIRST_BACKOFF_MS = 250
MAX_RETRY_AFTER_DIGITS = 9
MAX_FRAGMENT_CHARS = 8192
"""Maximum number of characters that are parsed; no URL of an element or an account is as long."""
MAX_WARNINGS = 10
RANGES = {"ct": (100, 10_000), "rt": (100, 40_000), "tt": (100, 55_000), "rc": (0, 5)}
FIELDS = {"ct": "connect_ms", "rt": "read_ms", "tt": "total_ms", "rc": "retries"}


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    connect_ms: int = 2000
    """Milliseconds from the start of the DNS look-up to the end of the TLS handshake."""
    read_ms: int = 40_000
    """Milliseconds to the first byte, and between packets."""
    total_ms: int = 55_000
    """Milliseconds of all attempts together, including the delays between them."""
    retries: int = 1
    retry_on: frozenset[str] = frozenset({"ct", "rt"})
    """A subset of RETRY_CONDITIONS."""


@dataclass(frozen=True, slots=True)
class AttemptOutcome:
    """Outcome of one attempt: either `status` or `failure` is set."""

    at_ms: int
    """Start of the attempt, in epoch milliseconds."""
    ms: int
    """Duration of the attempt, in milliseconds."""
    status: int = 0
    failure: Failure | None = None
    reason: str = ""
    """Text for a failure, to be read after the URL and a colon."""
    retry_after_ms: int | None = None
    redirects: int = 0
    """Number of redirects that were followed."""

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def description(self) -> str:
        """Return a text for the user: the reason of the failure, or the status."""
        return self.reason if self.failure else f"it responded with status {self.status}"


def parse(url: str) -> tuple[str, RetryPolicy, tuple[str, ...]]:
    """Return the URL without its fragment, the policy of the fragment, and warnings for the user."""
    bare, _, fragment = url.partition("#")
    numbers: dict[str, int] = {}
    retry_on = RetryPolicy().retry_on
    warnings: list[str] = []
    if len(fragment) > MAX_FRAGMENT_CHARS:
        warnings.append(f"the URL's fragment is too long: only its first {MAX_FRAGMENT_CHARS} characters are used")
    for key, value in parse_qsl(fragment[:MAX_FRAGMENT_CHARS], keep_blank_values=True):
        if key in RANGES:
            number = _parse_number(key, value, warnings)
            if number is not None:
                numbers[FIELDS[key]] = number
        elif key == "rp":
            retry_on = _parse_conditions(value, warnings) or retry_on
        # Spec: "er | region | accepted, ignored"
        elif key != "er":
            warnings.append(f"{_shorten(key)}= in the URL's fragment is ignored: expected ct, rt, tt, rc or rp")
    unlisted = len(warnings) - MAX_WARNINGS
    last = (f"{unlisted} more warnings about the URL's fragment are not listed",) if unlisted > 0 else ()
    return bare, RetryPolicy(**numbers, retry_on=retry_on), (*warnings[:MAX_WARNINGS], *last)


def _shorten(text: str) -> str:
    return text if len(text) <= 40 else text[:37] + "..."


def _parse_number(key: str, value: str, warnings: list[str]) -> int | None:
    low, high = RANGES[key]
    digits = value.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()):
        warnings.append(f"{key}={_shorten(value)} in the URL's fragment is not a whole number: the default is used")
        return None
    # Nine digits suffice for clamping, and Python refuses to convert numbers of thousands of digits.
    number = int(digits[:9]) * (-1 if value.startswith("-") else 1)
    # Spec: "A value out of range is clamped, an unknown key ignored, both with a warning."
    clamped = min(max(number, low), high)
    if clamped != number:
        warnings.append(f"{key}={_shorten(value)} in the URL's fragment must be {low} to {high}: {clamped} is used")
    return clamped


def _parse_conditions(value: str, warnings: list[str]) -> frozenset[str]:
    words = {word.strip() for word in value.split(",")} - {""}
    wrong = sorted(words - {*RETRY_CONDITIONS, "all"})
    if wrong or not words:
        warnings.append(
            f"rp={_shorten(value)} in the URL's fragment: expected ct, rt, 4xx, 5xx or all, separated by commas; "
            "other words are ignored"
        )
    return frozenset(RETRY_CONDITIONS) if "all" in words else frozenset(words - set(wrong))


def next_delay_ms(
    policy: RetryPolicy, attempts: Sequence[AttemptOutcome], elapsed_ms: int, random: float
) -> int | None:
    """Return the milliseconds until the next attempt; None if delivered, not to be retried, or out of time or retries.

    `attempts` has the attempts so far, at least one; `elapsed_ms` counts from the start of the first; `random` is in
    [0, 1).
    """
    last = attempts[-1]
    left_ms = policy.total_ms - elapsed_ms
    if len(attempts) > policy.retries or left_ms <= 0 or _retry_condition(last) not in policy.retry_on:
        return None
    # Spec: "full-jitter exponential backoff from 250 ms within tt". The rest of tt bounds the random delay, so that a
    # short tt leaves time for the attempts that the user configured.
    delay_ms = int(random * min(FIRST_BACKOFF_MS * 2 ** (len(attempts) - 1), left_ms))
    # Spec: "`Retry-After` is honoured within tt". If it asks for a later time, no further attempt is made.
    if last.retry_after_ms is not None and last.retry_after_ms >= left_ms:
        return None
    return max(delay_ms, last.retry_after_ms or 0)


def _retry_condition(outcome: AttemptOutcome) -> str | None:
    if outcome.failure is not None:
        return RETRIED_AS.get(outcome.failure)
    return {4: "4xx", 5: "5xx"}.get(outcome.status // 100)


def retry_after_ms(value: str | None, now_ms: int) -> int | None:
    """Return the delay that a Retry-After header asks for (RFC 9110 §10.2.3: seconds or HTTP date); None if invalid."""
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        return int(text[:MAX_RETRY_AFTER_DIGITS]) * 1000
    try:
        date = parsedate_to_datetime(text)
        # An HTTP date is in GMT, even if it names no time zone.
        seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0, int(seconds * 1000) - now_ms)

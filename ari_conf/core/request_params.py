"""Request parameters, with the names and values of the specification."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import lru_cache
from typing import Protocol

from ari_conf.core.effects import Params

NORMAL, END_OF_DOCUMENT, BUSY, REJECTED, SCHEDULED = 4000, 4010, 3010, 3020, 6000
CANCELED_CODE, NO_MEDIA_CODE = 1000, 6020
UNREACHABLE_CODES = {"answer": 7011, "action": 7012, "redirect": 7014}
INVALID_DOCUMENT_CODES = {"answer": 8011, "action": 8012, "redirect": 8014}

EPOCH = datetime(1970, 1, 1)
"""UTC, like all times in this module."""
LATEST = 253_370_764_800_000
"""Epoch milliseconds of the beginning of the year 9999, the last year of `datetime`."""

CANCELED, NO_MEDIA = 487, 44
"""Causes that are not Q.850's: the caller hung up before the answer (SIP status 487), and no audio packet arrived for a
while (Asterisk's cause 44).
"""

# Plivo applications know these names.
Q850_CAUSE_NAMES = {
    1: "UNALLOCATED_NUMBER",
    16: "NORMAL_CLEARING",
    17: "USER_BUSY",
    18: "NO_USER_RESPONSE",
    19: "NO_ANSWER",
    20: "SUBSCRIBER_ABSENT",
    21: "CALL_REJECTED",
    27: "DESTINATION_OUT_OF_ORDER",
    28: "INVALID_NUMBER_FORMAT",
    31: "NORMAL_UNSPECIFIED",
    34: "NORMAL_CIRCUIT_CONGESTION",
    38: "NETWORK_OUT_OF_ORDER",
    41: "NORMAL_TEMPORARY_FAILURE",
    NO_MEDIA: "MEDIA_TIMEOUT",
    58: "BEARERCAPABILITY_NOTAVAIL",
    88: "INCOMPATIBLE_DESTINATION",
    102: "RECOVERY_ON_TIMER_EXPIRE",
    127: "INTERWORKING",
    CANCELED: "ORIGINATOR_CANCEL",
}


class Told(Protocol):
    """Attributes of a call that the parameters are built from. Times are epoch ms."""

    call_uuid: str
    request_uuid: str
    auth_id: str
    from_: str
    to: str
    caller_name: str
    direction: str
    headers: dict[str, str]
    started_at: int
    answered_at: int | None
    ended_at: int | None
    cause: int
    code: int
    constant_params: tuple[Params, Params] | None

    def fill(self, before: Params, after: Params) -> tuple[Params, Params]: ...


def standard_params(call: Told, event: str) -> Params:
    """Return the standard parameters of a request about the call in its present state."""
    before, after = call.constant_params or _cache_constant_params(call)
    told = (*before, ("CallStatus", call_status(call)), *after, ("Event", event))
    if call.headers:
        told += tuple(call.headers.items())
    return told if call.ended_at is None else told + hangup_params(call, call.ended_at)


def _cache_constant_params(call: Told) -> tuple[Params, Params]:
    """Build and cache the parameters that never change: building them for each callback is half of its cost."""
    before = (
        ("CallUUID", call.call_uuid),
        # Spec: "A leading `+` is stripped from From and To."
        ("From", call.from_.removeprefix("+")),
        ("To", call.to.removeprefix("+")),
        ("Direction", call.direction),
    )
    seconds, ms = divmod(call.started_at, 1000)
    after = (
        ("CallerName", call.caller_name),
        ("SessionStart", f"{format_second(seconds)}.{ms:03}000"),
        ("ParentAuthID", call.auth_id),
        ("RequestUUID", call.request_uuid),
    )
    return call.fill(before, after)


def call_status(call: Told) -> str:
    if call.ended_at is not None:
        return "completed"
    return "ringing" if call.answered_at is None else "in-progress"


def hangup_params(call: Told, at: int) -> Params:
    answered = call.answered_at
    return (
        ("HangupCause", Q850_CAUSE_NAMES.get(call.cause, "NORMAL_UNSPECIFIED")),
        ("HangupCauseCode", str(call.code)),
        ("Duration", str((at - call.started_at) // 1000)),
        # Seconds since the answer, rounded up.
        ("BillDuration", str(0 if answered is None else -(-(at - answered) // 1000))),
        ("StartTime", format_second(call.started_at // 1000)),
        ("EndTime", format_second(at // 1000)),
        ("AnswerTime", "" if answered is None else format_second(answered // 1000)),
    )


@lru_cache(1024)
def format_second(since_1970: int) -> str:
    # This takes half as long as strftime.
    return (EPOCH + timedelta(0, since_1970)).isoformat(" ")


def plausible(*times: int | None) -> bool:
    """Return whether every time can be formatted: it is None, or epoch ms from 1970 to 9999."""
    return all(at is None or 0 <= at <= LATEST for at in times)


def bool_text(value: bool) -> str:
    return "true" if value else "false"


def as_params(params: dict[str, str]) -> Params:
    return tuple(params.items())

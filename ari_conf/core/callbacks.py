"""The parameters of requests, in the specification's words."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING

from ari_conf.core.effects import Params

if TYPE_CHECKING:
    from ari_conf.core.call_state import CallState

NORMAL, END_OF_DOCUMENT, BUSY, REJECTED, SCHEDULED = 4000, 4010, 3010, 3020, 6000
CANCELED_CODE, NO_MEDIA_CODE = 1000, 6020
UNREACHABLE = {"answer": 7011, "action": 7012, "redirect": 7014}
INVALID = {"answer": 8011, "action": 8012, "redirect": 8014}

EPOCH = datetime(1970, 1, 1)
"""UTC, as all times here."""
LATEST = 253_370_764_800_000
"""The year 9999: no calendar goes further."""

CANCELED, NO_MEDIA = 487, 44
"""Beside Q.850's: the caller hung up before the answer, by SIP's number for it. And the cause that Asterisk gives for a
call without any packet of sound for a while."""

# By the names that Plivo's applications know.
CAUSES = {
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


def standard(call: CallState, event: str) -> Params:
    """The standard parameters of a request about this call, as it is now."""
    before, after = call.standing or _stand(call)
    told = (*before, ("CallStatus", status(call)), *after, ("Event", event))
    if call.headers:
        told += tuple(call.headers.items())
    return told if call.ended_at is None else told + ended(call, call.ended_at)


def _stand(call: CallState) -> tuple[Params, Params]:
    """What of them never changes, and is half of what a callback costs if it is made for each."""
    before = (
        ("CallUUID", call.call_uuid),
        # "A leading + is stripped from From and To."
        ("From", call.from_.removeprefix("+")),
        ("To", call.to.removeprefix("+")),
        ("Direction", call.direction),
    )
    seconds, ms = divmod(call.started_at, 1000)
    after = (
        ("CallerName", call.caller_name),
        ("SessionStart", f"{second(seconds)}.{ms:03}000"),
        ("ParentAuthID", call.auth_id),
        ("RequestUUID", call.request_uuid),
    )
    return call.stand(before, after)


def status(call: CallState) -> str:
    if call.ended_at is not None:
        return "completed"
    return "ringing" if call.answered_at is None else "in-progress"


def ended(call: CallState, at: int) -> Params:
    answered = call.answered_at
    return (
        ("HangupCause", CAUSES.get(call.cause, "NORMAL_UNSPECIFIED")),
        ("HangupCauseCode", str(call.code)),
        ("Duration", str((at - call.started_at) // 1000)),
        # Whole seconds, begun ones counted, from the answer on.
        ("BillDuration", str(0 if answered is None else -(-(at - answered) // 1000))),
        ("StartTime", second(call.started_at // 1000)),
        ("EndTime", second(at // 1000)),
        ("AnswerTime", "" if answered is None else second(answered // 1000)),
    )


@lru_cache(1024)
def second(since_1970: int) -> str:
    # Half of what strftime takes.
    return (EPOCH + timedelta(0, since_1970)).isoformat(" ")


def plausible(*times: int | None) -> bool:
    """They can be told: None, or epoch ms that a calendar has."""
    return all(at is None or 0 <= at <= LATEST for at in times)


def truth(value: bool) -> str:
    return "true" if value else "false"


def frozen(params: dict[str, str]) -> Params:
    return tuple(params.items())

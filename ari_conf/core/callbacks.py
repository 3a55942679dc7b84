"""The parameters of requests, in the specification's words."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING

from ari_conf.core.effects import Params

if TYPE_CHECKING:
    from ari_conf.core.call import Call

NORMAL, END_OF_DOCUMENT, BUSY, REJECTED, SCHEDULED = 4000, 4010, 3010, 3020, 6000
UNREACHABLE = {"answer": 7011, "action": 7012, "redirect": 7014}
INVALID = {"answer": 8011, "action": 8012, "redirect": 8014}

# Q.850, by the names that Plivo's applications know.
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
    44: "REQUESTED_CHAN_UNAVAIL",
    58: "BEARERCAPABILITY_NOTAVAIL",
    88: "INCOMPATIBLE_DESTINATION",
    102: "RECOVERY_ON_TIMER_EXPIRE",
    127: "INTERWORKING",
}


def standard(call: Call, event: str, now: int) -> dict[str, str]:
    """The standard parameters of a request about this call at `now`."""
    params = {
        "CallUUID": call.call_uuid,
        # "A leading + is stripped from From and To."
        "From": call.from_.removeprefix("+"),
        "To": call.to.removeprefix("+"),
        "Direction": call.direction,
        "CallStatus": status(call),
        "CallerName": call.caller_name,
        "SessionStart": moment(call.started_at, "%Y-%m-%d %H:%M:%S.%f"),
        "ParentAuthID": call.auth_id,
        "RequestUUID": call.request_uuid,
        "Event": event,
    }
    params.update(call.headers)
    if call.ended_at is not None:
        params.update(ended(call, call.ended_at))
    return params


def status(call: Call) -> str:
    if call.ended_at is not None:
        return "completed"
    return "ringing" if call.answered_at is None else "in-progress"


def ended(call: Call, at: int) -> dict[str, str]:
    answered = call.answered_at
    params = {
        "HangupCause": CAUSES.get(call.cause, "NORMAL_UNSPECIFIED"),
        "HangupCauseCode": str(call.code),
        "Duration": str((at - call.started_at) // 1000),
        # Whole seconds, begun ones counted, from the answer on.
        "BillDuration": str(0 if answered is None else -(-(at - answered) // 1000)),
        "StartTime": moment(call.started_at, "%Y-%m-%d %H:%M:%S"),
        "EndTime": moment(at, "%Y-%m-%d %H:%M:%S"),
    }
    params["AnswerTime"] = "" if answered is None else moment(answered, "%Y-%m-%d %H:%M:%S")
    return params


@lru_cache(1024)
def moment(at: int, form: str) -> str:
    return datetime.fromtimestamp(at / 1000, UTC).strftime(form)


def truth(value: bool) -> str:
    return "true" if value else "false"


def frozen(params: dict[str, str]) -> Params:
    return tuple(params.items())

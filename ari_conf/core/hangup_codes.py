"""Hangup codes and causes: why a call ended, with the names and values of the specification."""

from __future__ import annotations

from enum import IntEnum
from typing import Literal

HangupSource = Literal["Caller", "Callee", "Plivo", "Carrier", "API Request", "Answer XML", "Error", "Unknown"]
"""HangupSource: who ended the call. Plivo: the server itself, by a limit or a schedule."""


class HangupCode(IntEnum):
    """HangupCauseCode: what happened in the document or in the server."""

    UNKNOWN = 0
    CANCELED = 1000
    INVALID_DESTINATION = 2000
    OUT_OF_SERVICE = 2010
    LOOP = 2060
    NO_ANSWER = 3000
    BUSY = 3010
    REJECTED = 3020
    NORMAL = 4000
    END_OF_DOCUMENT = 4010
    SCHEDULED = 6000
    RING_TIMEOUT = 6010
    NO_MEDIA = 6020
    ANSWER_UNREACHABLE = 7011
    ACTION_UNREACHABLE = 7012
    TRANSFER_UNREACHABLE = 7013
    REDIRECT_UNREACHABLE = 7014
    ANSWER_INVALID = 8011
    ACTION_INVALID = 8012
    TRANSFER_INVALID = 8013
    REDIRECT_INVALID = 8014
    LOST_RACE = 9000
    MACHINE_DETECTED = 9100


CODE_NAMES: dict[int, str] = {
    HangupCode.UNKNOWN: "Unknown",
    HangupCode.CANCELED: "Canceled",
    HangupCode.INVALID_DESTINATION: "Invalid Destination Address",
    HangupCode.OUT_OF_SERVICE: "Destination Out Of Service",
    HangupCode.LOOP: "Loop Detected",
    HangupCode.NO_ANSWER: "No Answer",
    HangupCode.BUSY: "Busy Line",
    HangupCode.REJECTED: "Rejected",
    HangupCode.NORMAL: "Normal Hangup",
    HangupCode.END_OF_DOCUMENT: "End Of XML Instructions",
    HangupCode.SCHEDULED: "Scheduled Hangup",
    HangupCode.RING_TIMEOUT: "Ring Timeout Reached",
    HangupCode.NO_MEDIA: "Media Timeout",
    HangupCode.ANSWER_UNREACHABLE: "Error Reaching Answer URL",
    HangupCode.ACTION_UNREACHABLE: "Error Reaching Action URL",
    HangupCode.TRANSFER_UNREACHABLE: "Error Reaching Transfer URL",
    HangupCode.REDIRECT_UNREACHABLE: "Error Reaching Redirect URL",
    HangupCode.ANSWER_INVALID: "Invalid Answer XML",
    HangupCode.ACTION_INVALID: "Invalid Action XML",
    HangupCode.TRANSFER_INVALID: "Invalid Transfer XML",
    HangupCode.REDIRECT_INVALID: "Invalid Redirect XML",
    HangupCode.LOST_RACE: "Lost Race",
    HangupCode.MACHINE_DETECTED: "Machine Detected",
}
"""HangupCauseName, by HangupCauseCode."""
SOURCES: dict[int, HangupSource] = {
    HangupCode.UNKNOWN: "Unknown",
    HangupCode.CANCELED: "API Request",
    HangupCode.INVALID_DESTINATION: "Carrier",
    HangupCode.OUT_OF_SERVICE: "Carrier",
    HangupCode.LOOP: "Plivo",
    HangupCode.NO_ANSWER: "Carrier",
    HangupCode.BUSY: "Carrier",
    HangupCode.REJECTED: "Carrier",
    HangupCode.NORMAL: "Unknown",
    HangupCode.END_OF_DOCUMENT: "Answer XML",
    HangupCode.SCHEDULED: "Plivo",
    HangupCode.RING_TIMEOUT: "Plivo",
    HangupCode.NO_MEDIA: "Plivo",
    HangupCode.LOST_RACE: "Plivo",
    HangupCode.MACHINE_DETECTED: "Plivo",
}
"""HangupSource that a code implies; the codes that are not here imply `Error`."""
STATUSES: dict[int, str] = {
    HangupCode.CANCELED: "cancel",
    HangupCode.NO_ANSWER: "no-answer",
    HangupCode.BUSY: "busy",
    HangupCode.REJECTED: "busy",
    HangupCode.SCHEDULED: "timeout",
    HangupCode.RING_TIMEOUT: "timeout",
    HangupCode.LOST_RACE: "cancel",
}
"""CallStatus of a placed call that was not answered; the codes that are not here mean `failed`."""


UNREACHABLE_CODES = {
    "answer": HangupCode.ANSWER_UNREACHABLE,
    "action": HangupCode.ACTION_UNREACHABLE,
    "transfer": HangupCode.TRANSFER_UNREACHABLE,
    "redirect": HangupCode.REDIRECT_UNREACHABLE,
}
INVALID_DOCUMENT_CODES = {
    "answer": HangupCode.ANSWER_INVALID,
    "action": HangupCode.ACTION_INVALID,
    "transfer": HangupCode.TRANSFER_INVALID,
    "redirect": HangupCode.REDIRECT_INVALID,
}

CANCELED_CAUSE, NO_MEDIA_CAUSE, TIME_LIMIT_CAUSE, LOST_RACE_CAUSE = 487, 44, 602, 502
"""Causes that are not Q.850's: the call was canceled before the answer (SIP status 487), no audio packet arrived for a
while (Asterisk's cause 44), its time limit was reached, and another call that competed with it was answered.
"""
NORMAL_CAUSE, NO_ANSWER_CAUSE, OUT_OF_ORDER_CAUSE, INTERWORKING_CAUSE = 16, 19, 27, 127
LOGIN_STATUSES = frozenset((401, 407))
"""SIP statuses of a provider that does not accept the trunk's login."""

# Plivo applications know these names.
Q850_CAUSE_NAMES = {
    1: "UNALLOCATED_NUMBER",
    16: "NORMAL_CLEARING",
    17: "USER_BUSY",
    18: "NO_USER_RESPONSE",
    19: "NO_ANSWER",
    20: "SUBSCRIBER_ABSENT",
    21: "CALL_REJECTED",
    22: "NUMBER_CHANGED",
    23: "REDIRECTION_TO_NEW_DESTINATION",
    27: "DESTINATION_OUT_OF_ORDER",
    28: "INVALID_NUMBER_FORMAT",
    31: "NORMAL_UNSPECIFIED",
    34: "NORMAL_CIRCUIT_CONGESTION",
    38: "NETWORK_OUT_OF_ORDER",
    41: "NORMAL_TEMPORARY_FAILURE",
    NO_MEDIA_CAUSE: "MEDIA_TIMEOUT",
    58: "BEARERCAPABILITY_NOTAVAIL",
    88: "INCOMPATIBLE_DESTINATION",
    102: "RECOVERY_ON_TIMER_EXPIRE",
    INTERWORKING_CAUSE: "INTERWORKING",
    CANCELED_CAUSE: "ORIGINATOR_CANCEL",
    LOST_RACE_CAUSE: "LOSE_RACE",
    TIME_LIMIT_CAUSE: "ALLOTTED_TIMEOUT",
}
CODES_BY_CAUSE = {
    1: HangupCode.INVALID_DESTINATION,
    17: HangupCode.BUSY,
    19: HangupCode.NO_ANSWER,
    21: HangupCode.REJECTED,
    22: HangupCode.INVALID_DESTINATION,
    23: HangupCode.INVALID_DESTINATION,
    28: HangupCode.INVALID_DESTINATION,
    INTERWORKING_CAUSE: HangupCode.REJECTED,
}
"""HangupCauseCode of a placed call that was refused."""


def cause_name(cause: int) -> str:
    return Q850_CAUSE_NAMES.get(cause, "NORMAL_UNSPECIFIED")


def code_name(code: int) -> str:
    return CODE_NAMES.get(code, "Unknown")


def source_of(code: int) -> HangupSource:
    return SOURCES.get(code, "Error")


def status_of(code: int) -> str:
    """Return the CallStatus of a placed call that ended with this code, and was not answered."""
    return STATUSES.get(code, "failed")


def refusal_code(cause: int, sip_status: int, *, rang: bool) -> HangupCode:
    """Return the code of a placed call that ended unanswered, and was not ended by the server.

    `rang`: the phone has rung."""
    if 300 <= sip_status < 400:
        # Asterisk gives a cause only for one of the redirects.
        return HangupCode.INVALID_DESTINATION
    if sip_status in LOGIN_STATUSES or (cause == INTERWORKING_CAUSE and 400 <= sip_status < 600):
        # Nobody was asked: Asterisk calls each status that it does not know interworking.
        return HangupCode.OUT_OF_SERVICE
    if (code := CODES_BY_CAUSE.get(cause)) is not None:
        return code
    if cause in (0, NORMAL_CAUSE):
        # It ended without a refusal, such as when Asterisk was stopped.
        return HangupCode.UNKNOWN
    return HangupCode.NO_ANSWER if rang and sip_status in (0, 408) else HangupCode.OUT_OF_SERVICE

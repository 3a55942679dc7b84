"""Hangup codes and causes: why a call ended, with the names and values of the specification."""

from __future__ import annotations

from enum import IntEnum


class HangupCode(IntEnum):
    """HangupCauseCode: what happened in the document or in the server."""

    CANCELED = 1000
    LOOP = 2060
    BUSY = 3010
    REJECTED = 3020
    NORMAL = 4000
    END_OF_DOCUMENT = 4010
    SCHEDULED = 6000
    NO_MEDIA = 6020
    ANSWER_UNREACHABLE = 7011
    ACTION_UNREACHABLE = 7012
    TRANSFER_UNREACHABLE = 7013
    REDIRECT_UNREACHABLE = 7014
    ANSWER_INVALID = 8011
    ACTION_INVALID = 8012
    TRANSFER_INVALID = 8013
    REDIRECT_INVALID = 8014


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

CANCELED_CAUSE, NO_MEDIA_CAUSE = 487, 44
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
    NO_MEDIA_CAUSE: "MEDIA_TIMEOUT",
    58: "BEARERCAPABILITY_NOTAVAIL",
    88: "INCOMPATIBLE_DESTINATION",
    102: "RECOVERY_ON_TIMER_EXPIRE",
    127: "INTERWORKING",
    CANCELED_CAUSE: "ORIGINATOR_CANCEL",
}


def cause_name(cause: int) -> str:
    return Q850_CAUSE_NAMES.get(cause, "NORMAL_UNSPECIFIED")

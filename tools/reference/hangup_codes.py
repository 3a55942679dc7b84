"""hangup-codes.md, from `ari_conf.core.hangup_codes`."""

from __future__ import annotations

from ari_conf.core.hangup_codes import CANCELED_CAUSE, NO_MEDIA_CAUSE, Q850_CAUSE_NAMES, HangupCode
from tools.reference.markdown import code, compare, document, table

CODES: dict[int, tuple[str, str, str]] = {
    1000: (
        "The caller hung up before the call was answered, or at the same moment.",
        "`ORIGINATOR_CANCEL`",
        "Nothing.",
    ),
    2060: (
        "The API transferred the call 70 times, and once more.",
        "`NORMAL_CLEARING`",
        "Correct the application: it transfers the same call again and again.",
    ),
    3010: (
        'A document ran `<Hangup reason="busy"/>`. In the problem list also: the account has '
        "`ARI_CONF_CALLS_PER_ACCOUNT` calls already. "
        "Such a call is refused as busy, and no request reports it.",
        "`USER_BUSY`",
        "Raise `ARI_CONF_CALLS_PER_ACCOUNT` if the limit is too low.",
    ),
    3020: (
        'A document ran `<Hangup reason="rejected"/>`, or began with a `<Hangup/>` without a reason.',
        "`CALL_REJECTED`",
        "Nothing.",
    ),
    4000: (
        "Normal end: the caller hung up, a document ran `<Hangup/>`, the API hung up the call, or Asterisk ended it "
        "for a reason of its own.",
        "`NORMAL_CLEARING`; the cause that Asterisk gives, if it ended the call",
        "Nothing.",
    ),
    4010: ("The document has no element left.", "`NORMAL_CLEARING`", "Nothing."),
    6000: (
        'A `<Hangup schedule="…"/>` was due, or it was the last element.',
        "`NORMAL_CLEARING`",
        "Nothing.",
    ),
    6020: (
        "No audio arrived from the caller for `rtp_timeout`.",
        "`MEDIA_TIMEOUT`",
        "If it happens often: check NAT, firewall and RTP ports; see [SIP](../operations/sip.md).",
    ),
    7011: (
        "The answer URL can't be reached or has no usable status, requests to it are not allowed, the local document "
        "can't be read, or the account does not exist or can't be looked up.",
        "`NORMAL_CLEARING`; `CALL_REJECTED` if the account does not exist",
        "Read the problem: it names the URL and the reason.",
    ),
    7012: ("The same for an action URL.", "`NORMAL_CLEARING`", "Read the problem."),
    7013: ("The same for the URL of a transfer.", "`NORMAL_CLEARING`", "Read the problem."),
    7014: (
        "The same for the URL of a `<Redirect>`, or its text is not an absolute http or https URL.",
        "`NORMAL_CLEARING`",
        "Read the problem.",
    ),
    8011: (
        "The answer URL's response is not a valid document.",
        "`NORMAL_CLEARING`",
        "Read the problem, and check the response with `ari-conf documents check -`.",
    ),
    8012: (
        "The same for an action URL. Also: more than 20 documents in a row led to another one within less than a "
        "second each.",
        "`NORMAL_CLEARING`",
        "As for 8011.",
    ),
    8013: ("The same as 8011 for the URL of a transfer.", "`NORMAL_CLEARING`", "As for 8011."),
    8014: ("The same as 8012 for the URL of a `<Redirect>`.", "`NORMAL_CLEARING`", "As for 8011."),
    9000: (
        "Another call of the same request, with which this one competed, was answered, and confirmed, first.",
        "`LOSE_RACE`",
        "Nothing.",
    ),
}
"""HangupCauseCode -> (situation, HangupCause, remedy)."""

CAUSES = {
    1: "The number is not assigned.",
    16: "The call ended normally.",
    17: "Busy.",
    18: "The other side did not respond, such as a phone that no longer answers Asterisk (session timer).",
    19: "The other side was alerted and did not answer.",
    20: "The other side is not registered or not reachable.",
    21: "The call was rejected.",
    27: "The destination can't be reached.",
    28: "The number is incomplete or has an invalid format.",
    31: "Normal, without a more specific reason. Also used for every cause that is not in this table.",
    34: "No circuit or channel is available.",
    38: "The network is out of order.",
    41: "Temporary failure.",
    NO_MEDIA_CAUSE: "No audio arrived for `rtp_timeout`. Asterisk uses this number for it; Q.850 means another failure "
    "by 44.",
    58: "The required bearer capability, such as a codec, is not available.",
    88: "The two sides are not compatible, such as without a common codec.",
    102: "A timer expired.",
    127: "Unspecified failure in interworking with another network.",
    CANCELED_CAUSE: "The caller hung up before the call was answered. Not a Q.850 number: SIP's status for a canceled "
    "call.",
}

INTRODUCTION = """
This page lets you find out why a call ended. Every request that is sent after the end of a call carries
`HangupCauseCode` and `HangupCause`: the request to the hangup URL, and callbacks and action requests of a conference
that the call had joined. The log event `call` holds both as `code` and `cause`. The account's problems (`ari-conf
problems ACCOUNT`) hold the code of a failure.

`HangupCauseCode` says what happened in the document or in the server. `HangupCause` is the name of the telephony
cause, as Asterisk reports it.
"""
FALLBACK = """
For 7011 to 8014 the server first requests the account's fallback URL, if it has one. The call ends with the code only
if that fails as well, or if there is none. A missing account, and too many documents in a row, end the call without
that. A call that was canceled was never answered: its `AnswerTime` is empty and its `BillDuration` is 0.
"""
REFUSED = """
Calls that Asterisk refuses itself (488 without a common codec, 401 for an unknown caller) never reach the server: no
request reports them, and only Asterisk's log has them.
"""


def page() -> str:
    compare("hangup-codes.md", map(str, CODES), (str(code.value) for code in HangupCode))
    compare("hangup-codes.md, causes", map(str, CAUSES), map(str, Q850_CAUSE_NAMES))
    by_code = table(
        ("HangupCauseCode", "When", "HangupCause", "What to do"),
        ((code(str(number)), *texts) for number, texts in sorted(CODES.items())),
    )
    by_cause = table(
        ("HangupCause", "Number", "Meaning"),
        ((code(name), str(number), CAUSES[number]) for number, name in Q850_CAUSE_NAMES.items()),
    )
    return document(
        "Hangup codes",
        INTRODUCTION,
        f"## HangupCauseCode\n\n{by_code}\n{FALLBACK}",
        "## HangupCause\n\nThe numbers are those of ITU-T Q.850, with two exceptions. They are not "
        f"sent.\n\n{by_cause}",
        f"## Calls without a code\n{REFUSED}",
    )

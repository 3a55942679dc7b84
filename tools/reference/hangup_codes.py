"""hangup-codes.md, from `ari_conf.core.hangup_codes`."""

from __future__ import annotations

from ari_conf.core.hangup_codes import (
    CANCELED_CAUSE,
    CODE_NAMES,
    LOST_RACE_CAUSE,
    NO_MEDIA_CAUSE,
    Q850_CAUSE_NAMES,
    TIME_LIMIT_CAUSE,
    HangupCode,
    source_of,
)
from tools.reference.markdown import code, compare, document, table

CODES: dict[int, tuple[str, str, str]] = {
    0: (
        "A placed call ended while no server received events, such as when Asterisk was restarted; or Redis took so "
        "long that the request for the call had expired.",
        "`NORMAL_UNSPECIFIED`",
        "Place the call again if it matters.",
    ),
    1000: (
        "The caller hung up before the call was answered, or at the same moment. A placed call: the API canceled it.",
        "`ORIGINATOR_CANCEL`",
        "Nothing.",
    ),
    2000: (
        "A placed call: the number does not exist or is incomplete, or the far end redirects the call (302).",
        "the cause that the far end gave, such as `UNALLOCATED_NUMBER`",
        "Check the number.",
    ),
    2010: (
        "A placed call: the trunks are congested, unreachable, unknown to Asterisk or refused, or share no codec.",
        "the cause that the far end gave; `DESTINATION_OUT_OF_ORDER` if nothing was dialed",
        "Read the problem; see [Trunks](../operations/trunks.md).",
    ),
    2060: (
        "The API transferred the call 70 times, and once more.",
        "`NORMAL_CLEARING`",
        "Correct the application: it transfers the same call again and again.",
    ),
    3000: (
        "A placed call: the far end gave up because nobody answered.",
        "`NO_ANSWER`, `NO_USER_RESPONSE`",
        "Nothing.",
    ),
    3010: (
        "A placed call: the phone is busy. "
        'A document ran `<Hangup reason="busy"/>`. In the problem list also: the account has '
        "`ARI_CONF_CALLS_PER_ACCOUNT` calls already. "
        "Such a call is refused as busy, and no request reports it.",
        "`USER_BUSY`",
        "Raise `ARI_CONF_CALLS_PER_ACCOUNT` if the limit is too low.",
    ),
    3020: (
        "A placed call: the phone or the carrier refuses it. "
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
        'A `<Hangup schedule="…"/>` was due, or was the last element. A placed call: `time_limit`, `hangup_on_ring`.',
        "`NORMAL_CLEARING`; `ALLOTTED_TIMEOUT` for `time_limit`, `ORIGINATOR_CANCEL` for `hangup_on_ring`",
        "Nothing.",
    ),
    6010: ("A placed call: nobody answered within `ring_timeout`.", "`NO_ANSWER`", "Nothing."),
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
    9100: ("A placed call: a machine answered, and `machine_detection` is `hangup`.", "`NORMAL_CLEARING`", "Nothing."),
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
    22: "The number has changed.",
    23: "The far end redirects the call to another destination, which is not called.",
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
    LOST_RACE_CAUSE: "Another call of the same request was answered first. Not a Q.850 number.",
    TIME_LIMIT_CAUSE: "The call's time limit was reached. Not a Q.850 number.",
    CANCELED_CAUSE: "The call was canceled before it was answered. Not a Q.850 number: SIP's status for a canceled "
    "call.",
}

SOURCES = {
    0: "`Unknown`, `Error`",
    1000: "`Caller`, `API Request`",
    2010: "`Carrier`, `Error`",
    3010: "`Carrier`, `Answer XML`",
    3020: "`Carrier`, `Answer XML`",
    4000: "`Caller`, `Callee`, `API Request`, `Answer XML`, `Error`",
}
"""Codes that several can be the source of, beside the one that the code implies."""

INTRODUCTION = """
This page lets you find out why a call ended. Every request that is sent after the end of a call carries
`HangupCauseCode` and `HangupCause`: the request to the hangup URL, and callbacks and action requests of a conference
that the call had joined. The log event `call` holds both as `code` and `cause`. The account's problems (`ari-conf
problems ACCOUNT`) hold the code of a failure.

`HangupCauseCode` says what happened in the document or in the server, `HangupCauseName` is its name, and `HangupSource`
says who ended the call: `Plivo` stands for a limit or a schedule of the server's. `HangupCause` is the name of the
telephony cause, as Asterisk reports it. A *placed call* is one that the API has placed.
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
        ("HangupCauseCode", "HangupCauseName", "HangupSource", "When", "HangupCause", "What to do"),
        (
            (code(str(n)), CODE_NAMES[n], SOURCES.get(n, code(source_of(n))), *texts)
            for n, texts in sorted(CODES.items())
        ),
    )
    by_cause = table(
        ("HangupCause", "Number", "Meaning"),
        ((code(name), str(number), CAUSES[number]) for number, name in Q850_CAUSE_NAMES.items()),
    )
    return document(
        "Hangup codes",
        INTRODUCTION,
        f"## HangupCauseCode\n\n{by_code}\n{FALLBACK}",
        "## HangupCause\n\nThe numbers are those of ITU-T Q.850, with three exceptions. They are not "
        f"sent.\n\n{by_cause}",
        f"## Calls without a code\n{REFUSED}",
    )

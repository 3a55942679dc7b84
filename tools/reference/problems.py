"""problems.md, from `ari_conf.core.problem_kinds`: the docstring of each kind says what happened."""

from __future__ import annotations

import ast
import inspect

from ari_conf.core import problem_kinds
from ari_conf.core.problem_kinds import ProblemKind
from tools.reference.markdown import code, compare, document, table

REMEDIES = {
    "account_unknown": "**Operator**: `ari-conf account add`, or correct `Stasis(ari_conf,ACCOUNT)` in the dialplan.",
    "answer_url_missing": "**Operator**: `ari-conf account set`, or name a document in the dialplan.",
    "call_not_started": "**Operator**: check Redis, `ari-conf doctor`.",
    "call_not_dialed": "**Operator**: see in Asterisk if the trunk's endpoint exists, and if its contact is reachable.",
    "dialing_refused": "Correct the number or caller ID, or wait until a limit allows it. **Operator**: `ari-conf "
    "trunk test` shows the route, and `ari-conf account set` changes what the account may dial; see "
    "[Trunks](../operations/trunks.md).",
    "minutes_used_up": "Wait until midnight (UTC). **Operator**: `ari-conf account set --dial-minutes-per-day`, or, if "
    "the account's application did not place these calls, rotate its token.",
    "too_many_calls": "End calls. **Operator**: raise `ARI_CONF_CALLS_PER_ACCOUNT`.",
    "headers_incomplete": "Send fewer or shorter X-PH- headers. **Operator**: if Asterisk did not answer, it may be "
    "overloaded.",
    "too_many_transfers": "Correct the application: it transfers the same call again and again.",
    "call_transferred": "Callers must not transfer the call with their phones.",
    "call_ended_by_error": "**Operator**: report it, with the server's log.",
    "document_invalid": "Correct what the text names; `ari-conf documents check` shows the same.",
    "document_unreachable": "Request the URL from the server's machine; see [Your URL can't be "
    "reached](../guide/troubleshooting.md#your-url-cant-be-reached). If requests of the account wait already, use "
    "fewer or smaller documents and sounds.",
    "document_warning": "Correct what the text names. For a text that no voice speaks, **operator**: install voices.",
    "document_loop": "Add a `Wait` to the document, or let it lead somewhere else.",
    "url_not_allowed": "Correct the URL, or use a public address. **Operator**: `ARI_CONF_ALLOWED_NETWORKS`.",
    "sound_unreachable": "Request the URL from the server's machine: it must return an mp3 or wav file of at most "
    "10 MB, without a login.",
    "sound_unplayable": "Convert the file to mp3 or wav, or make it smaller. **Operator**: if the cache is full, raise "
    "`ARI_CONF_SOUNDS_LIMIT_MB`.",
    "sound_document_failed": "Request its URL by POST: it must return XML with `Play`, `Speak` or `Wait`, or an audio "
    "file.",
    "sounds_dropped": "Use shorter enter and exit sounds, or none in a conference that many callers enter at once.",
    "speech_failed": "Correct or shorten the text of the `Speak`. **Operator**: install voices.",
    "conference_not_joined": "Let all callers of a conference call the same server.",
    "conference_split": "End one of the conferences, and let its callers call again.",
    "machine_detection_failed": "**Operator**: Asterisk must load `chan_rtp` and reach `ARI_CONF_MEDIA_LISTEN` by UDP. "
    "At most 50 channels are listened to at once.",
    "asterisk_failed": "**Operator**: if it happens again, read the logs of the server and of Asterisk.",
    "line_bad": "The member should use a cable instead of Wi-Fi, or another network. If many members are concerned, "
    "**operator**: see [A member is hard to understand](../guide/troubleshooting.md#a-member-is-hard-to-understand).",
    "recording_failed": "**Operator**: check that Asterisk's disk has free space, and `recording-folder` of the "
    "doctor.",
    "recording_incomplete": "Look the recording up by its ID, on the dashboard or over the API.",
    "recording_lost": "**Operator**: read the worker's log; Asterisk's disk and the bucket must have free space.",
    "recordings_wait": "**Operator**: `ari-conf recordings pending` shows what they wait for.",
    "transcription_failed": "**Operator**: correct what the text names, then `ari-conf recordings retry`.",
    "callback_dead_lettered": "See what the receiver responded, correct the receiver, then resend the dead letter.",
    "callback_too_long": "Shorten what makes it so long, such as a URL or SIP headers.",
    "callbacks_full": "Correct the receivers; see [No callback "
    "arrives](../guide/troubleshooting.md#no-callback-arrives).",
    "callbacks_lost": "**Operator**: check Redis, `ari-conf doctor`.",
    "result_lost": "Check whether the call was carried out, and repeat it if it was not.",
}
"""Kind -> what to do."""

INTRODUCTION = """
This page lists the kinds of problems: what happened, and what to do. A problem is listed on the dashboard, by `ari-conf
problems ACCOUNT` and by the [REST API](rest-api.md#problems). Its `kind` is for programs. Its text names the cause,
and may change.

**Operator** marks what needs access to the server. If a program meets a kind that it does not know, it should show the
text.
"""


def descriptions() -> dict[str, str]:
    """Return the docstring of each kind."""
    (kinds,) = ast.parse(inspect.getsource(problem_kinds.ProblemKind)).body
    assert isinstance(kinds, ast.ClassDef)
    found = {}
    for assignment, docstring in zip(kinds.body, kinds.body[1:], strict=False):
        match assignment, docstring:
            case ast.Assign(value=ast.Constant(str(kind))), ast.Expr(ast.Constant(str(text))):
                found[kind] = text
    return found


def page() -> str:
    texts = descriptions()
    compare("problems.md, docstrings", texts, ProblemKind)
    compare("problems.md", REMEDIES, ProblemKind)
    rows = ((code(kind), texts[kind], REMEDIES[kind]) for kind in ProblemKind)
    return document("Problems", INTRODUCTION, table(("`kind`", "What happened", "What to do"), rows))

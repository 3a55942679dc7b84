"""xml.md, from `ari_conf.core.elements` and `ari_conf.documents.parser`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, get_args

from ari_conf.core import elements as el
from ari_conf.core.account import MAX_MEMBERS, PLIVOS_MEMBERS
from ari_conf.core.bounds import MAX_DIGITS, MAX_PATTERNS
from ari_conf.core.calls.call import MAX_RAPID_DOCUMENTS
from ari_conf.core.calls.confirmation import KEY_TIMEOUT_S
from ari_conf.core.conferences.conference import MAX_CONFERENCE_S
from ari_conf.documents import parser
from ari_conf.media import ssml
from tools.reference.markdown import IncompleteTable, code, compare, document, table

TYPES: dict[str, type] = {kind.__name__: kind for kind in (*get_args(el.Element), el.Number)}

CONTENT = {
    "Play": "The URL of an mp3 or wav file, 10 MB at most.",
    "Speak": f"Text, or SSML; {ssml.MAX_SPOKEN} characters at most as they are spoken. Longer text is cut, with a "
    "warning.",
    "Wait": "Nothing.",
    "Hangup": "Nothing.",
    "Redirect": "The URL of the next document. It replaces the rest of this one.",
    "GetDigits": "The prompt: elements that are played one after another, until the first digit is pressed.",
    "GetInput": "The prompt, as in `GetDigits`.",
    "DTMF": "Digits `0`-`9`, `*` and `#` that are sent to the phone; `w` pauses for 0.5 s, `W` for 1 s. At most 100.",
    "Record": "Nothing.",
    "PreAnswer": "Elements that run as early media, before the call is answered.",
    "Conference": f"The name of the conference: trimmed, case-sensitive, any Unicode characters, {parser.MAX_NAME} at "
    "most.",
    "Dial": f"The destinations, at most {el.MAX_NUMBERS}, which are called at the same time: the first who answers is "
    "connected.",
    "Number": "A number, or a SIP URI. `<User>` is the same, and takes SIP URIs only.",
}
ANSWERS = {
    "Play": "yes",
    "Speak": "yes",
    "Wait": "yes, unless it is the first element",
    "Hangup": "no",
    "Redirect": "no",
    "GetDigits": "yes",
    "GetInput": "yes",
    "DTMF": "yes",
    "Record": "yes",
    "PreAnswer": "no, nor do the elements in it",
    "Conference": "yes, when the caller is admitted",
    "Dial": "yes, unless none of its destinations may be called",
    "Number": "no",
}
REQUESTS = {
    "Play": "The file is fetched by GET, and kept as long as its `Cache-Control` says. A file that can't be played is "
    "a problem; the next element runs.",
    "Speak": "None.",
    "Wait": "None.",
    "Hangup": "The account's hangup URL is requested, with `Event=Hangup` ([hangup codes](hangup-codes.md)).",
    "Redirect": "The URL is requested with `Event=Redirect`. If it fails: the account's fallback URL, else the call "
    "ends with 7014 or 8014.",
    "GetDigits": "If digits were entered, `action` is requested with `Event=Redirect` and `Digits`. If nothing was "
    "entered, `action` is not requested and the next element runs.",
    "GetInput": "If digits were entered, `action` is requested with `Event=Redirect`, `InputType=dtmf`, `Digits`, and "
    "`Speech`, `SpeechConfidenceScore` and `BilledAmount`, which are empty or 0. If nothing was entered, `action` is "
    "not requested and the next element runs.",
    "DTMF": "None.",
    "Record": "`action` is requested with `Event=Redirect` when the recording has ended, also if the caller hung up; "
    "the response is then ignored. If the recording goes on in the background, it is requested at once, with durations "
    "of -1. `callbackUrl` is requested with `Event=Record` when the file can be fetched. `transcriptionUrl` receives "
    "the transcript. See [callbacks](callbacks.md).",
    "PreAnswer": "Those of the elements in it.",
    "Conference": "`enterSound`, `exitSound` and `waitSound` are requested by POST when the caller joins. "
    "`callbackUrl` receives `enter`, `exit`, `digits`, `floor` and `record`. `action` is requested when the member has "
    "left, also if the caller hung up; the response is then ignored. `transcriptionUrl` receives the transcript. See "
    "[callbacks](callbacks.md).",
    "Dial": "`callbackUrl` receives `answer`, `connected`, `digits` and `hangup`. `action` is requested when the "
    "talk has ended or nobody was reached, also if the caller hung up; the response is then ignored. See "
    "[Dialing in a document](../guide/dial.md).",
    "Number": "None.",
}
METHOD = "HTTP method of the request"
URLS = "a [sound document](#sound-documents), or an audio file"
MEANINGS: dict[str, dict[str, str]] = {
    "Play": {"loop": "How often the file is played; 0: until the call ends."},
    "Speak": {
        "voice": "A voice, or the name of a Polly voice, which is mapped to the nearest available one.",
        "language": "The language of the text. A language that no installed voice speaks: en-US is used, with a "
        "warning.",
        "loop": "How often the text is spoken; 0: until the call ends.",
    },
    "Wait": {
        "length": "Seconds.",
        "silence": "true: the wait ends when `minSilence` of silence has been heard.",
        "minSilence": "Milliseconds of silence that end the wait.",
        "beep": "true: the wait ends at a voicemail beep. Without effect if `silence` is true.",
    },
    "Hangup": {
        "reason": "How the call is refused. As the first element without a reason: rejected.",
        "schedule": "Seconds until the call is hung up; the elements that follow run in the meantime. If none follows, "
        "the call is hung up immediately.",
    },
    "Redirect": {"method": f"{METHOD}."},
    "GetDigits": {
        "action": "Receives the digits.",
        "method": f"{METHOD} to `action`.",
        "timeout": "Seconds from the end of the prompt to the first digit.",
        "digitTimeout": "Seconds between digits.",
        "finishOnKey": "Each of these keys ends the input and is not part of it; `none`: no key does.",
        "numDigits": f"Number of digits that complete the input. The input is complete at {MAX_DIGITS} in any case.",
        "retries": "How often the prompt is played in all, if nothing is entered.",
        "redirect": "true: the response of `action` is a document that replaces the rest of this one. false: the "
        "response is ignored and the next element runs.",
        "playBeep": "true: a tone follows the prompt.",
        "validDigits": "Any other digit ends the attempt.",
        "invalidDigitsSound": "The URL of a sound that is played after an invalid digit.",
        "log": "Accepted without effect: the logs never contain digits.",
    },
    "GetInput": {
        "action": "Receives the digits.",
        "method": f"{METHOD} to `action`.",
        "inputType": "speech is not supported: an element with `speech` alone is skipped; with `dtmf speech` only "
        "digits are taken. Both with a warning.",
        "executionTimeout": "Seconds from the end of the prompt, or from the digit that cuts it short, within which "
        "the whole input is taken. Digits that are entered by then count.",
        "digitEndTimeout": f"Seconds between digits; auto: {el.AUTO_DIGIT_END_S}.",
        "finishOnKey": "Each of these keys ends the input and is not part of it; `none`: no key does.",
        "numDigits": "Number of digits that complete the input.",
        "redirect": "true: the response of `action` is a document that replaces the rest of this one. false: the "
        "response is ignored and the next element runs.",
        "log": "Accepted without effect: the logs never contain digits.",
    },
    "DTMF": {
        "async": "true: the next element runs at once. false: it runs when the digits are sent.",
    },
    "Record": {
        "action": "Receives the recording's URL and, if a key ended it, `Digits`.",
        "method": f"{METHOD} to `action`.",
        "fileFormat": "Format of the recording.",
        "redirect": "true: the response of `action` is a document that replaces the rest of this one. false: the "
        "response is ignored and the next element runs.",
        "timeout": "Seconds of silence that end the recording, from its start or from the end of what the caller said.",
        "maxLength": "Seconds after which the recording ends, also one in the background.",
        "finishOnKey": "Each of these keys ends the recording; `none`: no key does. Other keys have no effect.",
        "playBeep": "true: a tone of 1000 Hz and 400 ms precedes the recording, and is not part of it.",
        "recordSession": "true: the call is recorded in the background until it ends: what the caller says and what "
        "they hear. The next element runs at once; `timeout`, `finishOnKey` and `playBeep` have no effect.",
        "startOnDialAnswer": "true: as `recordSession`, from the moment when a Dial that follows is answered.",
        "recordChannelType": "stereo: the caller on the left channel, what they hear on the right one; mono: both "
        "mixed. Only of a recording in the background: one of the caller's voice alone is mono.",
        "transcriptionType": "`auto`: the recording is transcribed. `hybrid` and `manual` are treated as `auto`.",
        "transcriptionUrl": "Receives the transcript.",
        "transcriptionMethod": f"{METHOD} to `transcriptionUrl`.",
        "transcriptionLanguage": "The language that is spoken; `auto`: the engine detects it. Not given: the "
        "account's language.",
        "callbackUrl": "Is told when the file can be fetched.",
        "callbackMethod": f"{METHOD} to `callbackUrl`.",
    },
    "PreAnswer": {},
    "Conference": {
        "muted": "true: the member joins muted, and hears the conference.",
        "enterSound": f"Played to the conference when the member enters; a URL names {URLS}.",
        "exitSound": f"Played to the remaining members when the member leaves; a URL names {URLS}.",
        "startConferenceOnEnter": "true: the member starts the conference. Until it has started, all members wait.",
        "endConferenceOnExit": "true: the conference ends for all members when this member leaves.",
        "stayAlone": "false: the conference ends when a member is left alone. Once a member has set false, it stays "
        "false.",
        "waitSound": f"Heard while the member waits for the start, or is alone; names {URLS}.",
        "maxMembers": f"Set by the first member. At most, and by default, the account's limit ({PLIVOS_MEMBERS}; "
        f"an operator can set up to {MAX_MEMBERS}).",
        "record": "true: the conference is recorded.",
        "recordFileFormat": "Format of the recording.",
        "timeLimit": "Seconds after which the conference ends, from the entry of the first member who sets it; 0: no "
        "limit of its own. The server's "
        f"limit is {MAX_CONFERENCE_S}.",
        "hangupOnStar": "true: the key `*` takes the member out of the conference, and the call continues.",
        "action": "Requested when the member has left.",
        "method": f"{METHOD} to `action`.",
        "redirect": "true: the response of `action` is a document that replaces the rest of this one. false: the "
        "response is ignored and the next element runs.",
        "callbackUrl": "Receives the callbacks for this member's events.",
        "callbackMethod": f"{METHOD} to `callbackUrl`.",
        "digitsMatch": f"Patterns that are reported when the member enters them; at most {MAX_PATTERNS}, of 100 "
        "digits each.",
        "relayDTMF": "true: the member's digits, except those that matched a pattern, are sent to the other members.",
        "floorEvent": "true: `callbackUrl` receives `floor` when the member takes the floor.",
        "transcriptionType": "The recording is transcribed. All three values mean auto.",
        "transcriptionUrl": "Receives the transcript.",
        "transcriptionMethod": f"{METHOD} to `transcriptionUrl`.",
        "transcriptionLanguage": "Spoken language; without it, the account's. Not part of Plivo's XML.",
        "sendDigits": "Sent into the conference when the member enters the mix; w pauses for 0.5 s, W for 1 s.",
    },
    "Dial": {
        "action": "Requested when the Dial is over, with its result.",
        "method": f"{METHOD} to `action`.",
        "hangupOnStar": "true: the caller's key `*` ends the talk, and the document continues.",
        "timeLimit": "Seconds from the answer on after which the second call is hung up.",
        "timeout": "Seconds within which somebody has to answer.",
        "callerId": "Number that the destinations are shown; the account must be allowed to show it. Not given: the "
        "caller's number or, if the account may not show that, the number that was called.",
        "callerName": "Name that the destinations are shown. Not given: the number.",
        "confirmSound": f"Asks for the key; names {URLS}. Not given: the server asks.",
        "confirmKey": "Key that the person who answers has to press. Not given: the answer is enough.",
        "confirmTimeout": f"Seconds after the prompt within which the key is awaited; by default {KEY_TIMEOUT_S}.",
        "dialMusic": "Sound that the caller hears until somebody answers. real, or not given: ringing.",
        "callbackUrl": "Receives the callbacks.",
        "callbackMethod": f"{METHOD} to `callbackUrl`.",
        "redirect": "true: the response of `action` is a document that replaces the rest of this one. false: the "
        "response is ignored and the next element runs.",
        "digitsMatch": f"Patterns that are reported when the caller enters them; at most {MAX_PATTERNS}.",
        "digitsMatchBLeg": f"Patterns that are reported when the person called enters them; at most {MAX_PATTERNS}.",
        "sipHeaders": "Headers of the INVITEs: `Team=blue` is sent as `X-PH-Team: blue`.",
    },
    "Number": {
        "sendDigits": "Digits that are sent after the answer; w pauses for 0.5 s, W for 1 s.",
        "sipHeaders": "Headers of this INVITE alone, besides those of the Dial.",
    },
}

EXAMPLES = {
    "Play": '<Play loop="2">https://example.com/welcome.mp3</Play>',
    "Speak": '<Speak voice="MAN" language="en-US">Your order <break time="300ms"/> has shipped.</Speak>',
    "Wait": '<Speak>One moment, please.</Speak>\n  <Wait length="10" silence="true" minSilence="1500"/>',
    "Hangup": '<Hangup schedule="60"/>\n  <Speak>This call ends in one minute.</Speak>\n  <Wait length="120"/>',
    "Redirect": '<Redirect method="GET">https://example.com/next</Redirect>',
    "Record": "<Speak>Please leave a message after the tone.</Speak>\n  "
    '<Record action="https://example.com/message" timeout="5" maxLength="120" finishOnKey="#"/>',
    "GetDigits": '<GetDigits action="https://example.com/pin" numDigits="4" timeout="7" retries="2">\n'
    "    <Speak>Please enter your PIN.</Speak>\n  </GetDigits>\n  <Speak>You entered nothing. Goodbye.</Speak>",
    "GetInput": '<GetInput action="https://example.com/menu" inputType="dtmf" numDigits="1" executionTimeout="10">\n'
    "    <Speak>Press 1 for sales, 2 for support.</Speak>\n  </GetInput>\n  <Speak>You pressed nothing.</Speak>",
    "DTMF": '<DTMF async="false">1w23</DTMF>\n  <Speak>Done.</Speak>',
    "PreAnswer": '<PreAnswer>\n    <Speak>All agents are busy.</Speak>\n  </PreAnswer>\n  <Hangup reason="busy"/>',
    "Dial": '<Dial action="https://example.com/dialed" timeout="30">\n    <Number>+4930123456</Number>\n'
    "    <User>sip:ann@pbx.example.com</User>\n  </Dial>",
    "Number": '<Dial>\n    <Number sendDigits="wwww42">+4930123456</Number>\n  </Dial>',
    "Conference": '<Conference callbackUrl="https://example.com/events#rc=3&amp;rp=all" record="true"\n'
    '              enterSound="beep:1" startConferenceOnEnter="false">standup</Conference>\n  <Speak>Goodbye.</Speak>',
}
TEXTS = {
    "Play": "https://example.com/",
    "Redirect": "https://example.com/",
    "Speak": "a",
    "Conference": "a",
    "DTMF": "1",
}
"""Minimal content of the elements that require some."""
ACTIONS = {"GetInput": ' action="https://example.com/"'}
"""Attributes that an element requires."""

INTRODUCTION = """
This page lists every element and attribute that you can use in a document. [Documents](../guide/documents.md)
explains how a document runs, [conferences](../guide/conferences.md) and [collecting
digits](../guide/collecting-digits.md) how to use the two largest elements.

A document is a `<Response>` whose elements run from top to bottom. When no element is left, the call is hung up.
`ari-conf documents check FILE` checks a document.
"""
NAMES_ARE_CASE_SENSITIVE = """
Names of elements and attributes are case-sensitive. Words such as `mp3` or `POST` are not.
"""
MISTAKES = (
    ("An attribute has a value that is not allowed", "Its default is used, with a warning"),
    ("An attribute is unknown", "It is ignored, with a warning"),
    ("An element is unknown, or not allowed where it is", "It is skipped with everything in it, with a warning"),
    ("`Play` has no valid URL, or `Speak` has no text", "The element is skipped, with a warning"),
    ("Text between elements", "It is ignored, with a warning"),
    ("A bare `&`", "It is read as `&amp;`, with a warning"),
    (
        "XML that is not well-formed, another root than `Response`, a DTD or entities, a conference without a name or "
        "with a name that is too long",
        "The document is invalid: the account's fallback URL is requested; without one the call ends with 8011, 8012 "
        "or 8014",
    ),
)
SOUND_DOCUMENTS = """
## Sound documents

The URLs of `enterSound`, `exitSound` and `waitSound` may name a document. Only {inside} run in it; everything else is
skipped with a warning. `Wait` is a pause there: `silence` and `beep` have no effect. `beep:1` is one tone of 700 Hz
and 300 ms; `beep:2` is two such tones, 200 ms apart.
"""


def children(parent: str) -> list[str]:
    """Return the names of the elements that the parser accepts inside this one."""
    return [name for name in TYPES if not _parse(_shortest(parent, _shortest(name))).warnings]


def in_sound_documents() -> list[str]:
    return [name for name in TYPES if not parser.parse_sounds(_response(_shortest(name)))[1]]


def _shortest(name: str, inside: str = "") -> str:
    return f"<{name}{ACTIONS.get(name, '')}>{TEXTS.get(name, '')}{inside}</{name}>"


def _response(inside: str) -> bytes:
    return f"<Response>\n  {inside}\n</Response>".encode()


def _parse(inside: str) -> parser.Document:
    return parser.parse(_response(inside))


def _default(default: Any) -> str:
    if isinstance(default, bool):
        return code(str(default).lower())
    return "none" if default is None or default in ("", ()) else code(str(default))


def _attributes(name: str) -> str:
    known = el.attribute_fields(TYPES[name])
    compare(f"xml.md, {name}", MEANINGS[name], known)
    rows = (
        (code(each), kind.allowed, _default(field.default), MEANINGS[name][each])
        for each, (field, kind) in known.items()
    )
    return table(("Attribute", "Allowed", "Default", "Meaning"), rows) if known else "It has no attributes."


def _example(name: str) -> str:
    found = _parse(EXAMPLES[name])
    if found.warnings:
        raise IncompleteTable(f"xml.md: the example of {name} has warnings: {'; '.join(found.warnings)}")
    return f"```xml\n{_response(EXAMPLES[name]).decode()}\n```"


def _element(name: str) -> str:
    inside = ", ".join(map(code, children(name))) or "none"
    facts = (
        ("Content", CONTENT[name]),
        ("Elements in it", "[SSML](#ssml-in-speak)" if name == "Speak" else inside),
        ("Answers the call", ANSWERS[name]),
        ("Requests that follow", REQUESTS[name]),
    )
    return "\n\n".join((f"## {name}", table((f"`<{name}>`", ""), facts), _attributes(name), _example(name)))


def _values() -> str:
    words = {True: "true", False: "false"}
    booleans = (
        f"{words[meant]}: " + ", ".join(code(text) for text, value in el.BOOLEANS.items() if value is meant)
        for meant in words
    )
    rows = (
        ("true or false", "; ".join(booleans) + "; in any case"),
        (
            "number",
            f"Digits only; surrounding white space is allowed. A number above {el.MAX_INTEGER} counts as "
            f"{el.MAX_INTEGER}",
        ),
        (
            "URL",
            f"Absolute, http or https, at most {el.MAX_URL_CHARACTERS} characters. White space and non-ASCII "
            "characters are percent-encoded. A user name and password are sent as `Authorization: Basic`. "
            "The fragment holds the [retry policy](callbacks.md) and is never sent",
        ),
        ("empty", "The attribute was not given"),
        (
            "`none`",
            "false for true-or-false attributes, 0 for `loop`, no key for `finishOnKey`; for every other attribute: "
            "not given",
        ),
    )
    return f"## Values\n\n{table(('Value', 'How it is read'), rows)}\n{NAMES_ARE_CASE_SENSITIVE}"


def _mistakes() -> str:
    ignored = (f"{code(name)} of `{element}`" for element, names in el.IGNORED_ATTRIBUTES.items() for name in names)
    rows = (
        *MISTAKES,
        (f"An attribute of Plivo's SDKs without effect: {', '.join(ignored)}", "It is accepted, without a warning"),
        (
            f"An element of Plivo's that does not run here: {', '.join(map(code, el.UNSUPPORTED_ELEMENTS))}",
            "It is skipped with everything in it, with a warning that names it",
        ),
    )
    shown = table(("Mistake", "What happens"), rows)
    return f"## Mistakes\n\n{shown}\n\nWarnings are in the account's problems, and in the log."


def _limits() -> str:
    rows = (
        ("Size of a document", f"{parser.MAX_BYTES // 1024} KB", "The document is invalid"),
        ("Levels of nesting", str(parser.MAX_DEPTH), "The document is invalid"),
        ("Elements", str(parser.MAX_ELEMENTS), "The document is invalid"),
        ("Attributes of one element", str(parser.MAX_ATTRIBUTES), "Further ones are ignored, with a warning"),
        ("Name of a conference", f"{parser.MAX_NAME} characters", "The document is invalid"),
        ("URL", f"{el.MAX_URL_CHARACTERS} characters", "The value is not allowed"),
        ("Warnings of one document", str(parser.MAX_WARNINGS), "Further ones are counted"),
        (
            "Documents in a row that lead to another one within less than a second each",
            str(MAX_RAPID_DOCUMENTS),
            "The call ends with 8012 or 8014",
        ),
    )
    return "## Limits\n\n" + table(("What", "At most", "Beyond it"), rows)


def _ssml() -> str:
    rows = ((code(name), ", ".join(map(code, names)) or "none") for name, names in ssml.ELEMENTS.items())
    one, all_ = ssml.MAX_PAUSE_MS // 1000, ssml.MAX_PAUSES_MS // 1000
    pauses = f"A pause lasts {one} s at most, all pauses of one Speak {all_} s. See [sounds](../guide/sounds.md)."
    return f"## SSML in Speak\n\n{table(('Element', 'Attributes'), rows)}\n\n{pauses}"


def page() -> str:
    tables: tuple[Iterable[str], ...] = (CONTENT, ANSWERS, REQUESTS, MEANINGS, EXAMPLES)
    for texts in tables:
        compare("xml.md", texts, TYPES)
    return document(
        "XML elements",
        INTRODUCTION,
        *map(_element, TYPES),
        _ssml(),
        SOUND_DOCUMENTS.format(inside=", ".join(map(code, in_sound_documents()))),
        _values(),
        _mistakes(),
        _limits(),
    )

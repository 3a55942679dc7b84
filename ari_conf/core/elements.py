"""Document elements: the elements that a document may contain, and the name, type and default of each attribute.

The field `start_conference_on_enter` is `startConferenceOnEnter` in XML. A field that is annotated with an
`AttributeType` is an XML attribute; the others hold the element's text or children. `documents/parser.py` reads XML by
these types.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Annotated, Any, Generic, TypeVar, get_origin
from urllib.parse import quote, urlsplit

from msgspec.structs import FieldInfo, fields

from ari_conf.core.bounds import MAX_PATTERNS
from ari_conf.core.frozen import Frozen

T = TypeVar("T")

VOICES = ("WOMAN", "MAN")
DIGITS = "0123456789*#"
MAX_INTEGER = 999_999_999
"""Maximum of every number in a document; as seconds, 31 years."""
MAX_URL_CHARACTERS = 2048
"""Maximum number of characters in a URL: every callback, problem and log entry that names the URL contains them."""
URL = re.compile(r"(https?://[^\s/?#]+)([/?#].*)?", re.DOTALL | re.IGNORECASE)
"""Two groups: the URL up to the end of the host, and the rest."""
NOT_IN_URL = re.compile(r"[^\x21-\x7e]+")
LOGIN = re.compile(r"(://)[^\s/?#]*@")
NOT_GIVEN: Any = object()
"""Result of reading a value that means that the attribute was not given."""


class InvalidValue(ValueError):
    """Error for a value that is not allowed; the text says what is allowed."""


@dataclass(frozen=True)
class AttributeType(Generic[T]):
    """Type of an attribute's value. Its call reads a text, and raises InvalidValue if the text is not allowed."""

    allowed: str
    """Description of the allowed values, for error texts and the reference."""
    parse: Callable[[str], T]
    """Parser. Raises KeyError or ValueError for what is not allowed, and InvalidValue if it has more to say of it."""
    none: Any = NOT_GIVEN
    """Value of the text `none`, which Plivo's PHP and Ruby SDKs write for false, null, 0 and empty."""

    def __call__(self, text: str) -> T:
        try:
            return self.parse(text)
        except InvalidValue:
            raise
        except (KeyError, ValueError):
            raise InvalidValue(self.allowed) from None

    def read(self, text: str) -> Any:
        """Return the value of an attribute in a document, or NOT_GIVEN. Raises InvalidValue."""
        bare = text.strip()
        if not bare:
            return NOT_GIVEN
        return self.none if bare.lower() == "none" else self(text)


def attribute_type(allowed: str, none: Any = NOT_GIVEN) -> Callable[[Callable[[str], T]], AttributeType[T]]:
    """Return a decorator that makes an attribute's type of a parser."""
    return lambda parse: AttributeType(allowed, parse, none)


BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


@attribute_type("true or false", none=False)
def boolean(text: str) -> bool:
    return BOOLEANS[text.strip().lower()]


def one_of(*words: str) -> AttributeType[str]:
    by_lower = {word.lower(): word for word in words}
    return AttributeType(" or ".join(words), lambda text: by_lower[text.strip().lower()])


def integer(low: int, high: int | None = None) -> AttributeType[int]:
    allowed = f"a whole number from {low} to {high}" if high is not None else f"a whole number, {low} or more"

    def parse(text: str) -> int:
        text = text.strip()
        # int() also accepts signs, underscores and digits of other scripts.
        if not (text.isascii() and text.isdigit()):
            raise ValueError
        # int() refuses numbers with thousands of digits, and no timer can run that long: values above MAX_INTEGER
        # become MAX_INTEGER.
        digits = text.lstrip("0") or "0"
        value = min(int(digits[: len(str(MAX_INTEGER)) + 1]), MAX_INTEGER)
        if value < low or (high is not None and value > high):
            raise ValueError
        return value

    return AttributeType(allowed, parse)


@attribute_type("an absolute http or https URL")
def url(text: str) -> str | None:
    """Return the URL, or None for an empty text: the SDKs write attributes that were not given as empty.

    Characters that a URL can't contain (spaces, line breaks, non-ASCII letters) are percent-encoded, as in browsers.
    Raises InvalidValue if the text is not an absolute http or https URL, or is too long.
    """
    text = text.strip()
    if not text:
        return None
    if len(text) > MAX_URL_CHARACTERS:
        raise InvalidValue(f"an absolute http or https URL of at most {MAX_URL_CHARACTERS} characters")
    found = URL.fullmatch(text)
    if found is None:
        raise ValueError
    text = found[1] + NOT_IN_URL.sub(lambda part: quote(part[0], safe="", errors="replace"), found[2] or "")
    try:
        parts = urlsplit(text)
        absolute = bool(parts.hostname) and parts.port != 0
    except ValueError:
        absolute = False
    if not absolute:
        raise ValueError
    if len(text) > MAX_URL_CHARACTERS:
        raise InvalidValue(f"an absolute http or https URL of at most {MAX_URL_CHARACTERS} characters, percent-encoded")
    return text


def without_login(text: str) -> str:
    """Remove user names and passwords from the URLs in a text that is to be displayed."""
    return LOGIN.sub(r"\1***@", text) if "@" in text else text


SOUND_SOURCE = "beep:1, beep:2, {}, or empty"


@attribute_type(SOUND_SOURCE.format(url.allowed))
def sound_source(text: str) -> str | None:
    text = text.strip()
    if text in ("beep:1", "beep:2"):
        return text
    try:
        return url(text)
    except InvalidValue as error:
        raise InvalidValue(SOUND_SOURCE.format(error)) from None


@attribute_type("patterns of the digits 0-9 * #, separated by commas")
def digit_patterns(text: str) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(part.strip() for part in text.split(","))) if text.strip() else ()
    if not all(0 < len(part) <= 100 and set(part) <= set(DIGITS) for part in found):
        raise ValueError
    if len(found) > MAX_PATTERNS:
        raise InvalidValue(f"at most {MAX_PATTERNS} patterns")
    return found


@attribute_type("the digits 0-9 * #")
def digit_set(text: str) -> str:
    # Each digit is kept once: a text with thousands of digits means no more than the twelve that exist.
    kept = "".join(c for c in dict.fromkeys(text) if c not in ", ")
    if not set(kept) <= set(DIGITS):
        raise ValueError
    return kept


@attribute_type(digit_set.allowed, none="")
def finish_keys(text: str) -> str:
    return "" if text.strip().lower() == "none" else digit_set(text)


@attribute_type("digits 0-9 * #, w (0.5 s) and W (1 s), at most 100")
def digits_and_pauses(text: str) -> str:
    text = text.strip()
    if not set(text) <= set(DIGITS + "wW") or len(text) > 100:
        raise ValueError
    return text


INPUT_TYPES = {"dtmf": "dtmf", "speech": "speech", "dtmf speech": "dtmf speech", "speech dtmf": "dtmf speech"}


@attribute_type("dtmf, speech, or dtmf speech")
def input_type(text: str) -> str:
    return INPUT_TYPES[" ".join(text.lower().split())]


_end_timeout = integer(2, 10)


@attribute_type("auto, or a whole number from 2 to 10")
def end_timeout(text: str) -> int | None:
    """Return the seconds, or None for auto."""
    return None if text.strip().lower() == "auto" else _end_timeout.parse(text)


@attribute_type("WOMAN, MAN or Polly.Name")
def voice_name(text: str) -> str:
    text = text.strip()
    if text.upper() in VOICES:
        return text.upper()
    if len(text) <= 40 and text.startswith("Polly.") and text[6:].isalpha():
        return text
    raise ValueError


@attribute_type("a language code such as en-US")
def language_code(text: str) -> str:
    text = text.strip()
    if not (2 <= len(text) <= 10 and text.replace("-", "").isalnum()):
        raise ValueError
    return text


@attribute_type("a language code such as de or en-US, or auto")
def spoken_language(text: str) -> str:
    """Return the language in the form that transcription engines use: `en` for `en-US`."""
    found = text.strip().partition("-")[0].lower()
    if found != "auto" and not (len(found) in (2, 3) and found.isascii() and found.isalpha()):
        raise ValueError
    return found


@attribute_type("a number, or sip:USER@HOST, of at most 100 characters")
def caller_id(text: str) -> str:
    text = text.strip()
    if not text or len(text) > 100 or not text.isprintable():
        raise ValueError
    return text


@attribute_type("a name of at most 50 characters")
def caller_name(text: str) -> str:
    text = " ".join(text.split())
    if not text or len(text) > 50 or not text.isprintable():
        raise ValueError
    return text


@attribute_type("one of 0-9 * #")
def single_key(text: str) -> str:
    if len(key := text.strip()) != 1 or key not in DIGITS:
        raise ValueError
    return key


DIAL_MUSIC = "real, or {}"


@attribute_type(DIAL_MUSIC.format(url.allowed))
def dial_music(text: str) -> str | None:
    """Return the URL, or None for the ringing of the far phone."""
    try:
        return None if text.strip().lower() == "real" else url(text)
    except InvalidValue as error:
        raise InvalidValue(DIAL_MUSIC.format(error)) from None


SIP_HEADER = re.compile(r"([A-Za-z0-9]{1,50})=([A-Za-z0-9%._~+@ -]{0,500})")
MAX_SIP_HEADERS, MAX_SIP_HEADER_CHARACTERS = 50, 2000
"""Number and total size of a call's headers: an INVITE must fit into a few packets."""


@attribute_type(
    f"at most {MAX_SIP_HEADERS} of name=value, separated by commas, names of A-Z a-z 0-9, values also with % . _ ~ + "
    f"@ - and blanks, {MAX_SIP_HEADER_CHARACTERS} characters in total"
)
def sip_headers(text: str) -> tuple[tuple[str, str], ...]:
    """Return the headers X-PH-NAME of `k=v,k2=v2`. A comma may follow the last one, as Plivo's Java SDK writes it."""
    pairs = [pair for pair in text.split(",") if pair.strip()]
    found = [SIP_HEADER.fullmatch(pair.strip()) for pair in pairs]
    if len(pairs) > MAX_SIP_HEADERS or len(text) > MAX_SIP_HEADER_CHARACTERS or not all(found):
        raise ValueError
    headers = {f"X-PH-{each[1]}": each[2] for each in found if each is not None}
    return tuple(headers.items())


http_method = one_of("GET", "POST")
transcription = one_of("auto", "hybrid", "manual")


loop_count = replace(integer(0), none=0)


@cache
def attribute_fields(element: type[Frozen]) -> dict[str, tuple[FieldInfo, AttributeType[Any]]]:
    """Return the XML attributes of an element class: XML name -> (field, its type)."""
    return {_camel(f.name): (f, f.type.__metadata__[0]) for f in fields(element) if get_origin(f.type) is Annotated}


def _camel(name: str) -> str:
    # Plivo's relayDTMF is the only name that does not follow the rule. `async` is a word of Python's.
    special = {"relay_dtmf": "relayDTMF", "async_": "async"}
    head, *tail = name.split("_")
    return special.get(name, head + "".join(part.capitalize() for part in tail))


class Play(Frozen):
    url: str
    loop: Annotated[int, loop_count] = 1
    """Number of times that the sound is played; 0: until hangup."""


class Speak(Frozen):
    markup: str
    """Content of the element as well-formed XML: plain text is escaped, and SSML elements are the only elements."""
    voice: Annotated[str, voice_name] = "WOMAN"
    language: Annotated[str, language_code] = "en-US"
    loop: Annotated[int, loop_count] = 1


class Wait(Frozen):
    length: Annotated[int, integer(1)] = 1
    """Seconds."""
    silence: Annotated[bool, boolean] = False
    min_silence: Annotated[int, integer(1)] = 2000
    """Milliseconds."""
    beep: Annotated[bool, boolean] = False


class Hangup(Frozen):
    reason: Annotated[str | None, one_of("rejected", "busy")] = None
    schedule: Annotated[int | None, integer(0)] = None
    """Seconds."""


class Redirect(Frozen):
    url: str
    """Empty: the document's text is not a URL, so the target counts as unreachable."""
    method: Annotated[str, http_method] = "POST"


Prompt = Play | Speak | Wait


class GetDigits(Frozen):
    prompt: tuple[Prompt, ...] = ()
    action: Annotated[str | None, url] = None
    method: Annotated[str, http_method] = "POST"
    timeout: Annotated[int, integer(1)] = 5
    """Seconds from the end of the prompt to the first digit."""
    digit_timeout: Annotated[int, integer(1)] = 2
    finish_on_key: Annotated[str, finish_keys] = "#"
    """Keys that end the input; empty: no key does."""
    num_digits: Annotated[int, integer(1)] = 99
    retries: Annotated[int, integer(1)] = 1
    """Total number of times that the prompt is played."""
    redirect: Annotated[bool, boolean] = True
    play_beep: Annotated[bool, boolean] = False
    valid_digits: Annotated[str, digit_set] = "1234567890*#"
    invalid_digits_sound: Annotated[str | None, url] = None
    log: Annotated[bool, boolean] = True


class GetInput(Frozen):
    """Plivo's successor of GetDigits. Only digits are taken: nothing listens to speech."""

    prompt: tuple[Prompt, ...] = ()
    action: Annotated[str | None, url] = None
    method: Annotated[str, http_method] = "POST"
    input_type: Annotated[str, input_type] = "dtmf"
    execution_timeout: Annotated[int, integer(5, 60)] = 15
    """Seconds from the end of the prompt within which the whole input is taken."""
    digit_end_timeout: Annotated[int | None, end_timeout] = None
    """Seconds between digits; None: AUTO_DIGIT_END_S."""
    finish_on_key: Annotated[str, finish_keys] = "#"
    """Keys that end the input; empty: no key does."""
    num_digits: Annotated[int, integer(1, 32)] = 32
    redirect: Annotated[bool, boolean] = True
    log: Annotated[bool, boolean] = True


AUTO_DIGIT_END_S = 2
"""digitEndTimeout="auto" (decided): the default of GetDigits."""


class DTMF(Frozen):
    """Digits that are sent to the phone."""

    digits: str
    async_: Annotated[bool, boolean] = True
    """False: the next element runs once all digits are sent."""


class Record(Frozen):
    action: Annotated[str | None, url] = None
    method: Annotated[str, http_method] = "POST"
    file_format: Annotated[str, one_of("mp3", "wav")] = "mp3"
    redirect: Annotated[bool, boolean] = True
    timeout: Annotated[int, integer(1)] = 15
    """Seconds of silence that end the recording."""
    max_length: Annotated[int, integer(1)] = 60
    """Seconds."""
    finish_on_key: Annotated[str, finish_keys] = "#"
    """Keys that end the recording; empty: no key does."""
    play_beep: Annotated[bool, boolean] = True
    record_session: Annotated[bool, boolean] = False
    start_on_dial_answer: Annotated[bool, boolean] = False
    record_channel_type: Annotated[str, one_of("mono", "stereo")] = "stereo"
    """Only of a recording in the background; one of the caller's voice alone is mono."""
    transcription_type: Annotated[str | None, transcription] = None
    transcription_url: Annotated[str | None, url] = None
    transcription_method: Annotated[str, http_method] = "POST"
    transcription_language: Annotated[str | None, spoken_language] = None
    """None: the account's language."""
    callback_url: Annotated[str | None, url] = None
    callback_method: Annotated[str, http_method] = "POST"

    @property
    def in_background(self) -> bool:
        """Return True if the document goes on while the call is recorded."""
        return self.record_session or self.start_on_dial_answer


class PreAnswer(Frozen):
    children: tuple[Prompt | GetDigits | GetInput | DTMF | Redirect, ...] = ()


class Conference(Frozen):
    name: str
    dialed_by: str = ""
    """UUID of the call whose Dial element this is: its legs meet in a conference that nobody else sees. Empty: an
    ordinary conference."""
    muted: Annotated[bool, boolean] = False
    enter_sound: Annotated[str | None, sound_source] = None
    exit_sound: Annotated[str | None, sound_source] = None
    start_conference_on_enter: Annotated[bool, boolean] = True
    end_conference_on_exit: Annotated[bool, boolean] = False
    stay_alone: Annotated[bool, boolean] = True
    wait_sound: Annotated[str | None, url] = None
    max_members: Annotated[int | None, integer(1)] = None
    """None: not given. The account's limit is the maximum and the default: see `Account.allowed_members`."""
    record: Annotated[bool, boolean] = False
    record_file_format: Annotated[str, one_of("mp3", "wav")] = "mp3"
    time_limit: Annotated[int | None, integer(0)] = None
    """Seconds. None: not given, so another member's limit may apply. The server's cap (86400) always applies."""
    hangup_on_star: Annotated[bool, boolean] = False
    action: Annotated[str | None, url] = None
    method: Annotated[str, http_method] = "POST"
    redirect: Annotated[bool, boolean] = True
    callback_url: Annotated[str | None, url] = None
    callback_method: Annotated[str, http_method] = "POST"
    digits_match: Annotated[tuple[str, ...], digit_patterns] = ()
    relay_dtmf: Annotated[bool, boolean] = True
    floor_event: Annotated[bool, boolean] = False
    transcription_type: Annotated[str | None, transcription] = None
    transcription_url: Annotated[str | None, url] = None
    transcription_method: Annotated[str, http_method] = "POST"
    transcription_language: Annotated[str | None, spoken_language] = None
    """None: the account's language."""
    send_digits: Annotated[str, digits_and_pauses] = ""

    def directory(self, auth_id: str) -> str:
        """Return the account among whose conferences the name is; "" for a name that only the legs of a Dial know."""
        return "" if self.dialed_by else auth_id


class Number(Frozen):
    """Destination of a Dial: a number, or a SIP URI."""

    to: str
    send_digits: Annotated[str, digits_and_pauses] = ""
    sip_headers: Annotated[tuple[tuple[str, str], ...], sip_headers] = ()


class Dial(Frozen):
    numbers: tuple[Number, ...]
    """Destinations that are called at the same time, from 1 to MAX_NUMBERS."""
    action: Annotated[str | None, url] = None
    method: Annotated[str, http_method] = "POST"
    hangup_on_star: Annotated[bool, boolean] = False
    time_limit: Annotated[int, integer(1, 86_400)] = 14_400
    """Seconds from the answer of the second leg on."""
    timeout: Annotated[int, integer(1, 600)] = 120
    """Seconds within which somebody has to answer."""
    caller_id: Annotated[str | None, caller_id] = None
    """None: the caller's number."""
    caller_name: Annotated[str | None, caller_name] = None
    confirm_sound: Annotated[str | None, url] = None
    """URL of the sound document that asks for the key."""
    confirm_key: Annotated[str | None, single_key] = None
    """Key that the person who answers has to press. None: the answer is enough."""
    confirm_timeout: Annotated[int | None, integer(1, 60)] = None
    """Seconds after the prompt within which the key is awaited. None: the server's default."""
    dial_music: Annotated[str | None, dial_music] = None
    """Sound that the caller hears until somebody answers; None: ringback."""
    callback_url: Annotated[str | None, url] = None
    callback_method: Annotated[str, http_method] = "POST"
    redirect: Annotated[bool, boolean] = True
    digits_match: Annotated[tuple[str, ...], digit_patterns] = ()
    digits_match_b_leg: Annotated[tuple[str, ...], digit_patterns] = ()
    sip_headers: Annotated[tuple[tuple[str, str], ...], sip_headers] = ()


Element = Play | Speak | Wait | Hangup | Redirect | GetDigits | GetInput | DTMF | Record | PreAnswer | Conference | Dial

IGNORED_ATTRIBUTES = {
    "Conference": ("recordWhenAlone", "beep"),
    "Record": ("transcriptionReportType",),
    "Dial": ("callType",),
    "Number": ("sendOnPreanswer", "sendDigitsMode"),
    "User": ("sendOnPreanswer", "sendDigitsMode", "sipAuthUsername", "sipAuthPassword"),
    "GetInput": (
        *("speechEndTimeout", "speechModel", "hints", "language", "interimSpeechResultsCallback"),
        *("interimSpeechResultsCallbackMethod", "profanityFilter"),
    ),
}
"""Attributes that are accepted without a warning and have no effect: undocumented ones in SDKs, those of speech input,
which SDKs write with their defaults, and those that choose what has only one form here."""

MAX_NUMBERS = 20
"""Destinations of one Dial."""
UNSUPPORTED_ELEMENTS = ("Message", "MultiPartyCall", "Stream")
"""Plivo's elements that are not supported: the parser skips them with a warning that names them."""
INSTEAD = {
    "Message": "text messages need a provider of their own; let the application send them",
    "MultiPartyCall": "use Conference",
}
"""Advice for the warning of an unsupported element."""

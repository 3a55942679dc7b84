"""The elements of a document: what may stand in it, each attribute's name, kind and default, each once.

`start_conference_on_enter` here is `startConferenceOnEnter` in XML. A field made by `attribute` is one; the others are
made from the element's text and children. `document` reads XML into these by the fields' metadata.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import Field, dataclass, field, fields
from functools import cache, partial
from typing import Any
from urllib.parse import quote, urlsplit

from ari_conf.core.bounds import MOST_PATTERNS

VOICES = ("WOMAN", "MAN")
DIGITS = "0123456789*#"
MOST = 999_999_999
"""Of any number in a document; as seconds 31 years."""
MOST_URL = 2048
"""Characters of a URL: each callback, problem and log line that names it holds them."""
URL = re.compile(r"(https?://[^\s/?#]+)([/?#].*)?", re.DOTALL | re.IGNORECASE)
"""Up to the end of the host, and the rest."""
NOT_IN_URL = re.compile(r"[^\x21-\x7e]+")
LOGIN = re.compile(r"(://)[^\s/?#]*@")
NOT_GIVEN: Any = object()
"""What a reader makes of a value that means that the attribute was not given."""


class NotAllowed(ValueError):
    """The value can't stand here; the text says what can."""


@dataclass(frozen=True)
class Kind:
    parse: Callable[[str], Any]
    none: Any
    """What `none` means: Plivo's PHP and Ruby SDKs write it for false, null, 0 and empty."""


BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def boolean(text: str) -> bool:
    try:
        return BOOLEANS[text.strip().lower()]
    except KeyError:
        raise NotAllowed("true or false") from None


def one_of(*words: str) -> Callable[[str], str]:
    by_lower = {word.lower(): word for word in words}

    def parse(text: str) -> str:
        try:
            return by_lower[text.strip().lower()]
        except KeyError:
            raise NotAllowed(" or ".join(words)) from None

    return parse


def whole(low: int, high: int | None = None) -> Callable[[str], int]:
    allowed = f"a whole number from {low} to {high}" if high is not None else f"a whole number, {low} or more"

    def parse(text: str) -> int:
        text = text.strip()
        # int() would take signs, underscores and other scripts' digits as well.
        if not (text.isascii() and text.isdigit()):
            raise NotAllowed(allowed)
        # It refuses numbers of thousands of digits, and a clock can't count so far: more than MOST is MOST.
        digits = text.lstrip("0") or "0"
        value = min(int(digits[: len(str(MOST)) + 1]), MOST)
        if value < low or (high is not None and value > high):
            raise NotAllowed(allowed)
        return value

    return parse


def url(text: str) -> str | None:
    """None for an empty one: the SDKs write attributes that were not given as empty. What a URL can't contain (spaces,
    line breaks, letters that are not ASCII) is percent-encoded, as browsers do."""
    text = text.strip()
    if not text:
        return None
    if len(text) > MOST_URL:
        raise NotAllowed(f"an absolute http or https URL of at most {MOST_URL} characters")
    found = URL.fullmatch(text)
    if found is None:
        raise NotAllowed("an absolute http or https URL")
    text = found[1] + NOT_IN_URL.sub(lambda part: quote(part[0], safe="", errors="replace"), found[2] or "")
    try:
        parts = urlsplit(text)
        absolute = bool(parts.hostname) and parts.port != 0
    except ValueError:
        absolute = False
    if not absolute:
        raise NotAllowed("an absolute http or https URL")
    if len(text) > MOST_URL:
        raise NotAllowed(f"an absolute http or https URL of at most {MOST_URL} characters, percent-encoded")
    return text


def without_login(text: str) -> str:
    """A URL, or a text with URLs in it, without their user names and passwords: for whatever is shown."""
    return LOGIN.sub(r"\1***@", text) if "@" in text else text


def sound(text: str) -> str | None:
    text = text.strip()
    if text in ("beep:1", "beep:2"):
        return text
    try:
        return url(text)
    except NotAllowed as error:
        raise NotAllowed(f"beep:1, beep:2, {error}, or empty") from None


def patterns(text: str) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(part.strip() for part in text.split(","))) if text.strip() else ()
    if not all(0 < len(part) <= 100 and set(part) <= set(DIGITS) for part in found):
        raise NotAllowed("patterns of the digits 0-9 * #, separated by commas")
    if len(found) > MOST_PATTERNS:
        raise NotAllowed(f"at most {MOST_PATTERNS} patterns")
    return found


def digit_set(text: str) -> str:
    # Each digit once: a text of thousands of digits means no more than these twelve.
    kept = "".join(c for c in dict.fromkeys(text) if c not in ", ")
    if not set(kept) <= set(DIGITS):
        raise NotAllowed("the digits 0-9 * #")
    return kept


def finish_keys(text: str) -> str:
    return "" if text.strip().lower() == "none" else digit_set(text)


def digits_and_pauses(text: str) -> str:
    text = text.strip()
    if not set(text) <= set(DIGITS + "wW") or len(text) > 100:
        raise NotAllowed("digits 0-9 * #, w (0.5 s) and W (1 s), at most 100")
    return text


def voice_name(text: str) -> str:
    text = text.strip()
    if text.upper() in VOICES:
        return text.upper()
    if len(text) <= 40 and text.startswith("Polly.") and text[6:].isalpha():
        return text
    raise NotAllowed("WOMAN, MAN or Polly.Name")


def language_code(text: str) -> str:
    text = text.strip()
    if not (2 <= len(text) <= 10 and text.replace("-", "").isalnum()):
        raise NotAllowed("a language code such as en-US")
    return text


def spoken_language(text: str) -> str:
    """As engines that transcribe name them: of en-US they take en."""
    found = text.strip().partition("-")[0].lower()
    if found != "auto" and not (len(found) in (2, 3) and found.isascii() and found.isalpha()):
        raise NotAllowed("a language code such as de or en-US, or auto")
    return found


http_method = one_of("GET", "POST")
transcription = one_of("auto", "hybrid", "manual")


def attribute(kind: Callable[[str], Any], default: Any, none: Any = NOT_GIVEN) -> Any:
    return field(default=default, metadata={"kind": Kind(kind, False if kind is boolean else none)})


@cache
def attributes_of(element: type) -> dict[str, tuple[Field[Any], Callable[[str], Any]]]:
    """XML name -> (field, its reader)."""
    return {_camel(f.name): (f, partial(_read, f.metadata["kind"])) for f in fields(element) if "kind" in f.metadata}


def _read(kind: Kind, text: str) -> Any:
    """The value, or NOT_GIVEN. Raises NotAllowed."""
    bare = text.strip()
    if not bare:
        return NOT_GIVEN
    return kind.none if bare.lower() == "none" else kind.parse(text)


def _camel(name: str) -> str:
    # Two names don't follow the rule, in Plivo's words: relayDTMF, and callbackUrl (which does).
    special = {"relay_dtmf": "relayDTMF"}
    head, *tail = name.split("_")
    return special.get(name, head + "".join(part.capitalize() for part in tail))


@dataclass(frozen=True, slots=True)
class Play:
    url: str
    loop: int = attribute(whole(0), 1, none=0)
    """0: until hang-up."""


@dataclass(frozen=True, slots=True)
class Speak:
    markup: str
    """What stands inside the element: well-formed XML, plain text escaped, of elements only SSML's."""
    voice: str = attribute(voice_name, "WOMAN")
    language: str = attribute(language_code, "en-US")
    loop: int = attribute(whole(0), 1, none=0)


@dataclass(frozen=True, slots=True)
class Wait:
    length: int = attribute(whole(1), 1)
    """Seconds."""
    silence: bool = attribute(boolean, False)
    min_silence: int = attribute(whole(1), 2000)
    """Milliseconds."""
    beep: bool = attribute(boolean, False)


@dataclass(frozen=True, slots=True)
class Hangup:
    reason: str | None = attribute(one_of("rejected", "busy"), None)
    schedule: int | None = attribute(whole(0), None)
    """Seconds."""


@dataclass(frozen=True, slots=True)
class Redirect:
    url: str
    """Empty: what the document names is no URL, so it can't be reached."""
    method: str = attribute(http_method, "POST")


Prompt = Play | Speak | Wait


@dataclass(frozen=True, slots=True)
class GetDigits:
    prompt: tuple[Prompt, ...] = ()
    action: str | None = attribute(url, None)
    method: str = attribute(http_method, "POST")
    timeout: int = attribute(whole(1), 5)
    """Seconds until the first digit, from the prompt's end."""
    digit_timeout: int = attribute(whole(1), 2)
    finish_on_key: str = attribute(finish_keys, "#", none="")
    """Each of these ends the input; empty: none does."""
    num_digits: int = attribute(whole(1), 99)
    retries: int = attribute(whole(1), 1)
    """How often the prompt is played, all in all."""
    redirect: bool = attribute(boolean, True)
    play_beep: bool = attribute(boolean, False)
    valid_digits: str = attribute(digit_set, "1234567890*#")
    invalid_digits_sound: str | None = attribute(url, None)
    log: bool = attribute(boolean, True)


@dataclass(frozen=True, slots=True)
class PreAnswer:
    children: tuple[Prompt | GetDigits | Redirect, ...] = ()


@dataclass(frozen=True, slots=True)
class Conference:
    name: str
    muted: bool = attribute(boolean, False)
    enter_sound: str | None = attribute(sound, None)
    exit_sound: str | None = attribute(sound, None)
    start_conference_on_enter: bool = attribute(boolean, True)
    end_conference_on_exit: bool = attribute(boolean, False)
    stay_alone: bool = attribute(boolean, True)
    wait_sound: str | None = attribute(url, None)
    max_members: int | None = attribute(whole(1), None)
    """None: not given. Either way the account's number is the most, and the default: see `Account.most_members`."""
    record: bool = attribute(boolean, False)
    record_file_format: str = attribute(one_of("mp3", "wav"), "mp3")
    time_limit: int | None = attribute(whole(0), None)
    """Seconds. None: not given, so another member's may be taken; at the end the server's cap (86400) holds."""
    hangup_on_star: bool = attribute(boolean, False)
    action: str | None = attribute(url, None)
    method: str = attribute(http_method, "POST")
    redirect: bool = attribute(boolean, True)
    callback_url: str | None = attribute(url, None)
    callback_method: str = attribute(http_method, "POST")
    digits_match: tuple[str, ...] = attribute(patterns, ())
    relay_dtmf: bool = attribute(boolean, True)
    floor_event: bool = attribute(boolean, False)
    transcription_type: str | None = attribute(transcription, None)
    transcription_url: str | None = attribute(url, None)
    transcription_method: str = attribute(http_method, "POST")
    transcription_language: str | None = attribute(spoken_language, None)
    """None: the account's."""
    send_digits: str = attribute(digits_and_pauses, "")


Element = Play | Speak | Wait | Hangup | Redirect | GetDigits | PreAnswer | Conference

IGNORED_ATTRIBUTES = {"Conference": ("recordWhenAlone", "beep")}
"""They occur in SDKs, undocumented: accepted without a warning, without effect."""

SKIPPED_ELEMENTS = ("Dial", "Number", "User", "Record", "Message", "MultiPartyCall", "GetInput", "Stream", "DTMF")
"""Plivo's: told by their names where they stand."""

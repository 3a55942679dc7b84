"""Models of the commands on a live call: their parameters, as Plivo's SDKs send them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from ari_conf.core import elements
from ari_conf.core.bounds import MAX_SOUNDS
from ari_conf.core.elements import InvalidValue
from ari_conf.web.models import ApiRequest, Language, Method, OptionalUrl, Text, Voice

MAX_LENGTH_S = 86400
MAX_URL_CHARS = 2000


def _word(default: str) -> BeforeValidator:
    """Return a validator for a word in any case, which SDKs also send as empty or null."""

    def read(value: Any) -> Any:
        if isinstance(value, str):
            return value.strip().lower() or default
        return default if value is None else value

    return BeforeValidator(read)


def _boolean(value: Any) -> Any:
    # SDKs send booleans also as words, in any case, and what was not given as empty or null.
    if isinstance(value, bool):
        return value
    if value is None or value == "":
        return False
    try:
        return elements.boolean(str(value))
    except InvalidValue as allowed:
        raise ValueError(f"{str(value)[:100]!r} is not allowed; expected {allowed}") from None


def _read_urls(value: Any) -> Any:
    """Return the URLs of a list, or of a text in which they are separated by commas.

    A comma may also be part of a URL: it separates two URLs where an http or https URL follows it."""
    given = value if isinstance(value, list) else _split_urls(str(value))
    if not 0 < len(given) <= MAX_SOUNDS:
        raise ValueError(f"1 to {MAX_SOUNDS} URLs are allowed, separated by commas")
    found = []
    for text in given:
        try:
            url = elements.url(str(text))
        except InvalidValue as allowed:
            shown = elements.without_login(str(text))[:100]
            raise ValueError(f"{shown!r} is not allowed; expected {allowed}") from None
        if url is None or len(url) > MAX_URL_CHARS:
            raise ValueError(f"expected absolute http or https URLs of at most {MAX_URL_CHARS} characters")
        found.append(url)
    return found


def _split_urls(text: str) -> list[str]:
    parts: list[str] = []
    for part in text.split(","):
        if parts and not part.strip().lower().startswith(("http://", "https://")):
            parts[-1] += f",{part}"
        else:
            parts.append(part)
    return [part.strip() for part in parts if part.strip()]


def _read_digits(value: Any) -> Any:
    try:
        digits = elements.digits_and_pauses(str(value)) if isinstance(value, str | int) else ""
    except InvalidValue as allowed:
        # The digits are not quoted: they may be a PIN with a slip.
        raise ValueError(f"expected {allowed}") from None
    if not digits:
        raise ValueError(f"expected {elements.digits_and_pauses.allowed}")
    return digits


def _none_or_number(value: Any) -> Any:
    if value == "":
        return None
    # In a form, numbers are text.
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10 else value


Legs = Annotated[
    Literal["aleg", "bleg", "both"],
    _word("aleg"),
    WithJsonSchema({"enum": ["aleg", "bleg", "both"], "default": "aleg"}),
]
Boolean = Annotated[bool, BeforeValidator(_boolean), WithJsonSchema({"type": "boolean"})]
URLS_SCHEMA = {
    "type": "string",
    "pattern": r"^https?://[a-zA-Z0-9.-]+(:[0-9]+)?(/[a-zA-Z0-9./_-]*)?$",
    "maxLength": MAX_URL_CHARS,
    "description": f"One URL, or up to {MAX_SOUNDS}, separated by commas.",
}
DIGITS_SCHEMA = {"type": "string", "pattern": "^[0-9*#wW]{1,100}$"}


class TransferRequest(ApiRequest):
    """Parameters of a transfer. `aleg_url` is required for the legs `aleg` and `both`, `bleg_url` for `bleg` and
    `both`."""

    legs: Legs = "aleg"
    aleg_url: OptionalUrl = None
    aleg_method: Method = "POST"
    bleg_url: OptionalUrl = None
    bleg_method: Method = "POST"


class PlayToCallRequest(ApiRequest):
    urls: Annotated[list[str], BeforeValidator(_read_urls), WithJsonSchema(URLS_SCHEMA)]
    length: Annotated[
        Annotated[int, Field(ge=1, le=MAX_LENGTH_S, strict=True)] | None,
        BeforeValidator(_none_or_number),
        WithJsonSchema({"type": "integer", "minimum": 1, "maximum": MAX_LENGTH_S}),
    ] = None
    legs: Legs = "aleg"
    loop: Boolean = False
    mix: Boolean = True


class SpeakToCallRequest(ApiRequest):
    text: Text
    voice: Voice = "WOMAN"
    language: Language = "en-US"
    legs: Legs = "aleg"
    loop: Boolean = False
    mix: Boolean = True
    type: Annotated[
        Literal["text", "ssml"], _word("text"), WithJsonSchema({"enum": ["text", "ssml"], "default": "text"})
    ] = "text"

    @model_validator(mode="before")
    @classmethod
    def _voice_in_length(cls, given: Any) -> Any:
        # plivo-go sends Speak's voice as length.
        voice = given.get("length") if isinstance(given, dict) and not given.get("voice") else None
        return given | {"voice": voice} if isinstance(voice, str) and voice and not voice.isdigit() else given


class DtmfRequest(ApiRequest):
    """Parameters of DTMF. plivo-go sends `legs`, all others `leg`."""

    digits: Annotated[str, BeforeValidator(_read_digits), WithJsonSchema(DIGITS_SCHEMA)]
    leg: Legs = "aleg"

    @model_validator(mode="before")
    @classmethod
    def _leg_in_legs(cls, given: Any) -> Any:
        named = isinstance(given, dict) and not given.get("leg") and given.get("legs")
        return given | {"leg": given["legs"]} if named else given

"""Models of calling people into a conference: who is called, and the attributes of their Conference element."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, WithJsonSchema

from ari_conf.core import elements as el
from ari_conf.core.elements import InvalidValue
from ari_conf.core.placing import RINGBACK, CallOptions, Confirmation
from ari_conf.web.call_models import (
    FLAG_SCHEMA,
    MAX_RING_TIMEOUT_S,
    DialRequest,
    Flag,
    digits_text,
    whole,
)
from ari_conf.web.models import (
    FileFormat,
    MessageResponse,
    Method,
    OptionalUrl,
    TranscriptionLanguage,
    TranscriptionType,
    none_if_empty,
    parsed_by,
)

MAX_COMPETING = 20
"""Destinations of one request: Plivo's limit for those who compete."""
MAX_DELAY_S = 3600
DEFAULT_RING_TIMEOUT_S = 45
"""Plivo's default for participants."""
YES_SCHEMA = {**FLAG_SCHEMA, "default": True}
SOUND_SCHEMA = {"type": "string", "pattern": "^(beep:[12]|https?://[a-zA-Z0-9.-]+(:[0-9]+)?(/.*)?)$", "maxLength": 2000}
MUSIC_SCHEMA = {
    "type": "string",
    "pattern": "^(real|ringback|none|https?://[a-zA-Z0-9.-]+(:[0-9]+)?(/.*)?)$",
    "default": "ringback",
    "maxLength": 2000,
}
PATTERNS_SCHEMA = {"type": "string", "pattern": "^[0-9*#]{1,20}(,[0-9*#]{1,20}){0,9}$"}

Yes = Annotated[Flag, BeforeValidator(lambda value: True if value in (None, "") else value), WithJsonSchema(YES_SCHEMA)]
OptionalSound = Annotated[
    Annotated[str, parsed_by(el.sound_source)] | None, BeforeValidator(none_if_empty), WithJsonSchema(SOUND_SCHEMA)
]


def _digits_or_none(value: Any) -> Any:
    found = digits_text(value)
    return "" if found is None else found


def _parse_delays(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split("<")] if text.strip() else []
    found = tuple(int(part) for part in parts if part.isascii() and part.isdigit() and len(part) < 6)
    if len(found) != len(parts) or any(seconds > MAX_DELAY_S for seconds in found):
        raise InvalidValue(f"seconds from 0 to {MAX_DELAY_S}, one for each destination, separated by <")
    return found


def _parse_music(text: str) -> str | None:
    word = text.strip().lower()
    if word in ("", "real", "ringback"):
        return RINGBACK
    if word == "none":
        return None
    try:
        return el.url(text)
    except InvalidValue as error:
        raise InvalidValue(f"ringback, none, or {error}") from None


class MemberCallRequest(DialRequest):
    """Parameters of calling people into a conference: who is called, and the attributes of <Conference> in snake_case.

    `callback_url` is the conference's, so this request is never asynchronous."""

    ring_timeout: whole(1, MAX_RING_TIMEOUT_S, DEFAULT_RING_TIMEOUT_S) = DEFAULT_RING_TIMEOUT_S  # type: ignore[valid-type]
    delay_dial: Annotated[
        Annotated[Any, parsed_by(_parse_delays)],
        BeforeValidator(lambda value: "" if value is None else str(value)),
        WithJsonSchema({"type": "string", "pattern": "^[0-9]{1,3}$"}),
    ] = ()
    confirm_key: Annotated[
        Literal["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "*", "#"] | None,
        BeforeValidator(lambda value: None if value in (None, "") else str(value)),
        WithJsonSchema({"type": "string", "pattern": "^[0-9*#]$"}),
    ] = None
    confirm_key_sound_url: OptionalUrl = None
    confirm_key_sound_method: Method = "GET"
    dial_music: Annotated[
        Annotated[Any, parsed_by(_parse_music)],
        BeforeValidator(lambda value: "" if value is None else str(value)),
        WithJsonSchema(MUSIC_SCHEMA),
    ] = RINGBACK
    call_status_callback_url: OptionalUrl = None
    call_status_callback_method: Method = "POST"

    muted: Flag = False
    enter_sound: OptionalSound = None
    exit_sound: OptionalSound = None
    start_conference_on_enter: Yes = True
    end_conference_on_exit: Flag = False
    stay_alone: Yes = True
    wait_sound: OptionalUrl = None
    max_members: whole(1, 1000, None) = None  # type: ignore[valid-type]
    record: Flag = False
    record_file_format: FileFormat = "mp3"
    time_limit: whole(0, 86_400, None) = None  # type: ignore[valid-type]
    hangup_on_star: Flag = False
    action: OptionalUrl = None
    method: Method = "POST"
    redirect: Yes = True
    digits_match: Annotated[
        Annotated[Any, parsed_by(el.digit_patterns)],
        BeforeValidator(_digits_or_none),
        WithJsonSchema(PATTERNS_SCHEMA),
    ] = ()
    relay_dtmf: Yes = True
    floor_event: Flag = False
    transcription_type: TranscriptionType = None
    transcription_url: OptionalUrl = None
    transcription_method: Method = "POST"
    transcription_language: TranscriptionLanguage = None
    send_digits: Annotated[
        Annotated[str, parsed_by(el.digits_and_pauses, quoted=False)],
        BeforeValidator(_digits_or_none),
        WithJsonSchema({"type": "string", "pattern": "^[0-9*#wW]*$", "maxLength": 100}),
    ] = ""

    def options(self, conference_name: str) -> CallOptions:
        """Return what the calls of the request have in common."""
        attributes = {f.name: getattr(self, f.name) for f, _ in el.attribute_fields(el.Conference).values()}
        confirmation = None
        if self.confirm_key is not None:
            sound = self.confirm_key_sound_url, self.confirm_key_sound_method
            confirmation = Confirmation(self.confirm_key, *sound)
        return CallOptions(
            conference=el.Conference(conference_name, **attributes),
            ring_timeout_s=self.ring_timeout,
            headers=self.sip_headers,
            confirmation=confirmation,
            is_race=len(self.to) > 1,
            status_url=self.call_status_callback_url,
            status_method=self.call_status_callback_method,
            dial_music=self.dial_music,
        )


class CalledMember(BaseModel):
    to: str
    from_: Annotated[str, Field(alias="from")]
    call_uuid: str


class MemberCallResponse(MessageResponse):
    request_uuid: str | list[str]
    """CallUUID of the call; of several destinations, of each call in their order."""
    calls: list[CalledMember]

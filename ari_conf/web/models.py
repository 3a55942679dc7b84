"""Models of the API: the parameters of its calls, as they are validated, and the replies, for OpenAPI."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from ari_conf.core import elements
from ari_conf.core.elements import InvalidValue
from ari_conf.core.problem_kinds import ProblemKind


def parsed_by(read: Callable[[str], Any], *, quoted: bool = True) -> AfterValidator:
    """Return a validator that parses a parameter like the same attribute of a document.

    `quoted`: the error quotes what was given. Not for digits: they may be a PIN with a slip."""

    def check(value: Any) -> Any:
        if not isinstance(value, str):
            raise ValueError("expected text")
        try:
            return read(value)
        except InvalidValue as allowed:
            shown = f"{elements.without_login(value)[:100]!r} is not allowed; " if quoted else ""
            raise ValueError(f"{shown}expected {allowed}") from None

    return AfterValidator(check)


def _parse_url(text: str) -> str:
    found = elements.url(text)
    if found is None or len(found) > 2000:
        raise InvalidValue("an absolute http or https URL of at most 2000 characters")
    return found


def none_if_empty(value: Any) -> Any:
    """Return None for an empty value: SDKs send parameters that were not given as empty, or as null."""
    return None if value == "" else value


def default_if_empty(default: str) -> BeforeValidator:
    """Return a validator that takes what was not given for the default. Anything else stays what it is."""
    return BeforeValidator(lambda value: default if value is None or value == "" else value)


def _check_speakable(text: str) -> str:
    if not text.strip() or any((ord(c) < 32 and c not in "\t\n\r") or c in "\ufffe\uffff" for c in text):
        raise InvalidValue("some text, without control characters")
    return text


URL_SCHEMA = {
    "type": "string",
    "format": "uri",
    "pattern": r"^https?://[a-zA-Z0-9.-]+(:[0-9]+)?(/.*)?$",
    "maxLength": 2000,
}
Url = Annotated[str, parsed_by(_parse_url), WithJsonSchema(URL_SCHEMA)]
OptionalUrl = Annotated[
    Annotated[str, parsed_by(_parse_url)] | None, BeforeValidator(none_if_empty), WithJsonSchema(URL_SCHEMA)
]
Method = Annotated[
    Literal["GET", "POST"],
    default_if_empty("POST"),
    WithJsonSchema({"enum": ["GET", "POST"], "default": "POST"}),
]
Text = Annotated[str, Field(min_length=1, max_length=3000), parsed_by(_check_speakable)]
VOICE_SCHEMA = {"type": "string", "pattern": r"^(WOMAN|MAN|Polly\.[A-Za-z]+)$", "default": "WOMAN"}
Voice = Annotated[str, default_if_empty("WOMAN"), parsed_by(elements.voice_name), WithJsonSchema(VOICE_SCHEMA)]
LANGUAGE_SCHEMA = {"type": "string", "pattern": r"^[A-Za-z]{2,3}-[A-Za-z]{2}$", "default": "en-US"}
Language = Annotated[
    str,
    default_if_empty("en-US"),
    parsed_by(elements.language_code),
    WithJsonSchema(LANGUAGE_SCHEMA),
]


class ApiRequest(BaseModel):
    """Parameters of every call. Spec: "callback_url (and callback_method) on any call makes it asynchronous"."""

    model_config = ConfigDict(extra="ignore")

    callback_url: OptionalUrl = None
    callback_method: Method = "POST"


class PlayRequest(ApiRequest):
    url: Url


class HoldRequest(ApiRequest):
    url: OptionalUrl = None


class SpeakRequest(ApiRequest):
    text: Text
    voice: Voice = "WOMAN"
    language: Language = "en-US"


class MemberSpeakRequest(SpeakRequest):
    @classmethod
    def model_validate(cls, obj: Any, **named: Any) -> Any:
        # Spec: "plivo-go sends Speak's voice as length"
        if isinstance(obj, dict) and "voice" not in obj and isinstance(obj.get("length"), str):
            obj = obj | {"voice": obj["length"]}
        return super().model_validate(obj, **named)


class AnnounceRequest(ApiRequest):
    """Parameters of Announce: either `url`, a sound, or `text`."""

    url: OptionalUrl = None
    text: Annotated[
        Text | None,
        BeforeValidator(none_if_empty),
        WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 3000}),
    ] = None
    voice: Voice = "WOMAN"
    language: Language = "en-US"


def int_if_digits(value: Any) -> Any:
    # In a form, numbers are text.
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10 else value


FileFormat = Annotated[
    Literal["mp3", "wav"],
    default_if_empty("mp3"),
    WithJsonSchema({"enum": ["mp3", "wav"], "default": "mp3"}),
]
TranscriptionType = Annotated[
    Literal["auto", "hybrid", "manual"] | None,
    BeforeValidator(none_if_empty),
    WithJsonSchema({"enum": ["auto", "hybrid", "manual"]}),
]
TranscriptionLanguage = Annotated[
    Annotated[str, parsed_by(elements.spoken_language)] | None,
    BeforeValidator(none_if_empty),
    WithJsonSchema({"type": "string", "pattern": r"^([A-Za-z]{2,3}(-[A-Za-z0-9]+)*|auto)$"}),
]


class RecordRequest(ApiRequest):
    """Parameters of Record. callback_url gets a callback when the file can be fetched; the reply comes immediately."""

    file_format: FileFormat = "mp3"
    time_limit: Annotated[
        Annotated[int, Field(ge=1, le=86400, strict=True)] | None,
        BeforeValidator(lambda value: none_if_empty(int_if_digits(value))),
        WithJsonSchema({"type": "integer", "minimum": 1, "maximum": 86400}),
    ] = None
    transcription_type: TranscriptionType = None
    transcription_url: OptionalUrl = None
    transcription_method: Method = "POST"
    transcription_language: TranscriptionLanguage = None


DEFAULT_RECORDING_S = 60
"""Seconds that a call is recorded if the request gives no time_limit."""


class RecordCallRequest(RecordRequest):
    """Parameters of Record for a call. callback_url gets a callback when the file can be fetched; the reply comes
    immediately."""

    record_channel_type: Annotated[
        Literal["mono", "stereo"],
        default_if_empty("stereo"),
        WithJsonSchema({"enum": ["mono", "stereo"], "default": "stereo"}),
    ] = "stereo"


# Replies.


class ApiResponse(BaseModel):
    api_id: str


class ErrorResponse(ApiResponse):
    error: str


class MessageResponse(ApiResponse):
    message: str


class MembersResponse(MessageResponse):
    member_id: list[str]


class RecordingStartedResponse(MessageResponse):
    recording_id: str
    url: str
    warning: str | None = None
    """Set if a transcription was requested and no worker can transcribe. The conference is recorded all the same."""


class ConferenceList(ApiResponse):
    conferences: list[str]


class LineFiguresModel(BaseModel):
    mos: float
    loss_in: float | None
    loss_out: float | None
    jitter_in_ms: float | None
    jitter_out_ms: float | None
    round_trip_ms: float | None


class QualityModel(BaseModel):
    bad: bool
    measured_s: int
    current: LineFiguresModel
    worst: LineFiguresModel
    average: LineFiguresModel


class MemberModel(BaseModel):
    member_id: str
    muted: bool
    deaf: bool
    held: bool
    from_: Annotated[str, Field(alias="from")]
    to: str
    caller_name: str
    direction: str
    call_uuid: str
    join_time: str
    quality: QualityModel | None


class ConferenceResponse(ApiResponse):
    conference_name: str
    conference_run_time: str
    conference_member_count: str
    conference_uuid: str
    started: bool
    locked: bool
    members: list[MemberModel]


class ProblemModel(BaseModel):
    time: str
    call_uuid: str
    kind: ProblemKind
    code: int | None
    text: str


class ProblemList(ApiResponse):
    problems: list[ProblemModel]


class AttemptModel(BaseModel):
    time: str
    status: int
    error: str
    ms: int


class DeadLetterModel(BaseModel):
    id: str
    url: str
    method: str
    params: dict[str, str]
    time: str
    given_up: str
    reason: str | None
    tries: list[AttemptModel]


class DeadLetterList(ApiResponse):
    dead_letters: list[DeadLetterModel]


class DeadLetterResponse(ApiResponse):
    dead_letter: DeadLetterModel


class ResentResponse(MessageResponse):
    resent: int
    left: int
    """Number of dead letters that remain."""

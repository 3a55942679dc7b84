"""Models of the calls' API: the parameters of `Call/`, as they are validated, and its replies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BeforeValidator, Field, WithJsonSchema

from ari_conf.core import digit_sequence
from ari_conf.core import elements as el
from ari_conf.core.elements import MAX_SIP_HEADER_CHARACTERS, InvalidValue
from ari_conf.core.placing import (
    MAX_DESTINATIONS,
    MAX_TIME_LIMIT_S,
    RING_TIMEOUT_S,
    TIME_LIMIT_S,
    CallOptions,
    MachineDetectionSettings,
)
from ari_conf.web.models import (
    ApiRequest,
    ApiResponse,
    MessageResponse,
    Method,
    OptionalUrl,
    Url,
    default_if_empty,
    int_if_digits,
    none_if_empty,
    parsed_by,
)

MAX_RING_TIMEOUT_S = 600
MAX_NAME_CHARACTERS = 50
FLAG_SCHEMA = {"type": "boolean", "default": False}


def _flag(value: Any) -> Any:
    """Return the flag: SDKs send booleans, and texts of any case."""
    text = str(value).strip().lower()
    return {"true": True, "1": True, "false": False, "0": False, "": False, "none": False}.get(text, value)


Flag = Annotated[bool, BeforeValidator(_flag), WithJsonSchema(FLAG_SCHEMA)]


def whole(lowest: int, highest: int, default: int | None) -> Any:
    """Return the type of a whole number; empty is not given."""
    schema: dict[str, Any] = {"type": "integer", "minimum": lowest, "maximum": highest}
    if default is not None:
        schema["default"] = default
    kind: Any = Annotated[int, Field(ge=lowest, le=highest, strict=True)]
    before: Callable[[Any], Any] = lambda value: default if value in (None, "") else int_if_digits(value)  # noqa: E731
    return Annotated[kind if default is not None else kind | None, BeforeValidator(before), WithJsonSchema(schema)]


def digits_text(value: Any) -> Any:
    """Return a number as text: in JSON, phone numbers and digits may be numbers."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else none_if_empty(value)


def _destinations_text(value: Any) -> Any:
    # Plivo's Ruby SDK sends several destinations as a list.
    found = "<".join(map(str, value)) if isinstance(value, list) else digits_text(value)
    if found is not None and not isinstance(found, str):
        raise ValueError("expected text")
    return found or ""


def _headers_text(value: Any) -> str:
    # Plivo's Python SDK sends an object.
    found = ",".join(f"{name}={text}" for name, text in value.items()) if isinstance(value, dict) else value
    if found is None:
        return ""
    if not isinstance(found, str):
        raise ValueError("expected name=value, separated by commas")
    return found


def _parse_destinations(text: str) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(part for each in text.split("<") if (part := each.strip())))
    if not 0 < len(found) <= MAX_DESTINATIONS or any(len(each) > 200 for each in found):
        raise InvalidValue(f"1 to {MAX_DESTINATIONS} numbers or SIP URIs, separated by <")
    return found


def _parse_digits(text: str) -> str:
    if not digit_sequence.is_valid(text):
        raise InvalidValue(
            f"at most {digit_sequence.MAX_CHARACTERS} of 0-9 * # w W, and perhaps @ and the milliseconds of each tone "
            f"({digit_sequence.MIN_TONE_MS} to {digit_sequence.MAX_TONE_MS})"
        )
    return text


def _parse_name(text: str) -> str:
    name = text.strip()
    if not 0 < len(name) <= MAX_NAME_CHARACTERS or not name.isprintable():
        raise InvalidValue(f"1 to {MAX_NAME_CHARACTERS} printable characters")
    return name


class DialRequest(ApiRequest):
    """Parameters of every request that places calls."""

    from_: Annotated[str, BeforeValidator(digits_text), Field(alias="from", min_length=1, max_length=200)]
    to: Annotated[
        Any, BeforeValidator(_destinations_text), parsed_by(_parse_destinations), WithJsonSchema({"type": "string"})
    ]
    caller_name: Annotated[
        Annotated[str, parsed_by(_parse_name)] | None,
        BeforeValidator(none_if_empty),
        WithJsonSchema({"type": "string", "maxLength": MAX_NAME_CHARACTERS}),
    ] = None
    sip_headers: Annotated[
        Annotated[Any, parsed_by(el.sip_headers)],
        BeforeValidator(_headers_text),
        WithJsonSchema({"type": "string", "maxLength": MAX_SIP_HEADER_CHARACTERS}),
    ] = ()


class CallRequest(DialRequest):
    """Parameters of a call to place. Those of Plivo that this server does not know are ignored."""

    answer_url: Url
    answer_method: Method = "POST"
    ring_url: OptionalUrl = None
    ring_method: Method = "POST"
    hangup_url: OptionalUrl = None
    hangup_method: Method = "POST"
    fallback_url: OptionalUrl = None
    fallback_method: Method = "POST"
    send_digits: Annotated[
        Annotated[str, parsed_by(_parse_digits, quoted=False)] | None,
        BeforeValidator(digits_text),
        WithJsonSchema({"type": "string", "pattern": rf"^{digit_sequence.WRITTEN.pattern}$"}),
    ] = None
    send_on_preanswer: Flag = False
    """Has no effect: Asterisk refuses to send digits before the answer, so they are sent right after it."""
    time_limit: whole(1, MAX_TIME_LIMIT_S, TIME_LIMIT_S) = TIME_LIMIT_S  # type: ignore[valid-type]
    hangup_on_ring: whole(0, MAX_RING_TIMEOUT_S, None) = None  # type: ignore[valid-type]
    ring_timeout: whole(1, MAX_RING_TIMEOUT_S, RING_TIMEOUT_S) = RING_TIMEOUT_S  # type: ignore[valid-type]
    machine_detection: Annotated[
        Literal["true", "hangup", "false"],
        BeforeValidator(lambda value: str(value).strip().lower() if value not in (None, "") else "false"),
        WithJsonSchema({"enum": ["true", "hangup", "false"], "default": "false"}),
    ] = "false"
    machine_detection_time: whole(2000, 10_000, 5000) = 5000  # type: ignore[valid-type]
    machine_detection_url: OptionalUrl = None
    machine_detection_method: Method = "POST"
    machine_detection_maximum_speech_length: whole(1000, 6000, 5000) = 5000  # type: ignore[valid-type]
    machine_detection_initial_silence: whole(2000, 10_000, 4500) = 4500  # type: ignore[valid-type]
    machine_detection_maximum_words: whole(2, 10, 3) = 3  # type: ignore[valid-type]
    machine_detection_initial_greeting: whole(1000, 5000, 1500) = 1500  # type: ignore[valid-type]
    parent_call_uuid: Annotated[str, default_if_empty(""), Field(max_length=100)] = ""
    error_if_parent_not_found: Annotated[
        Flag,
        # The second spelling is that of Plivo's Ruby SDK.
        Field(validation_alias=AliasChoices("error_if_parent_not_found", "error_parent_not_found")),
    ] = False

    def options(self) -> CallOptions:
        """Return what the calls of the request have in common."""
        detection = MachineDetectionSettings(
            if_machine="hangup" if self.machine_detection == "hangup" else "continue",
            url=self.machine_detection_url,
            method=self.machine_detection_method,
            time_ms=self.machine_detection_time,
            maximum_speech_ms=self.machine_detection_maximum_speech_length,
            initial_silence_ms=self.machine_detection_initial_silence,
            maximum_words=self.machine_detection_maximum_words,
            initial_greeting_ms=self.machine_detection_initial_greeting,
        )
        return CallOptions(
            answer_url=self.answer_url,
            answer_method=self.answer_method,
            ring_url=self.ring_url,
            ring_method=self.ring_method,
            hangup_url=self.hangup_url,
            hangup_method=self.hangup_method,
            fallback_url=self.fallback_url,
            fallback_method=self.fallback_method,
            ring_timeout_s=self.ring_timeout,
            hangup_on_ring_s=self.hangup_on_ring,
            time_limit_s=self.time_limit,
            send_digits=self.send_digits,
            headers=self.sip_headers,
            machine_detection=None if self.machine_detection == "false" else detection,
        )


class CallsQuery(ApiRequest):
    """Parameters of the list of calls. The numbers match also if they are a part of a call's number."""

    status: Annotated[
        Literal["live", "queued"] | None, BeforeValidator(none_if_empty), WithJsonSchema({"enum": ["live", "queued"]})
    ] = None
    call_direction: Annotated[
        Literal["inbound", "outbound"] | None,
        BeforeValidator(none_if_empty),
        WithJsonSchema({"enum": ["inbound", "outbound"]}),
    ] = None
    from_number: Annotated[str, Field(max_length=200)] = ""
    to_number: Annotated[str, Field(max_length=200)] = ""
    limit: whole(1, 20, 20) = 20  # type: ignore[valid-type]
    offset: whole(0, 10_000_000, 0) = 0  # type: ignore[valid-type]


class CallQuery(ApiRequest):
    status: Annotated[
        Literal["live", "queued"] | None, BeforeValidator(none_if_empty), WithJsonSchema({"enum": ["live", "queued"]})
    ] = None


class CallPlacedResponse(MessageResponse):
    request_uuid: str | list[str]
    """CallUUID of the call; of several destinations, of each call in their order."""


class CallList(ApiResponse):
    calls: list[str]


class CallResponse(ApiResponse):
    call_uuid: str
    call_status: Literal["queued", "ringing", "in-progress"]
    request_uuid: str
    direction: str
    from_: Annotated[str, Field(alias="from")]
    to: str
    caller_name: str
    session_start: str
    parent_call_uuid: str | None = None
    stir_verification: str
    stir_attestation: str

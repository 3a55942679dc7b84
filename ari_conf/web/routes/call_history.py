"""Ended calls, as Plivo's SDKs ask for them: the list and one record. `routes/calls.py` has the routes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import Request
from fastapi.responses import Response
from pydantic import BaseModel, BeforeValidator, Field, WithJsonSchema, model_validator
from sqlalchemy import Connection, Row

from ari_conf.core.hangup_codes import HangupCode
from ari_conf.history import queries
from ari_conf.history.queries import CallFilter
from ari_conf.web import models as m
from ari_conf.web.api_result import ApiResult
from ari_conf.web.async_calls import now_ms
from ari_conf.web.auth import ApiClient
from ari_conf.web.errors import ApiError
from ari_conf.web.execution import execute
from ari_conf.web.history_reader import history_page, read_history
from ari_conf.web.routes import history_filters as filters
from ari_conf.web.routes.history_filters import NumberPart, Offset, Seconds, TimeText, none_if_empty

MAX_UUID_CHARS = 100
UNSUPPORTED_FILTERS = {
    "subaccount": "subaccounts are not offered; send the request as the account itself",
    "cursor": "not offered; use limit and offset",
} | {f"call_direction__{test}": "not offered; use call_direction" for test in ("gt", "gte", "lt", "lte")}
"""Other filters of the SDK, with their error texts."""
ROUNDED_S = 60
"""Seconds to which `billed_duration` is rounded up."""
MAX_CODE = 100_000
NO_MONEY = "0.00000"
"""Plivo's amounts, which applications parse: this server bills nothing."""
CODE_SCHEMA = {"type": "integer", "minimum": 0, "maximum": MAX_CODE}

Status = Annotated[
    Literal["live", "queued"] | None, BeforeValidator(none_if_empty), WithJsonSchema({"enum": ["live", "queued"]})
]


class CallFilters(m.ApiRequest):
    """Filters for calls. A call must match all that are given."""

    limit: Annotated[int, Field(ge=1, le=20)] = 20
    offset: Offset = 0
    status: Status = None
    call_direction: Annotated[
        Literal["inbound", "outbound"] | None,
        BeforeValidator(none_if_empty),
        WithJsonSchema({"enum": ["inbound", "outbound"]}),
    ] = None
    from_number: NumberPart = ""
    to_number: NumberPart = ""
    bill_duration: Seconds = None
    bill_duration__gt: Seconds = None
    bill_duration__gte: Seconds = None
    bill_duration__lt: Seconds = None
    bill_duration__lte: Seconds = None
    end_time: TimeText = None
    end_time__gt: TimeText = None
    end_time__gte: TimeText = None
    end_time__lt: TimeText = None
    end_time__lte: TimeText = None
    parent_call_uuid: Annotated[str, Field(max_length=MAX_UUID_CHARS)] = ""
    hangup_cause_code: Annotated[
        Annotated[int, Field(ge=0, le=MAX_CODE)] | None, BeforeValidator(none_if_empty), WithJsonSchema(CODE_SCHEMA)
    ] = None
    hangup_source: Annotated[str, Field(max_length=100)] = ""

    @model_validator(mode="before")
    @classmethod
    def _reject_unsupported(cls, given: Any) -> Any:
        filters.reject_unsupported(given, UNSUPPORTED_FILTERS)
        return given

    def filter(self, now: int) -> CallFilter:
        """Return the filter for ended calls. `now`: epoch ms; without end_time, the last week before it counts."""
        first_ms, last_ms = filters.time_range(
            self.end_time, self.end_time__gt, self.end_time__gte, self.end_time__lt, self.end_time__lte
        )
        if first_ms is None and last_ms is None:
            first_ms = filters.week_before(now)
        shortest_s, longest_s = filters.whole_range(
            self.bill_duration,
            self.bill_duration__gt,
            self.bill_duration__gte,
            self.bill_duration__lt,
            self.bill_duration__lte,
        )
        return CallFilter(
            direction=self.call_direction,
            from_number=self.from_number or None,
            to_number=self.to_number or None,
            ended_from_ms=first_ms,
            ended_until_ms=last_ms,
            bill_from_s=shortest_s,
            bill_until_s=longest_s,
            parent_call_uuid=self.parent_call_uuid or None,
            hangup_cause_code=self.hangup_cause_code,
            hangup_source=self.hangup_source or None,
        )


class CallModel(BaseModel):
    call_uuid: str
    parent_call_uuid: str | None
    conference_uuid: str | None
    from_number: str
    to_number: str
    call_direction: str
    call_state: str
    initiation_time: str
    answer_time: str | None
    end_time: str
    call_duration: int
    bill_duration: int
    billed_duration: int
    total_amount: str
    total_rate: str
    hangup_cause_code: int
    hangup_cause_name: str
    hangup_source: str
    stir_verification: str
    stir_attestation: str
    voice_network_group: str
    source_ip: str | None
    cnam_lookup: str | None
    resource_uri: str


class EndedCallResponse(CallModel, m.ApiResponse):
    pass


class EndedCallList(m.ApiResponse):
    meta: dict[str, Any]
    objects: list[CallModel]


async def list_ended_calls(request: Request, client: ApiClient, body: CallFilters) -> Response:
    """Return the response to `GET Call/` without a status."""

    async def work() -> ApiResult:
        wanted = body.filter(await now_ms(client.resources.redis))

        def read(connection: Connection) -> tuple[int, list[dict[str, Any]]]:
            total, rows = queries.list_calls(connection, client.auth_id, wanted, body.limit, body.offset)
            return total, _calls_json(connection, client.auth_id, rows)

        total, objects = await read_history(client, read)
        return ApiResult(200, {"meta": history_page(request, body, total, len(objects)), "objects": objects})

    return await execute(request, client, body, work)


async def get_ended_call(request: Request, client: ApiClient, call_uuid: str, body: m.ApiRequest) -> Response:
    """Return the response to `GET Call/{call_uuid}/` without a status."""

    async def work() -> ApiResult:
        def read(connection: Connection) -> list[dict[str, Any]]:
            row = queries.get_call(connection, client.auth_id, call_uuid[:MAX_UUID_CHARS])
            return [] if row is None else _calls_json(connection, client.auth_id, [row])

        found = await read_history(client, read)
        if not found:
            error = "call not found among the ended ones: its record follows some seconds after its end; "
            raise ApiError(404, error + "for a live call, use status=live")
        return ApiResult(200, found[0])

    return await execute(request, client, body, work)


def _calls_json(connection: Connection, auth_id: str, rows: Sequence[Row[Any]]) -> list[dict[str, Any]]:
    attended = queries.conferences_of_calls(connection, auth_id, [row.call_uuid for row in rows])
    # A call has one conference_uuid with Plivo: of several, it is that of the last one.
    return [call_json(row, next(reversed(attended.get(row.call_uuid, ())), None)) for row in rows]


def call_json(one: Row[Any], conference_uuid: str | None) -> dict[str, Any]:
    """Return a row of `tables.calls` in the format of the API."""
    return {
        "call_uuid": one.call_uuid,
        "parent_call_uuid": one.parent_call_uuid or None,
        "conference_uuid": conference_uuid,
        "from_number": one.from_number,
        "to_number": one.to_number,
        "call_direction": one.direction,
        "call_state": call_state(one),
        "initiation_time": plivo_time(one.initiated_ms),
        "answer_time": None if one.answered_ms is None else plivo_time(one.answered_ms),
        "end_time": plivo_time(one.ended_ms),
        "call_duration": one.duration_s,
        "bill_duration": one.bill_duration_s,
        "billed_duration": -(-one.bill_duration_s // ROUNDED_S) * ROUNDED_S,
        "total_amount": NO_MONEY,
        "total_rate": NO_MONEY,
        "hangup_cause_code": one.hangup_cause_code,
        "hangup_cause_name": one.hangup_cause_name,
        "hangup_source": one.hangup_source,
        "stir_verification": "Not Applicable",
        "stir_attestation": "",
        "voice_network_group": "",
        "source_ip": None,
        "cnam_lookup": None,
        "resource_uri": f"/v1/Account/{one.auth_id}/Call/{one.call_uuid}/",
    }


def plivo_time(at_ms: int) -> str:
    """Return epoch ms as Plivo's API objects have times: `YYYY-MM-DD HH:MM:SS+00:00`."""
    return datetime.fromtimestamp(at_ms // 1000, UTC).isoformat(" ")


_STATES_BY_CODE = {
    HangupCode.CANCELED: "CANCEL",
    HangupCode.BUSY: "BUSY",
    HangupCode.REJECTED: "REJECTED",
    HangupCode.NO_ANSWER: "NO_ANSWER",
    HangupCode.RING_TIMEOUT: "NO_ANSWER",
}


def call_state(one: Row[Any]) -> str:
    """Return `ANSWER`, Plivo's word for a call that was answered, or why it was not."""
    if one.answered_ms is not None:
        return "ANSWER"
    return _STATES_BY_CODE.get(one.hangup_cause_code, "FAILED")

"""Routes for ended conferences: the list, one of them with its members on a timeline, and both as CSV files."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field, WithJsonSchema
from sqlalchemy import Connection, Row

from ari_conf.core.elements import without_login
from ari_conf.core.problem_kinds import ProblemKind
from ari_conf.history import conference_queries, queries
from ari_conf.history.conference_queries import ConferenceQuery, Summary
from ari_conf.recordings.index import StoredRecording
from ari_conf.web import csv_response
from ari_conf.web import models as m
from ari_conf.web.api_result import ApiResult
from ari_conf.web.auth import ApiClient, CurrentClient
from ari_conf.web.errors import ApiError
from ari_conf.web.execution import execute
from ari_conf.web.format import format_time
from ari_conf.web.history_reader import history_page, read_history
from ari_conf.web.middleware import decode_path_part
from ari_conf.web.openapi import openapi_query, openapi_responses
from ari_conf.web.parameters import params_dependency
from ari_conf.web.routes import history_filters as filters
from ari_conf.web.routes.history_filters import NumberPart, Offset, TimeText, VisibleText

router = APIRouter()

MAX_UUID_CHARS = 100
MAX_MEMBERS = 1000
"""Maximum members of one conference in a reply; the CSV file has more."""
MAX_DELIVERIES = 200
"""Maximum callbacks that are listed for one conference, the latest."""
MAX_LIMIT = 100
LIST_COLUMNS = (
    "conference_uuid",
    "conference_name",
    "started",
    "start_time",
    "end_time",
    "duration",
    "end_reason",
    "member_count",
    "peak_member_count",
    "recording_count",
    "callbacks_delivered",
    "callbacks_dead",
    "problem_count",
)
FIGURES = ("mos", "worst_mos", "loss_in", "loss_out", "jitter_in_ms", "jitter_out_ms", "round_trip_ms", "measured_s")
MEMBER_COLUMNS = (
    "member_id",
    "call_uuid",
    "from",
    "to",
    "caller_name",
    "join_time",
    "exit_time",
    "duration",
    "exit_reason",
    "talk_duration",
    *FIGURES,
    "bad_line",
)

Format = Annotated[
    Literal["json", "csv"],
    m.default_if_empty("json"),
    WithJsonSchema({"enum": ["json", "csv"], "default": "json"}),
]


class HistoryParams(m.ApiRequest):
    format: Format = "json"


class HistoryFilters(HistoryParams):
    """Filters for ended conferences. A conference must match all that are given. A CSV file has no `limit`."""

    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT)] = 20
    offset: Offset = 0
    conference_name: VisibleText = ""
    number: NumberPart = ""
    search: VisibleText = ""
    end_time: TimeText = None
    end_time__gt: TimeText = None
    end_time__gte: TimeText = None
    end_time__lt: TimeText = None
    end_time__lte: TimeText = None

    @property
    def query(self) -> ConferenceQuery:
        first_ms, last_ms = filters.time_range(
            self.end_time, self.end_time__gt, self.end_time__gte, self.end_time__lt, self.end_time__lte
        )
        return ConferenceQuery(
            first_ms=first_ms,
            last_ms=last_ms,
            name=self.conference_name,
            number=self.number,
            text=self.search,
            text_number=_as_number(self.search),
        )


def _as_number(text: str) -> str:
    """Return the digits of a text that may be a part of a number, or "".

    A short one with a hyphen, such as "9-5", is rather a part of a name, which the text itself finds."""
    return re.sub(r"\D", "", text) if re.fullmatch(r"[+\d][\d ()./-]*", text) else text


class OutcomesModel(BaseModel):
    delivered: int
    dead: int


class EndedConferenceModel(BaseModel):
    conference_uuid: str
    conference_name: str
    started: bool
    start_time: str
    end_time: str
    duration: int
    end_reason: str
    member_count: int
    peak_member_count: int
    recording_count: int
    callbacks: OutcomesModel
    problem_count: int
    resource_uri: str


class HistoryList(m.ApiResponse):
    meta: dict[str, Any]
    objects: list[EndedConferenceModel]


class TalkModel(BaseModel):
    start_ms: int
    end_ms: int


class PastLineModel(BaseModel):
    mos: float
    worst_mos: float | None
    loss_in: float | None
    loss_out: float | None
    jitter_in_ms: float | None
    jitter_out_ms: float | None
    round_trip_ms: float | None
    measured_s: int
    bad: bool


class PastMemberModel(BaseModel):
    member_id: str
    call_uuid: str
    from_: Annotated[str, Field(alias="from")]
    to: str
    caller_name: str
    direction: str | None
    """None: the record of the call is not there, or no longer."""
    join_time: str
    join_ms: int
    exit_time: str
    exit_ms: int
    exit_reason: str
    talk_duration_ms: int | None
    talk: list[TalkModel]
    quality: PastLineModel | None


class PastRecordingModel(BaseModel):
    recording_id: str
    recording_url: str
    recording_format: str
    start_time: str
    start_ms: int
    duration_ms: int


class DeliveryModel(BaseModel):
    state: Literal["delivered", "dead"]
    event: str
    call_uuid: str
    url: str
    method: str
    time: str
    settled_time: str
    attempts: int


class PastProblemModel(BaseModel):
    time: str
    call_uuid: str
    kind: ProblemKind | str
    code: int | None
    text: str


class HistoryResponse(EndedConferenceModel, m.ApiResponse):
    duration_ms: int
    members: list[PastMemberModel]
    recordings: list[PastRecordingModel]
    deliveries: list[DeliveryModel]
    problems: list[PastProblemModel]


def conference_uuid(conference_uuid: Annotated[str, Path(description="As in callbacks.", min_length=1)]) -> str:
    return decode_path_part(conference_uuid)


ConferenceId = Annotated[str, Depends(conference_uuid)]


def not_found() -> ApiError:
    error = "conference not found among the ended ones: its record follows some seconds after its end; "
    return ApiError(404, error + "Conference/{name}/ shows a live one")


def _described(model: Any) -> dict[str, Any]:
    """Return the status and replies, for OpenAPI: JSON or CSV."""
    described = openapi_responses(200, model, of_owner=False)
    described["responses"][200]["content"] = {csv_response.MEDIA_TYPE: {"schema": {"type": "string"}}}
    return described


@router.get("/ConferenceHistory/", **_described(HistoryList), openapi_extra=openapi_query(HistoryFilters))
async def list_ended_conferences(
    request: Request, client: CurrentClient, body: Annotated[HistoryFilters, Depends(params_dependency(HistoryFilters))]
) -> Response:
    query = body.query
    if csv_response.is_wanted(request):
        return await _list_as_csv(request, client, body, query)

    def read(connection: Connection) -> tuple[int, list[dict[str, Any]]]:
        total = conference_queries.count_conferences(connection, client.auth_id, query)
        found = conference_queries.list_conferences(connection, client.auth_id, query, body.limit, body.offset)
        return total, [conference_json(one) for one in found]

    async def work() -> ApiResult:
        total, objects = await read_history(client, read)
        return ApiResult(200, {"meta": history_page(request, body, total, len(objects)), "objects": objects})

    return await execute(request, client, body, work)


@router.get(
    "/ConferenceHistory/{conference_uuid}/",
    **_described(HistoryResponse),
    openapi_extra=openapi_query(HistoryParams),
)
async def get_ended_conference(
    request: Request,
    client: CurrentClient,
    id: ConferenceId,
    body: Annotated[HistoryParams, Depends(params_dependency(HistoryParams))],
) -> Response:
    auth_id, conference_id = client.auth_id, id[:MAX_UUID_CHARS]
    if csv_response.is_wanted(request):
        return await _members_as_csv(request, client, conference_id)

    async def work() -> ApiResult:
        found = await read_history(client, _read_details, auth_id, conference_id)
        if found is None:
            raise not_found()
        return ApiResult(200, found)

    return await execute(request, client, body, work)


# CSV.


async def _list_as_csv(request: Request, client: ApiClient, body: HistoryFilters, query: ConferenceQuery) -> Response:
    """Return a file of all conferences from `offset` on, MAX_ROWS at most: `limit` is the size of a page of JSON."""

    def read(connection: Connection, limit: int, offset: int) -> list[csv_response.Row]:
        found = conference_queries.list_conferences(connection, client.auth_id, query, limit, offset)
        return [_conference_row(one) for one in found]

    async def batch(limit: int, offset: int) -> list[csv_response.Row]:
        return await read_history(client, read, limit, offset)

    return await csv_response.respond(request, client, LIST_COLUMNS, batch, name="conferences.csv", offset=body.offset)


async def _members_as_csv(request: Request, client: ApiClient, conference_id: str) -> Response:
    auth_id = client.auth_id

    def read(connection: Connection, limit: int, offset: int) -> list[csv_response.Row]:
        rows = conference_queries.list_members(connection, auth_id, conference_id, limit, offset)
        return [_member_row(row) for row in rows]

    def read_name(connection: Connection) -> str | None:
        return conference_queries.get_name(connection, auth_id, conference_id)

    async def batch(limit: int, offset: int) -> list[csv_response.Row]:
        return await read_history(client, read, limit, offset)

    name = await read_history(client, read_name)
    if name is None:
        raise not_found()
    return await csv_response.respond(request, client, MEMBER_COLUMNS, batch, name=f"{name}.csv")


def _conference_row(one: Summary) -> csv_response.Row:
    found = conference_json(one)
    outcomes = found["callbacks"]
    found |= {"callbacks_delivered": outcomes["delivered"], "callbacks_dead": outcomes["dead"]}
    return [_csv_value(found[name]) for name in LIST_COLUMNS]


def _member_row(row: Row[Any]) -> csv_response.Row:
    line = _quality(row) or dict.fromkeys((*FIGURES, "bad"))
    return [
        str(row.member_id),
        row.call_uuid,
        row.from_number,
        row.to_number,
        row.caller_name,
        format_time(row.joined_ms),
        format_time(row.left_ms),
        (row.left_ms - row.joined_ms) // 1000,
        row.exit_reason,
        None if row.talk_ms is None else row.talk_ms // 1000,
        *(line[name] for name in FIGURES),
        _csv_value(line["bad"]),
    ]


def _csv_value(value: Any) -> Any:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else value


# JSON.


def _read_details(connection: Connection, auth_id: str, conference_id: str) -> dict[str, Any] | None:
    found = queries.get_conference(connection, auth_id, conference_id)
    if found is None:
        return None
    (summary,) = conference_queries.summaries(connection, auth_id, [found.conference])
    start_ms = found.conference.created_ms
    directions = conference_queries.list_directions(connection, auth_id, conference_id)
    talks = defaultdict[int, list[dict[str, int]]](list)
    for talk in found.talks:
        talks[talk.member_id].append({"start_ms": talk.start_ms - start_ms, "end_ms": talk.end_ms - start_ms})
    return {
        **conference_json(summary),
        "duration_ms": found.conference.ended_ms - start_ms,
        "members": [
            _member_json(row, start_ms, talks[row.member_id], directions.get(row.call_uuid))
            for row in found.members[:MAX_MEMBERS]
        ],
        "recordings": [_recording_json(row, start_ms) for row in found.recordings],
        "deliveries": _deliveries(connection, auth_id, conference_id),
        "problems": [
            _problem_json(row) for row in conference_queries.list_problems(connection, auth_id, conference_id)
        ],
    }


def conference_json(one: Summary) -> dict[str, Any]:
    row = one.conference
    return {
        "conference_uuid": row.conference_id,
        "conference_name": row.name,
        "started": row.started,
        "start_time": format_time(row.created_ms),
        "end_time": format_time(row.ended_ms),
        "duration": (row.ended_ms - row.created_ms) // 1000,
        "end_reason": row.end_reason,
        "member_count": row.members,
        "peak_member_count": one.most,
        "recording_count": one.recordings,
        "callbacks": {"delivered": one.delivered, "dead": one.dead},
        "problem_count": one.problems,
        "resource_uri": f"/v1/Account/{row.auth_id}/ConferenceHistory/{row.conference_id}/",
    }


def _member_json(row: Row[Any], start_ms: int, talk: Sequence[dict[str, int]], direction: str | None) -> dict[str, Any]:
    return {
        "member_id": str(row.member_id),
        "call_uuid": row.call_uuid,
        "from": row.from_number,
        "to": row.to_number,
        "caller_name": row.caller_name,
        "direction": direction,
        "join_time": format_time(row.joined_ms),
        "join_ms": row.joined_ms - start_ms,
        "exit_time": format_time(row.left_ms),
        "exit_ms": row.left_ms - start_ms,
        "exit_reason": row.exit_reason,
        "talk_duration_ms": row.talk_ms,
        "talk": talk,
        "quality": _quality(row),
    }


def _quality(row: Row[Any]) -> dict[str, Any] | None:
    """Return the averages of the member's line over the membership; None: it was not measured."""
    if row.mos is None:
        return None
    return {
        "mos": _rounded(row.mos),
        "worst_mos": _rounded(row.mos_worst),
        "loss_in": _rounded(row.loss_in),
        "loss_out": _rounded(row.loss_out),
        "jitter_in_ms": _rounded(row.jitter_in_ms),
        "jitter_out_ms": _rounded(row.jitter_out_ms),
        "round_trip_ms": _rounded(row.round_trip_ms),
        "measured_s": round(row.measured_s or 0),
        "bad": row.line_was_bad,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def _recording_json(row: Row[Any], start_ms: int) -> dict[str, Any]:
    stored = msgspec.json.decode(row.document, type=StoredRecording)
    return {
        "recording_id": stored.recording_id,
        "recording_url": stored.record_url,
        "recording_format": stored.file_format,
        "start_time": format_time(stored.start_ms),
        "start_ms": stored.start_ms - start_ms,
        "duration_ms": stored.duration_ms,
    }


def _deliveries(connection: Connection, auth_id: str, conference_id: str) -> list[dict[str, Any]]:
    """Return the latest callbacks of the conference with their outcome, in the order of these."""
    found = queries.list_callbacks(connection, auth_id, conference_id=conference_id, limit=MAX_DELIVERIES).rows
    return [_delivery_json(row) for row in reversed(found)]


def _delivery_json(row: Row[Any]) -> dict[str, Any]:
    sent = msgspec.json.decode(row.document, type=_SentTo)
    return {
        "state": row.outcome,
        "event": row.event,
        "call_uuid": row.call_uuid,
        "url": without_login(sent.url),
        "method": sent.method,
        "time": format_time(row.created_ms),
        "settled_time": format_time(row.settled_ms),
        "attempts": row.attempts,
    }


class _SentTo(msgspec.Struct):
    """Part of the `queues.outbox.CallbackEntry` that the history keeps."""

    url: str = ""
    method: str = ""


def _problem_json(row: Row[Any]) -> dict[str, Any]:
    return {
        "time": format_time(row.at_ms),
        "call_uuid": row.call_uuid,
        "kind": row.kind,
        "code": row.code,
        "text": row.text,
    }

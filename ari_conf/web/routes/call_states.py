"""Route for the states of placed calls, several in one request; Plivo's API does not have it.

Unlike `GET Call/{uuid}/` it tells calling from ringing, and how a call ended, without a different request before and
after the end.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from pydantic import BaseModel, WithJsonSchema
from sqlalchemy import Connection, Row

from ari_conf.core.elements import InvalidValue
from ari_conf.errors import HistoryUnavailable
from ari_conf.history import queries
from ari_conf.store import live_calls
from ari_conf.store.live_state import Progress
from ari_conf.web import call_queries
from ari_conf.web.api_result import ApiResult
from ari_conf.web.auth import ApiClient, CurrentClient
from ari_conf.web.execution import execute
from ari_conf.web.history_reader import read_history
from ari_conf.web.models import ApiRequest, ApiResponse, parsed_by
from ari_conf.web.openapi import openapi_query, openapi_responses
from ari_conf.web.parameters import params_dependency

MAX_CALLS = 20
UUIDS_SCHEMA = {"type": "string", "pattern": "^[0-9a-z-]{1,64}(,[0-9a-z-]{1,64}){0,19}$"}
router = APIRouter()


def _parse_uuids(text: str) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    if len(found) > MAX_CALLS or any(not 0 < len(one) <= call_queries.MAX_UUID_CHARS for one in found):
        raise InvalidValue(f"1 to {MAX_CALLS} CallUUIDs, separated by commas")
    return found


class CallStatesQuery(ApiRequest):
    call_uuid: Annotated[Annotated[str, parsed_by(_parse_uuids)], WithJsonSchema(UUIDS_SCHEMA)]


class CallStateModel(BaseModel):
    call_uuid: str
    state: Progress | Literal["ended"]
    hangup_cause_code: int | None
    hangup_cause_name: str | None


class CallStatesResponse(ApiResponse):
    calls: list[CallStateModel]


Query = Annotated[CallStatesQuery, Depends(params_dependency(CallStatesQuery))]


@router.get(
    "/CallState/",
    **openapi_responses(200, CallStatesResponse, of_owner=False),
    openapi_extra=openapi_query(CallStatesQuery),
)
async def get_call_states(request: Request, client: CurrentClient, body: Query) -> Response:
    async def work() -> ApiResult:
        return ApiResult(200, {"calls": await _read_states(client, tuple(body.call_uuid))})

    return await execute(request, client, body, work)


async def _read_states(client: ApiClient, call_uuids: tuple[str, ...]) -> list[dict[str, Any]]:
    redis = client.resources.redis
    found = await asyncio.gather(*[live_calls.find_call(redis, client.auth_id, uuid) for uuid in call_uuids])
    states = {uuid: one[1].progress for uuid, one in zip(call_uuids, found, strict=True) if one is not None}
    gone = [uuid for uuid in call_uuids if uuid not in states]
    records = await _read_ended(client, gone) if gone else {}
    return [
        {
            "call_uuid": uuid,
            "state": states.get(uuid, "ended"),
            "hangup_cause_code": records[uuid].hangup_cause_code if uuid in records else None,
            "hangup_cause_name": records[uuid].hangup_cause_name if uuid in records else None,
        }
        for uuid in call_uuids
    ]


async def _read_ended(client: ApiClient, call_uuids: list[str]) -> dict[str, Row[Any]]:
    """Return the records of ended calls, by UUID; none while the history can't be read: the states are known anyway."""

    def read(connection: Connection) -> dict[str, Row[Any]]:
        rows = {uuid: queries.get_call(connection, client.auth_id, uuid) for uuid in call_uuids}
        return {uuid: row for uuid, row in rows.items() if row is not None}

    try:
        return await read_history(client, read)
    except HistoryUnavailable:
        return {}

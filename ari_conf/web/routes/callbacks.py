"""Route for the callbacks of an account: queued, being sent, delivered, or dead-lettered."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from ari_conf.core.elements import without_login
from ari_conf.queues import callback_history
from ari_conf.queues.callback_history import CallbackPage, CallbackStatus
from ari_conf.web import models as m
from ari_conf.web.api_result import ApiResult
from ari_conf.web.auth import CurrentClient
from ari_conf.web.execution import reply_only
from ari_conf.web.format import attempts_json, format_time
from ari_conf.web.openapi import openapi_query, openapi_responses
from ari_conf.web.pagination import paged
from ari_conf.web.parameters import params_dependency

router = APIRouter()


class CallbackFilters(BaseModel):
    limit: Annotated[int, Field(ge=1, le=100)] = 20
    offset: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    conference_uuid: str = ""


class CallbackModel(BaseModel):
    state: Literal["waiting", "trying", "delivered", "dead"]
    event: str
    conference_uuid: str
    conference_name: str
    url: str
    method: str
    params: dict[str, str]
    time: str
    tries: list[m.AttemptModel]
    next_try: str | None
    dead_letter_id: str | None


class CallbackList(m.ApiResponse):
    meta: dict[str, Any]
    objects: list[CallbackModel]
    incomplete: bool = False
    """True: the history is not available now, so that delivered callbacks are missing."""


@router.get(
    "/Callback/",
    **openapi_responses(200, CallbackList, of_owner=False, asynchronous=False),
    openapi_extra=openapi_query(CallbackFilters),
)
async def list_callbacks(
    request: Request,
    client: CurrentClient,
    body: Annotated[CallbackFilters, Depends(params_dependency(CallbackFilters))],
) -> Response:
    async def work() -> ApiResult:
        page = await client.resources.history_reads.run(client.auth_id, listed)
        meta, objects = paged(request, body.limit, body.offset, page.total), list(map(callback_json, page.callbacks))
        incomplete = {} if page.is_complete else {"incomplete": True}
        return ApiResult(200, {"meta": meta, "objects": objects, **incomplete})

    def listed() -> CallbackPage:
        about = body.conference_uuid or None
        resources, auth_id = client.resources, client.auth_id
        return callback_history.list_callbacks(
            resources.sync_redis, resources.history, auth_id, about, body.limit, body.offset
        )

    return await reply_only(request, client, work)


def callback_json(one: CallbackStatus) -> dict[str, Any]:
    params = dict(one.entry.params)
    return {
        "state": one.state,
        "event": params.get("Event") or params.get("ConferenceAction", ""),
        "conference_uuid": one.conference_uuid,
        "conference_name": params.get("ConferenceName", ""),
        "url": without_login(one.entry.url),
        "method": one.entry.method,
        "params": params,
        "time": format_time(one.entry.at_ms),
        "tries": attempts_json(one.entry),
        "next_try": format_time(one.next_try_ms) if one.next_try_ms is not None else None,
        "dead_letter_id": one.letter_id,
    }

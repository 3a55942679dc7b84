"""Route for calling people into a conference, in one request; Plivo's API does not have it."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from ari_conf.web import conference_queries
from ari_conf.web import member_call_models as m
from ari_conf.web.api_result import ApiResult
from ari_conf.web.auth import ApiClient, CurrentClient
from ari_conf.web.errors import ApiError
from ari_conf.web.execution import execute
from ari_conf.web.openapi import openapi_body, openapi_responses
from ari_conf.web.parameters import params_dependency
from ari_conf.web.routes import calls
from ari_conf.web.routes.conferences import ONE, Name

router = APIRouter()
Calling = Annotated[m.MemberCallRequest, Depends(params_dependency(m.MemberCallRequest))]


@router.post(
    ONE + "Member/",
    **openapi_responses(201, m.MemberCallResponse, asynchronous=False, may_be_forbidden=True),
    openapi_extra=openapi_body(m.MemberCallRequest, needed=True),
)
async def call_members(request: Request, client: CurrentClient, name: Name, body: Calling) -> Response:
    async def work() -> ApiResult:
        return await _call(client, name, body)

    # callback_url is the conference's here, as in a document, so it must not make the call asynchronous.
    return await execute(request, client, body.model_copy(update={"callback_url": None}), work)


async def _call(client: ApiClient, name: str, body: m.MemberCallRequest) -> ApiResult:
    if len(body.to) > m.MAX_COMPETING:
        raise ApiError(400, f"to: at most {m.MAX_COMPETING} destinations may compete")
    if len(body.delay_dial) > len(body.to):
        raise ApiError(400, "delay_dial: more values than destinations in to")
    server = await _server_of(client, name)
    options = body.options(name)
    admitted = await calls.admit(client, body.from_, body.to, body.caller_name, options.time_limit_s)
    delays_ms = [1000 * seconds for seconds in body.delay_dial] + [0] * len(admitted)
    placed = [
        msgspec.structs.replace(call, delay_ms=max(call.delay_ms, delay_ms))
        for call, delay_ms in zip(admitted, delays_ms, strict=False)
    ]
    result = await calls.place(client, server, options, placed)
    if result.status >= 400:
        return result
    listed = [{"to": call.to, "from": call.from_, "call_uuid": call.call_uuid} for call in placed]
    return ApiResult(result.status, {**result.body, "calls": listed})


async def _server_of(client: ApiClient, name: str) -> str:
    """Return the server of the conference; "" if it is not live: then the first who answers starts it."""
    try:
        return (await conference_queries.get_owner(client.resources, client.auth_id, name))[1]
    except ApiError as error:
        if error.status != 404:
            raise
        return ""

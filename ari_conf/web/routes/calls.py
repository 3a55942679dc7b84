"""Routes for calls: placing them, live and queued calls, hanging up. Plivo's paths and bodies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated
from uuid import uuid4

import msgspec
from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from ari_conf.core import commands as do
from ari_conf.core.placing import CallOptions, CallToPlace
from ari_conf.store import live_calls
from ari_conf.web import call_models as m
from ari_conf.web import call_queries, dial_admission
from ari_conf.web.api_result import ApiResult
from ari_conf.web.auth import ApiClient, CurrentClient
from ari_conf.web.errors import ApiError, unavailable
from ari_conf.web.execution import execute
from ari_conf.web.models import ApiRequest
from ari_conf.web.openapi import openapi_body, openapi_query, openapi_responses
from ari_conf.web.owner_commands import send, send_to_call
from ari_conf.web.parameters import params_dependency
from ari_conf.web.routes import call_history
from ari_conf.web.routes.live_calls import ONE, CallId

ALL = "/Call/"
HANG_UP_BATCH = 500
"""Calls that one command hangs up: a server has commands of other accounts to handle, too."""
MAX_HANG_UP_ROUNDS = 100

router = APIRouter()


Placed = Annotated[m.CallRequest, Depends(params_dependency(m.CallRequest))]
NoParams = Annotated[ApiRequest, Depends(params_dependency(ApiRequest))]
NO_PARAMS = openapi_body(ApiRequest)


# Placing.


@router.post(
    ALL,
    **openapi_responses(201, m.CallPlacedResponse, may_be_forbidden=True),
    openapi_extra=openapi_body(m.CallRequest, needed=True),
)
async def place_calls(request: Request, client: CurrentClient, body: Placed) -> Response:
    async def work() -> ApiResult:
        return await _place(client, body)

    return await execute(request, client, body, work)


async def _place(client: ApiClient, body: m.CallRequest) -> ApiResult:
    parent_server = await _server_of_parent(client, body)
    calls = await admit(client, body.from_, body.to, body.caller_name, body.time_limit)
    # The history shows a parent only if it is a call of this account.
    options = msgspec.structs.replace(body.options(), parent_call_uuid=body.parent_call_uuid if parent_server else None)
    return await place(client, parent_server, options, calls)


async def place(client: ApiClient, preferred_server: str, options: CallOptions, calls: list[CallToPlace]) -> ApiResult:
    """Place calls that were admitted, on the preferred server if it runs: members of a conference are on one Asterisk.

    Raises ApiError 503: nothing is dialed."""
    servers = await call_queries.list_servers(client.resources.redis)
    if preferred_server in servers:
        servers = [preferred_server]
    reply = await _send(client, servers, do.PlaceCalls(client.record.account(), options, tuple(calls)))
    if reply.status >= 400:
        await _release(client, calls)
    return reply


async def _send(client: ApiClient, servers: list[str], command: do.PlaceCalls) -> ApiResult:
    """Send the command to the first server that can carry it out. Raises ApiError 503: nothing is dialed."""
    addressed, deadline_s = do.ForAccount(client.auth_id, command), client.resources.settings.command_deadline
    error = "no server is running that could place the call: try again"
    for server in servers:
        reply = await client.resources.command_client.send(server, addressed, client.api_id, deadline_s)
        if reply is None:
            error = "the server did not answer in time, and nothing was dialed: try again"
        elif reply.status == 503:
            error = str(dict(reply.body)["error"])
            continue
        else:
            return ApiResult(reply.status, dict(reply.body))
        break
    await _release(client, command.calls)
    raise unavailable(error)


async def _server_of_parent(client: ApiClient, body: m.CallRequest) -> str:
    if not body.parent_call_uuid:
        return ""
    found = await live_calls.find_call(client.resources.redis, client.auth_id, body.parent_call_uuid)
    if found is None and body.error_if_parent_not_found:
        raise ApiError(404, "parent_call_uuid: the account has no such live call")
    return found[0] if found is not None else ""


async def admit(
    client: ApiClient, from_: str, destinations: Sequence[str], caller_name: str | None, time_limit_s: int
) -> list[CallToPlace]:
    """Return the calls if the dialing policy admits all of them. Raises ApiError 400 or 403: none is placed."""
    calls: list[CallToPlace] = []
    try:
        for to in destinations:
            uuid = str(uuid4())
            admitted = await dial_admission.admit(client, uuid, from_, to, time_limit_s)
            name = caller_name or admitted.caller_id
            limits = admitted.time_limit_s, admitted.delay_ms
            calls.append(CallToPlace(uuid, admitted.to, admitted.caller_id, name, admitted.attempts, *limits))
    except ApiError:
        await _release(client, calls)
        raise
    return calls


async def _release(client: ApiClient, calls: Sequence[CallToPlace]) -> None:
    for call in calls:
        await dial_admission.release(client, call.call_uuid, call.attempts)


# Live and queued calls.


@router.get(
    ALL,
    **openapi_responses(200, m.CallList | call_history.EndedCallList, of_owner=False),
    openapi_extra=openapi_query(call_history.CallFilters),
)
async def list_calls(
    request: Request,
    client: CurrentClient,
    body: Annotated[call_history.CallFilters, Depends(params_dependency(call_history.CallFilters))],
) -> Response:
    if body.status is None:
        return await call_history.list_ended_calls(request, client, body)
    query = m.CallsQuery.model_validate(body.model_dump(include=set(m.CallsQuery.model_fields)))

    async def work() -> ApiResult:
        resources = client.resources
        found = await resources.reads.run(
            client.auth_id, call_queries.list_calls, resources.sync_redis, client.auth_id, query
        )
        return ApiResult(200, {"calls": found})

    return await execute(request, client, body, work)


@router.get(
    ONE,
    **openapi_responses(200, m.CallResponse | call_history.EndedCallResponse, of_owner=False),
    openapi_extra=openapi_query(m.CallQuery),
)
async def get_call(
    request: Request,
    client: CurrentClient,
    call_uuid: CallId,
    body: Annotated[m.CallQuery, Depends(params_dependency(m.CallQuery))],
) -> Response:
    if body.status is None:
        return await call_history.get_ended_call(request, client, call_uuid, body)

    async def work() -> ApiResult:
        found = await live_calls.find_call(client.resources.redis, client.auth_id, call_uuid)
        if found is None or found[1].is_queued != (body.status == "queued"):
            raise call_queries.not_found
        return ApiResult(200, call_queries.to_api(found[1]))

    return await execute(request, client, body, work)


# Hanging up.


@router.delete(ONE, **openapi_responses(204, None), openapi_extra=NO_PARAMS)
async def hang_up_call(request: Request, client: CurrentClient, call_uuid: CallId, body: NoParams) -> Response:
    return await execute(request, client, body, lambda: send_to_call(client, call_uuid, do.HangUpCall()))


@router.delete("/Request/{call_uuid}/", **openapi_responses(204, None), openapi_extra=NO_PARAMS)
async def cancel_call(request: Request, client: CurrentClient, call_uuid: CallId, body: NoParams) -> Response:
    return await execute(request, client, body, lambda: send_to_call(client, call_uuid, do.HangUpCall()))


@router.delete(ALL, **openapi_responses(204, None), openapi_extra=NO_PARAMS)
async def hang_up_all_calls(request: Request, client: CurrentClient, body: NoParams) -> Response:
    async def work() -> ApiResult:
        for server in await call_queries.list_servers(client.resources.redis):
            for _ in range(MAX_HANG_UP_ROUNDS):
                addressed = do.ForAccount(client.auth_id, do.HangUpCalls(HANG_UP_BATCH))
                reply = await send(client, server, addressed, str(uuid4()), to="call")
                if reply.status >= 400:
                    return reply
                if not int(reply.body["left"]):
                    break
        return ApiResult(204, {})

    return await execute(request, client, body, work)

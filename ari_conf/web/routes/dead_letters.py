"""Routes for problems and dead letters."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from ari_conf.core.elements import without_login
from ari_conf.queues import dead_letters
from ari_conf.queues.dead_letters import DeadLetter
from ari_conf.store.problems import Problem, read_problems
from ari_conf.web import models as m
from ari_conf.web.api_result import ApiResult
from ari_conf.web.auth import CurrentClient, once_in
from ari_conf.web.errors import ApiError
from ari_conf.web.execution import execute, reply_only
from ari_conf.web.format import attempts_json, format_time
from ari_conf.web.middleware import decode_path_part
from ari_conf.web.openapi import openapi_body, openapi_query, openapi_responses
from ari_conf.web.parameters import params_dependency

ID = re.compile(r"[0-9]{1,15}-[0-9]{1,15}")

router = APIRouter()


RESEND_BATCH = 1000
"""Maximum number of dead letters that one request resends; the oldest are resent."""
RESEND_INTERVAL_S = 60
"""Seconds between two requests of an account to resend all: each dead letter is up to six requests to its receiver."""


class ListParams(m.ApiRequest):
    limit: Annotated[int, Field(ge=1, le=200)] = 20


class DeadLetterListParams(BaseModel):
    limit: Annotated[int, Field(ge=1, le=200)] = 20
    before: Annotated[str, Field(pattern=r"^[0-9]{1,15}-[0-9]{1,15}$")] | None = None


def dead_letter_id(id: Annotated[str, Path(description="As listed.", min_length=1)]) -> str:
    text = decode_path_part(id)
    if not ID.fullmatch(text):
        raise not_found()
    return text


def not_found() -> ApiError:
    return ApiError(404, "dead letter not found")


Id = Annotated[str, Depends(dead_letter_id)]


@router.get(
    "/Problem/", **openapi_responses(200, m.ProblemList, of_owner=False), openapi_extra=openapi_query(ListParams)
)
async def list_problems(
    request: Request, client: CurrentClient, body: Annotated[ListParams, Depends(params_dependency(ListParams))]
) -> Response:
    async def work() -> ApiResult:
        reads, redis = client.resources.reads, client.resources.sync_redis
        found = await reads.run(client.auth_id, read_problems, redis, client.auth_id, body.limit)
        return ApiResult(200, {"problems": [problem_json(problem) for problem in found]})

    return await execute(request, client, body, work)


@router.get(
    "/DeadLetter/",
    **openapi_responses(200, m.DeadLetterList, of_owner=False, asynchronous=False),
    openapi_extra=openapi_query(DeadLetterListParams),
)
async def list_dead_letters(
    request: Request,
    client: CurrentClient,
    body: Annotated[DeadLetterListParams, Depends(params_dependency(DeadLetterListParams))],
) -> Response:
    async def work() -> ApiResult:
        return ApiResult(200, {"dead_letters": await client.resources.reads.run(client.auth_id, load_newest)})

    def load_newest() -> list[dict[str, Any]]:
        found = dead_letters.list_newest(client.resources.sync_redis, client.auth_id, body.limit, body.before)
        return [dead_letter_json(dead_letter) for dead_letter in found]

    return await reply_only(request, client, work)


Query = Annotated[m.ApiRequest, Depends(params_dependency(m.ApiRequest))]


@router.get("/DeadLetter/{id}/", **openapi_responses(200, m.DeadLetterResponse, of_owner=False, asynchronous=False))
async def get_dead_letter(request: Request, client: CurrentClient, id: Id) -> Response:
    async def work() -> ApiResult:
        found = await client.resources.reads.run(
            client.auth_id, dead_letters.get, client.resources.sync_redis, client.auth_id, id
        )
        if found is None:
            raise not_found()
        return ApiResult(200, {"dead_letter": dead_letter_json(found)})

    return await reply_only(request, client, work)


NOTHING = openapi_body(m.ApiRequest)


@router.post("/DeadLetter/Resend/", **openapi_responses(202, m.ResentResponse, of_owner=False), openapi_extra=NOTHING)
async def resend_all(request: Request, client: CurrentClient, body: Query) -> Response:
    def resend() -> tuple[int, int]:
        redis, auth_id = client.resources.sync_redis, client.auth_id
        return dead_letters.resend_all(redis, auth_id, RESEND_BATCH), dead_letters.count(redis, auth_id)

    async def work() -> ApiResult:
        await once_in(client.resources, client.auth_id, "resend", RESEND_INTERVAL_S)
        resent_count, left_count = await client.resources.reads.run(client.auth_id, resend)
        return ApiResult(202, {"message": "sent again", "resent": resent_count, "left": left_count})

    return await execute(request, client, body, work)


@router.post(
    "/DeadLetter/{id}/Resend/", **openapi_responses(202, m.ResentResponse, of_owner=False), openapi_extra=NOTHING
)
async def resend_one(request: Request, client: CurrentClient, id: Id, body: Query) -> Response:
    def resend() -> tuple[int, int]:
        redis, auth_id = client.resources.sync_redis, client.auth_id
        return dead_letters.resend(redis, auth_id, [id]), dead_letters.count(redis, auth_id)

    async def work() -> ApiResult:
        resent_count, left_count = await client.resources.reads.run(client.auth_id, resend)
        if not resent_count:
            raise not_found()
        return ApiResult(202, {"message": "sent again", "resent": resent_count, "left": left_count})

    return await execute(request, client, body, work)


def problem_json(problem: Problem) -> dict[str, Any]:
    return {
        "time": format_time(problem.at_ms),
        "call_uuid": problem.call_uuid,
        "kind": problem.kind,
        "code": problem.code,
        "text": problem.text,
    }


def dead_letter_json(dead_letter: DeadLetter) -> dict[str, Any]:
    entry = dead_letter.entry
    return {
        "id": dead_letter.id,
        "url": without_login(entry.url),
        "method": entry.method,
        "params": dict(entry.params),
        "time": format_time(entry.at_ms),
        "given_up": format_time(dead_letter.died_ms),
        "reason": entry.reason,
        "tries": attempts_json(entry),
    }

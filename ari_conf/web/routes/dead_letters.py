"""Routes for problems and dead letters."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from ari_conf.core.elements import without_login
from ari_conf.queues import dead_letters
from ari_conf.queues.dead_letters import DeadLetter
from ari_conf.queues.outbox import CallbackEntry
from ari_conf.store.problems import read_problems
from ari_conf.web import models as m
from ari_conf.web.auth import CurrentClient, once_in
from ari_conf.web.errors import ApiError
from ari_conf.web.execution import ApiResult, execute, reply_only
from ari_conf.web.middleware import decode_path_part
from ari_conf.web.parameters import openapi_body, openapi_query, params_dependency
from ari_conf.web.routes.conferences import openapi_responses

ID = re.compile(r"[0-9]{1,15}-[0-9]{1,15}")

router = APIRouter()


MOST_RESENT = 1000
"""Maximum number of dead letters that one request resends; the oldest are resent."""
RESENT_EVERY_S = 60
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
    request: Request, caller: CurrentClient, body: Annotated[ListParams, Depends(params_dependency(ListParams))]
) -> Response:
    async def work() -> ApiResult:
        reads, blocking = caller.parts.reads, caller.parts.blocking
        found = await reads.run(caller.auth_id, read_problems, blocking, caller.auth_id, body.limit)
        told = [{"time": format_time(p.at_ms), "call_uuid": p.call_uuid, "code": p.code, "text": p.text} for p in found]
        return ApiResult(200, {"problems": told})

    return await execute(request, caller, body, work)


@router.get(
    "/DeadLetter/",
    **openapi_responses(200, m.DeadLetterList, of_owner=False, asynchronous=False),
    openapi_extra=openapi_query(DeadLetterListParams),
)
async def list_dead_letters(
    request: Request,
    caller: CurrentClient,
    body: Annotated[DeadLetterListParams, Depends(params_dependency(DeadLetterListParams))],
) -> Response:
    async def work() -> ApiResult:
        return ApiResult(200, {"dead_letters": await caller.parts.reads.run(caller.auth_id, listed)})

    def listed() -> list[dict[str, Any]]:
        found = dead_letters.list_newest(caller.parts.blocking, caller.auth_id, body.limit, body.before)
        return [dead_letter_json(letter) for letter in found]

    return await reply_only(request, caller, work)


Query = Annotated[m.ApiRequest, Depends(params_dependency(m.ApiRequest))]


@router.get("/DeadLetter/{id}/", **openapi_responses(200, m.DeadLetterResponse, of_owner=False, asynchronous=False))
async def get_dead_letter(request: Request, caller: CurrentClient, id: Id) -> Response:
    async def work() -> ApiResult:
        found = await caller.parts.reads.run(
            caller.auth_id, dead_letters.get, caller.parts.blocking, caller.auth_id, id
        )
        if found is None:
            raise not_found()
        return ApiResult(200, {"dead_letter": dead_letter_json(found)})

    return await reply_only(request, caller, work)


NOTHING = openapi_body(m.ApiRequest)


@router.post("/DeadLetter/Resend/", **openapi_responses(202, m.ResentResponse, of_owner=False), openapi_extra=NOTHING)
async def resend_all(request: Request, caller: CurrentClient, body: Query) -> Response:
    def resent() -> tuple[int, int]:
        blocking, auth_id = caller.parts.blocking, caller.auth_id
        return dead_letters.resend_all(blocking, auth_id, MOST_RESENT), dead_letters.count(blocking, auth_id)

    async def work() -> ApiResult:
        await once_in(caller.parts, caller.auth_id, "resend", RESENT_EVERY_S)
        sent, left = await caller.parts.reads.run(caller.auth_id, resent)
        return ApiResult(202, {"message": "sent again", "resent": sent, "left": left})

    return await execute(request, caller, body, work)


@router.post(
    "/DeadLetter/{id}/Resend/", **openapi_responses(202, m.ResentResponse, of_owner=False), openapi_extra=NOTHING
)
async def resend_one(request: Request, caller: CurrentClient, id: Id, body: Query) -> Response:
    def resent() -> tuple[int, int]:
        blocking, auth_id = caller.parts.blocking, caller.auth_id
        return dead_letters.resend(blocking, auth_id, [id]), dead_letters.count(blocking, auth_id)

    async def work() -> ApiResult:
        sent, left = await caller.parts.reads.run(caller.auth_id, resent)
        if not sent:
            raise not_found()
        return ApiResult(202, {"message": "sent again", "resent": sent, "left": left})

    return await execute(request, caller, body, work)


def dead_letter_json(letter: DeadLetter) -> dict[str, Any]:
    entry = letter.entry
    return {
        "id": letter.id,
        "url": without_login(entry.url),
        "method": entry.method,
        "params": dict(entry.params),
        "time": format_time(entry.at_ms),
        "given_up": format_time(letter.died_ms),
        "reason": entry.reason,
        "tries": attempts_json(entry),
    }


def attempts_json(entry: CallbackEntry) -> list[dict[str, Any]]:
    return [{"time": format_time(t.at_ms), "status": t.status, "error": t.error, "ms": t.ms} for t in entry.tries]


def format_time(at_ms: int) -> str:
    """Return epoch ms in ISO 8601 format, in UTC."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")

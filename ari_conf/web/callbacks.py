"""What became of an account's callbacks: those that wait, are tried, were delivered, or were given up."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from ari_conf import callback_history
from ari_conf.callback_history import Callback
from ari_conf.core.elements import without_login
from ari_conf.web import models as m
from ari_conf.web.answer import Answer, reply_only
from ari_conf.web.body import described_query, read
from ari_conf.web.caller import Calling
from ari_conf.web.conferences import replies
from ari_conf.web.letters import moment, tried
from ari_conf.web.paging import paged

router = APIRouter()


class Wanted(BaseModel):
    limit: Annotated[int, Field(ge=1, le=100)] = 20
    offset: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    conference_uuid: str = ""


class OneCallback(BaseModel):
    state: Literal["waiting", "trying", "delivered", "dead"]
    event: str
    conference_uuid: str
    conference_name: str
    url: str
    method: str
    params: dict[str, str]
    time: str
    tries: list[m.Try]
    next_try: str | None
    dead_letter_id: str | None


class Callbacks(m.Reply):
    meta: dict[str, Any]
    objects: list[OneCallback]


@router.get(
    "/Callback/",
    **replies(200, Callbacks, of_owner=False, asynchronous=False),
    openapi_extra=described_query(Wanted),
)
async def list_callbacks(request: Request, caller: Calling, body: Annotated[Wanted, Depends(read(Wanted))]) -> Response:
    async def work() -> Answer:
        total, objects = await caller.parts.reads.run(caller.auth_id, listed)
        return Answer(200, {"meta": paged(request, body.limit, body.offset, total), "objects": objects})

    def listed() -> tuple[int, list[dict[str, Any]]]:
        about = body.conference_uuid or None
        blocking, auth_id = caller.parts.blocking, caller.auth_id
        total, found = callback_history.listed(blocking, auth_id, about, body.limit, body.offset)
        return total, list(map(_told, found))

    return await reply_only(request, caller, work)


def _told(one: Callback) -> dict[str, Any]:
    params = dict(one.entry.params)
    return {
        "state": one.state,
        "event": params.get("Event") or params.get("ConferenceAction", ""),
        "conference_uuid": one.conference_uuid,
        "conference_name": params.get("ConferenceName", ""),
        "url": without_login(one.entry.url),
        "method": one.entry.method,
        "params": params,
        "time": moment(one.entry.at_ms),
        "tries": tried(one.entry),
        "next_try": moment(one.next_try_ms) if one.next_try_ms is not None else None,
        "dead_letter_id": one.letter_id,
    }

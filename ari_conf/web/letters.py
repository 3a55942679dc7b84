"""What became of what was sent: dead letters and problems."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from ari_conf import dead_letters
from ari_conf.core.elements import without_login
from ari_conf.dead_letters import DeadLetter
from ari_conf.outbox import Entry
from ari_conf.problems import read_problems
from ari_conf.web import models as m
from ari_conf.web.answer import Answer, answer, reply_only
from ari_conf.web.body import described, described_query, read
from ari_conf.web.caller import Calling, once_in
from ari_conf.web.conferences import replies
from ari_conf.web.errors import Refused
from ari_conf.web.paths import decoded

ID = re.compile(r"[0-9]{1,15}-[0-9]{1,15}")

router = APIRouter()


MOST_RESENT = 1000
"""Dead letters that one request sends again, the oldest."""
RESENT_EVERY_S = 60
"""Once in so long an account may send all of them again: each is up to six requests to its receiver."""


class Page(m.Asynchronous):
    limit: Annotated[int, Field(ge=1, le=200)] = 20


class LettersPage(BaseModel):
    limit: Annotated[int, Field(ge=1, le=200)] = 20
    before: Annotated[str, Field(pattern=r"^[0-9]{1,15}-[0-9]{1,15}$")] | None = None


def letter_id(id: Annotated[str, Path(description="As listed.", min_length=1)]) -> str:
    text = decoded(id)
    if not ID.fullmatch(text):
        raise not_found()
    return text


def not_found() -> Refused:
    return Refused(404, "dead letter not found")


Id = Annotated[str, Depends(letter_id)]


@router.get("/Problem/", **replies(200, m.Problems, of_owner=False), openapi_extra=described_query(Page))
async def list_problems(request: Request, caller: Calling, body: Annotated[Page, Depends(read(Page))]) -> Response:
    async def work() -> Answer:
        reads, blocking = caller.parts.reads, caller.parts.blocking
        found = await reads.run(caller.auth_id, read_problems, blocking, caller.auth_id, body.limit)
        told = [{"time": moment(p.at_ms), "call_uuid": p.call_uuid, "code": p.code, "text": p.text} for p in found]
        return Answer(200, {"problems": told})

    return await answer(request, caller, body, work)


@router.get(
    "/DeadLetter/",
    **replies(200, m.DeadLetters, of_owner=False, asynchronous=False),
    openapi_extra=described_query(LettersPage),
)
async def list_dead_letters(
    request: Request, caller: Calling, body: Annotated[LettersPage, Depends(read(LettersPage))]
) -> Response:
    async def work() -> Answer:
        return Answer(200, {"dead_letters": await caller.parts.reads.run(caller.auth_id, listed)})

    def listed() -> list[dict[str, Any]]:
        found = dead_letters.listed(caller.parts.blocking, caller.auth_id, body.limit, body.before)
        return [_told(letter) for letter in found]

    return await reply_only(request, caller, work)


Query = Annotated[m.Asynchronous, Depends(read(m.Asynchronous))]


@router.get("/DeadLetter/{id}/", **replies(200, m.OneDeadLetter, of_owner=False, asynchronous=False))
async def get_dead_letter(request: Request, caller: Calling, id: Id) -> Response:
    async def work() -> Answer:
        found = await caller.parts.reads.run(
            caller.auth_id, dead_letters.show, caller.parts.blocking, caller.auth_id, id
        )
        if found is None:
            raise not_found()
        return Answer(200, {"dead_letter": _told(found)})

    return await reply_only(request, caller, work)


NOTHING = described(m.Asynchronous)


@router.post("/DeadLetter/Resend/", **replies(202, m.Resent, of_owner=False), openapi_extra=NOTHING)
async def resend_all(request: Request, caller: Calling, body: Query) -> Response:
    def resent() -> tuple[int, int]:
        blocking, auth_id = caller.parts.blocking, caller.auth_id
        return dead_letters.resend(blocking, auth_id, most=MOST_RESENT), dead_letters.count(blocking, auth_id)

    async def work() -> Answer:
        await once_in(caller.parts, caller.auth_id, "resend", RESENT_EVERY_S)
        sent, left = await caller.parts.reads.run(caller.auth_id, resent)
        return Answer(202, {"message": "sent again", "resent": sent, "left": left})

    return await answer(request, caller, body, work)


@router.post("/DeadLetter/{id}/Resend/", **replies(202, m.Resent, of_owner=False), openapi_extra=NOTHING)
async def resend_one(request: Request, caller: Calling, id: Id, body: Query) -> Response:
    def resent() -> tuple[int, int]:
        blocking, auth_id = caller.parts.blocking, caller.auth_id
        return dead_letters.resend(blocking, auth_id, [id]), dead_letters.count(blocking, auth_id)

    async def work() -> Answer:
        sent, left = await caller.parts.reads.run(caller.auth_id, resent)
        if not sent:
            raise not_found()
        return Answer(202, {"message": "sent again", "resent": sent, "left": left})

    return await answer(request, caller, body, work)


def _told(letter: DeadLetter) -> dict[str, Any]:
    entry = letter.entry
    return {
        "id": letter.id,
        "url": without_login(entry.url),
        "method": entry.method,
        "params": dict(entry.params),
        "time": moment(entry.at_ms),
        "given_up": moment(letter.died_ms),
        "reason": entry.reason,
        "tries": tried(entry),
    }


def tried(entry: Entry) -> list[dict[str, Any]]:
    return [{"time": moment(t.at_ms), "status": t.status, "error": t.error, "ms": t.ms} for t in entry.tries]


def moment(at_ms: int) -> str:
    """ISO 8601, UTC."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")

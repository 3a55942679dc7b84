"""Stored recordings: RecordUrl, which leads to the file, and the calls about them, as Plivo's SDK makes them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import urlencode

import structlog
from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import RedirectResponse, Response
from fastapi.security import HTTPBasicCredentials
from pydantic import BeforeValidator, Field, WithJsonSchema

from ari_conf import accounts, recordings
from ari_conf.bucket import Bucket
from ari_conf.errors import RecordingFailed
from ari_conf.recording_document import object_key
from ari_conf.recordings import Stored
from ari_conf.web import models as m
from ari_conf.web.answer import Answer, answer
from ari_conf.web.body import described, described_query, read
from ari_conf.web.caller import Caller, Calling, basic, caller
from ari_conf.web.conferences import replies
from ari_conf.web.errors import Refused, unavailable
from ari_conf.web.parts import Parts, parts_of
from ari_conf.web.paths import decoded

log = structlog.get_logger()
router = APIRouter()


def _moment(value: Any) -> Any:
    """Epoch ms of `YYYY-MM-DD HH:MM[:SS[.ffffff]]`, UTC."""
    if value in ("", None):
        return None
    try:
        return round(datetime.fromisoformat(str(value)).replace(tzinfo=UTC).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise ValueError(f"{str(value)[:40]!r} can't be; allowed is YYYY-MM-DD HH:MM[:SS[.ffffff]]") from None


TIME_SCHEMA = {"type": "string", "pattern": r"^20[0-9]{2}-0[1-9]-[01][1-9] [01][0-9]:[0-5][0-9]$"}
Moment = Annotated[int | None, BeforeValidator(_moment), WithJsonSchema(TIME_SCHEMA)]


class Filters(m.Asynchronous):
    limit: Annotated[int, Field(ge=1, le=20)] = 20
    offset: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    conference_name: str = ""
    conference_uuid: str = ""
    call_uuid: str = ""
    add_time: Moment = None
    add_time__gt: Moment = None
    add_time__gte: Moment = None
    add_time__lt: Moment = None
    add_time__lte: Moment = None

    @property
    def by(self) -> tuple[str, str]:
        """Raises Refused: at most one of them."""
        given = {"name": self.conference_name, "uuid": self.conference_uuid, "call": self.call_uuid}
        chosen = [(kind, value) for kind, value in given.items() if value]
        if len(chosen) > 1:
            raise Refused(400, "give one of conference_name, conference_uuid and call_uuid")
        return chosen[0] if chosen else ("all", "")

    @property
    def span(self) -> tuple[float, float]:
        since = [self.add_time, self.add_time__gte, *(t + 1 for t in [self.add_time__gt] if t is not None)]
        until = [self.add_time, self.add_time__lte, *(t - 1 for t in [self.add_time__lt] if t is not None)]
        first = max((t for t in since if t is not None), default=float("-inf"))
        return first, min((t for t in until if t is not None), default=float("inf"))


class OneRecording(m.Reply):
    recording_id: str
    recording_url: str
    recording_format: str
    recording_type: str
    recording_duration_ms: str
    recording_start_ms: str
    recording_end_ms: str
    rounded_recording_duration: int
    add_time: str
    conference_name: str
    conference_uuid: str
    call_uuid: str
    size: int
    resource_uri: str


class RecordingsList(m.Reply):
    meta: dict[str, Any]
    objects: list[dict[str, Any]]


def recording_id(recording_id: Annotated[str, Path(description="As listed.", min_length=1)]) -> str:
    return decoded(recording_id)


Id = Annotated[str, Depends(recording_id)]


# RecordUrl.


async def _file(request: Request, auth_id: str, recording_id: str, form: str) -> Response:
    parts = parts_of(request)
    auth_id, recording_id = decoded(auth_id), decoded(recording_id)
    account = await asyncio.to_thread(accounts.get, parts.blocking, auth_id)
    if account is None:
        raise Refused(404, "not found")
    if account.recording_auth == "basic":
        credentials: HTTPBasicCredentials | None = await basic(request)
        await caller(request, auth_id, credentials)
    stored = await asyncio.to_thread(recordings.get, parts.blocking, recording_id)
    if stored is None or stored.auth_id != auth_id or stored.file_format != form:
        raise Refused(404, "there is no such recording, or it is not stored yet: its record callback tells when it is")
    address = await asyncio.to_thread(_address, parts, stored)
    return RedirectResponse(address, 302, {"Cache-Control": "no-store"})


@router.api_route("/Recording/{recording_id}.mp3/", methods=["GET", "HEAD"], include_in_schema=False)
async def get_mp3(request: Request, auth_id: str, recording_id: str) -> Response:
    return await _file(request, auth_id, recording_id, "mp3")


@router.api_route("/Recording/{recording_id}.wav/", methods=["GET", "HEAD"], include_in_schema=False)
async def get_wav(request: Request, auth_id: str, recording_id: str) -> Response:
    return await _file(request, auth_id, recording_id, "wav")


def _address(parts: Parts, stored: Stored) -> str:
    return Bucket(parts.settings).address(stored.key, parts.settings.record_url_s)


# The calls.


@router.get("/Recording/", **replies(200, RecordingsList, of_owner=False), openapi_extra=described_query(Filters))
async def list_recordings(request: Request, caller: Calling, body: Annotated[Filters, Depends(read(Filters))]) -> Any:
    async def work() -> Answer:
        by, (since_ms, until_ms) = body.by, body.span
        total, found = await asyncio.to_thread(
            lambda: recordings.listed(
                caller.parts.blocking,
                caller.auth_id,
                by=by,
                since_ms=since_ms,
                until_ms=until_ms,
                limit=body.limit,
                offset=body.offset,
            )
        )
        return Answer(200, {"meta": _meta(request, body, total), "objects": [_told(one) for one in found]})

    return await answer(request, caller, body, work)


@router.get(
    "/Recording/{recording_id}/",
    **replies(200, OneRecording, of_owner=False),
    openapi_extra=described_query(m.Asynchronous),
)
async def get_recording(
    request: Request, caller: Calling, id: Id, body: Annotated[m.Asynchronous, Depends(read(m.Asynchronous))]
) -> Response:
    async def work() -> Answer:
        return Answer(200, _told(await _own(caller, id)))

    return await answer(request, caller, body, work)


@router.delete(
    "/Recording/{recording_id}/", **replies(204, None, of_owner=False), openapi_extra=described(m.Asynchronous)
)
async def delete_recording(
    request: Request, caller: Calling, id: Id, body: Annotated[m.Asynchronous, Depends(read(m.Asynchronous))]
) -> Response:
    """The file, and what stands beside it."""

    async def work() -> Answer:
        stored = await _own(caller, id)
        try:
            await asyncio.to_thread(_delete, caller.parts, stored)
        except RecordingFailed as failure:
            log.error("recording not deleted", auth_id=caller.auth_id, recording_id=id, reason=str(failure))
            raise unavailable("the bucket can't be reached now: try again") from None
        return Answer(204, {})

    return await answer(request, caller, body, work)


async def _own(caller: Caller, recording_id: str) -> Stored:
    """Raises Refused 404."""
    stored = await asyncio.to_thread(recordings.get, caller.parts.blocking, recording_id)
    if stored is None or stored.auth_id != caller.auth_id:
        raise Refused(404, "recording not found")
    return stored


def _delete(parts: Parts, stored: Stored) -> None:
    beside = object_key(stored.auth_id, stored.recording_id, stored.start_ms, "json")
    # The index last: what was broken off can be asked for again.
    Bucket(parts.settings).delete(stored.key, beside)
    recordings.remove(parts.blocking, stored)


def _meta(request: Request, body: Filters, total: int) -> dict[str, Any]:
    def page(offset: int) -> str:
        asked = {**request.query_params, "limit": str(body.limit), "offset": str(offset)}
        return f"{request.scope['path']}?{urlencode(asked)}"

    after, before = body.offset + body.limit, max(0, body.offset - body.limit)
    return {
        "limit": body.limit,
        "offset": body.offset,
        "total_count": total,
        "next": page(after) if after < total else None,
        "previous": page(before) if body.offset else None,
    }


def _told(one: Stored) -> dict[str, Any]:
    return {
        "recording_id": one.recording_id,
        "recording_url": one.record_url,
        "recording_format": one.file_format,
        "recording_type": "conference",
        "recording_duration_ms": f"{one.duration_ms:.5f}",
        "recording_start_ms": f"{one.start_ms:.5f}",
        "recording_end_ms": f"{one.end_ms:.5f}",
        "rounded_recording_duration": -(-one.duration_ms // 60_000) * 60,
        "add_time": datetime.fromtimestamp(one.start_ms / 1000, UTC).isoformat(" ", "microseconds"),
        "conference_name": one.conference_name,
        "conference_uuid": one.conference_id,
        "call_uuid": one.call_uuid,
        "size": one.size,
        "resource_uri": f"/v1/Account/{one.auth_id}/Recording/{one.recording_id}/",
    }

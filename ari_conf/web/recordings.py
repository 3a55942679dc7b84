"""Stored recordings: RecordUrl, which leads to the file, and the calls about them, as Plivo's SDK makes them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import RedirectResponse, Response
from fastapi.security import HTTPBasicCredentials

from ari_conf import accounts, recording_index, recordings
from ari_conf.accounts import DAY_MS, AccountRecord
from ari_conf.bucket import Bucket
from ari_conf.errors import RecordingFailed
from ari_conf.recording_document import object_key
from ari_conf.recording_index import Stored
from ari_conf.web import models as m
from ari_conf.web import recording_stream
from ari_conf.web.answer import Answer, answer
from ari_conf.web.body import described, described_query, read
from ari_conf.web.caller import Caller, Calling, basic, caller
from ari_conf.web.conferences import replies
from ari_conf.web.errors import Refused, unavailable
from ari_conf.web.later import now_ms
from ari_conf.web.paging import paged
from ari_conf.web.parts import Parts, parts_of
from ari_conf.web.paths import decoded
from ari_conf.web.recording_filters import Filters

log = structlog.get_logger()
router = APIRouter()

MOST_OF_AN_ID = 100


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
    from_number: str
    to_number: str
    recording_storage_duration: int
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
    """Without a login, so what it says doesn't depend on whether there is such an account."""
    parts = parts_of(request)
    auth_id, recording_id = decoded(auth_id), decoded(recording_id)
    stored, account = await _look_up(parts, auth_id, recording_id)
    if stored is None or account is None or stored.auth_id != auth_id or stored.file_format != form:
        raise Refused(404, "there is no such recording, or it is not stored yet: its record callback tells when it is")
    if account.recording_auth == "basic":
        credentials: HTTPBasicCredentials | None = await basic(request)
        await caller(request, auth_id, credentials)
    name = _file_name(stored) if "download" in request.query_params else None
    if parts.settings.record_delivery == "web":
        return await recording_stream.answer(request, parts, stored, name)
    address = await parts.storage.run(auth_id, _address, parts, stored, name, request.method == "HEAD")
    return RedirectResponse(address, 302)


async def _look_up(parts: Parts, auth_id: str, recording_id: str) -> tuple[Stored | None, AccountRecord | None]:
    redis: Any = parts.redis
    key = recording_index.key(recording_id[:MOST_OF_AN_ID])
    stored, account = await redis.pipeline(transaction=False).get(key).hget(accounts.KEY, auth_id).execute()
    return (
        recording_index.decode(stored) if stored else None,
        accounts.decode(account) if account else None,
    )


@router.api_route("/Recording/{recording_id}.mp3/", methods=["GET", "HEAD"], include_in_schema=False)
async def get_mp3(request: Request, auth_id: str, recording_id: str) -> Response:
    return await _file(request, auth_id, recording_id, "mp3")


@router.api_route("/Recording/{recording_id}.wav/", methods=["GET", "HEAD"], include_in_schema=False)
async def get_wav(request: Request, auth_id: str, recording_id: str) -> Response:
    return await _file(request, auth_id, recording_id, "wav")


def _file_name(stored: Stored) -> str:
    """What its conference was called."""
    began = datetime.fromtimestamp(stored.start_ms / 1000, UTC).strftime("%Y-%m-%d %H.%M")
    return f"{stored.conference_name} {began}.{stored.file_format}"


def _address(parts: Parts, stored: Stored, name: str | None, head: bool) -> str:
    return Bucket(parts.settings).address(stored.key, parts.settings.record_url_s, name, head=head)


# The calls.


@router.get("/Recording/", **replies(200, RecordingsList, of_owner=False), openapi_extra=described_query(Filters))
async def list_recordings(request: Request, caller: Calling, body: Annotated[Filters, Depends(read(Filters))]) -> Any:
    async def work() -> Answer:
        now = await now_ms(caller.parts.redis)
        since_ms, until_ms = body.span(now / 1000)
        total, found = await caller.parts.reads.run(
            caller.auth_id,
            recording_index.listed,
            caller.parts.blocking,
            caller.auth_id,
            by=body.by,
            since_ms=since_ms,
            until_ms=until_ms,
            limit=body.limit,
            offset=body.offset,
        )
        told = [_told(one, now) for one in found]
        return Answer(200, {"meta": paged(request, body.limit, body.offset, total), "objects": told})

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
        return Answer(200, _told(await own(caller, id), await now_ms(caller.parts.redis)))

    return await answer(request, caller, body, work)


@router.delete(
    "/Recording/{recording_id}/", **replies(204, None, of_owner=False), openapi_extra=described(m.Asynchronous)
)
async def delete_recording(
    request: Request, caller: Calling, id: Id, body: Annotated[m.Asynchronous, Depends(read(m.Asynchronous))]
) -> Response:
    """The file, and what stands beside it."""

    async def work() -> Answer:
        stored = await own(caller, id)
        try:
            await caller.parts.storage.run(caller.auth_id, _delete, caller.parts, stored)
        except RecordingFailed as failure:
            log.error("recording not deleted", auth_id=caller.auth_id, recording_id=id, reason=str(failure))
            raise unavailable("the bucket can't be reached now: try again") from None
        return Answer(204, {})

    return await answer(request, caller, body, work)


async def own(caller: Caller, recording_id: str) -> Stored:
    """Raises Refused 404."""
    reads, blocking = caller.parts.reads, caller.parts.blocking
    stored = await reads.run(caller.auth_id, recordings.get, blocking, recording_id[:MOST_OF_AN_ID])
    if stored is None or stored.auth_id != caller.auth_id:
        raise Refused(404, "recording not found")
    return stored


def _delete(parts: Parts, stored: Stored) -> None:
    beside = object_key(stored.auth_id, stored.recording_id, stored.start_ms, "json")
    # The index last: what was broken off can be asked for again.
    Bucket(parts.settings).delete(stored.key, beside)
    recordings.remove(parts.blocking, stored)


def _told(one: Stored, now_ms: int) -> dict[str, Any]:
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
        "from_number": one.numbers[0][0] if one.numbers else "",
        "to_number": one.numbers[0][1] if one.numbers else "",
        "recording_storage_duration": (now_ms - one.start_ms) // DAY_MS,
        "size": one.size,
        "resource_uri": f"/v1/Account/{one.auth_id}/Recording/{one.recording_id}/",
    }

"""Routes for stored recordings: RecordUrl, which leads to the file, and the API calls that Plivo's SDK makes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import RedirectResponse, Response
from fastapi.security import HTTPBasicCredentials

from ari_conf.errors import RecordingFailed
from ari_conf.recordings import deletion, index, jobs, library
from ari_conf.recordings.bucket import Bucket
from ari_conf.recordings.index import StoredRecording
from ari_conf.store import accounts
from ari_conf.store.accounts import DAY_MS, AccountRecord
from ari_conf.web import models as m
from ari_conf.web import recording_stream
from ari_conf.web.api_result import ApiResult
from ari_conf.web.async_calls import now_ms
from ari_conf.web.auth import ApiClient, CurrentClient, basic, current_client
from ari_conf.web.errors import ApiError, bucket_unavailable
from ari_conf.web.execution import execute
from ari_conf.web.middleware import decode_path_part
from ari_conf.web.openapi import openapi_body, openapi_query, openapi_responses
from ari_conf.web.pagination import paged
from ari_conf.web.parameters import params_dependency
from ari_conf.web.resources import Resources, resources_of
from ari_conf.web.routes.recording_filters import Filters

log = structlog.get_logger()
router = APIRouter()

MAX_ID_CHARS = 100


class RecordingModel(m.ApiResponse):
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


class RecordingList(m.ApiResponse):
    meta: dict[str, Any]
    objects: list[dict[str, Any]]


def recording_id(recording_id: Annotated[str, Path(description="As listed.", min_length=1)]) -> str:
    return decode_path_part(recording_id)


Id = Annotated[str, Depends(recording_id)]


# RecordUrl.


async def _file(request: Request, auth_id: str, recording_id: str, form: str) -> Response:
    """Return the file, or a redirect to it.

    RecordUrl needs no login unless the account asks for one, so a 404 must not reveal whether an account exists."""
    resources = resources_of(request)
    auth_id, recording_id = decode_path_part(auth_id), decode_path_part(recording_id)
    stored, account = await _look_up(resources, auth_id, recording_id)
    if stored is None or account is None or stored.auth_id != auth_id or stored.file_format != form:
        raise ApiError(404, "recording not found, or not stored yet: wait for its record callback")
    if account.recording_auth == "basic":
        credentials: HTTPBasicCredentials | None = await basic(request)
        await current_client(request, auth_id, credentials)
    name = _file_name(stored) if "download" in request.query_params else None
    if resources.settings.record_delivery == "web":
        return await recording_stream.file_response(request, resources, stored, name)
    address = await resources.storage.run(auth_id, _address, resources, stored, name, request.method == "HEAD")
    return RedirectResponse(address, 302)


async def _look_up(
    resources: Resources, auth_id: str, recording_id: str
) -> tuple[StoredRecording | None, AccountRecord | None]:
    redis: Any = resources.redis
    key = index.key(recording_id[:MAX_ID_CHARS])
    text, account = await redis.pipeline(transaction=False).get(key).hget(accounts.KEY, auth_id).execute()
    stored = index.decode(text) if text else None
    if stored is None and account and await redis.hexists(library.MOVED_KEY, auth_id):
        stored = await resources.history_reads.run(
            auth_id, library.get, resources.sync_redis, resources.history, recording_id[:MAX_ID_CHARS]
        )
    return stored, accounts.decode(account) if account else None


@router.api_route("/Recording/{recording_id}.mp3/", methods=["GET", "HEAD"], include_in_schema=False)
async def get_mp3(request: Request, auth_id: str, recording_id: str) -> Response:
    return await _file(request, auth_id, recording_id, "mp3")


@router.api_route("/Recording/{recording_id}.wav/", methods=["GET", "HEAD"], include_in_schema=False)
async def get_wav(request: Request, auth_id: str, recording_id: str) -> Response:
    return await _file(request, auth_id, recording_id, "wav")


def _file_name(stored: StoredRecording) -> str:
    """Return the file name for a download: conference name and start."""
    began = datetime.fromtimestamp(stored.start_ms / 1000, UTC).strftime("%Y-%m-%d %H.%M")
    return f"{stored.conference_name} {began}.{stored.file_format}"


def _address(resources: Resources, stored: StoredRecording, name: str | None, head: bool) -> str:
    return Bucket(resources.settings).presigned_url(stored.key, resources.settings.record_url_s, name, head=head)


# The calls.


@router.get(
    "/Recording/", **openapi_responses(200, RecordingList, of_owner=False), openapi_extra=openapi_query(Filters)
)
async def list_recordings(
    request: Request, client: CurrentClient, body: Annotated[Filters, Depends(params_dependency(Filters))]
) -> Any:
    async def work() -> ApiResult:
        now = await now_ms(client.resources.redis)
        since_ms, until_ms = body.start_range(now / 1000)
        total, found = await client.resources.history_reads.run(
            client.auth_id,
            library.search,
            client.resources.sync_redis,
            client.resources.history,
            client.auth_id,
            by=body.index_terms,
            since_ms=since_ms,
            until_ms=until_ms,
            limit=body.limit,
            offset=body.offset,
        )
        objects = [recording_json(one, now) for one in found]
        return ApiResult(200, {"meta": paged(request, body.limit, body.offset, total), "objects": objects})

    return await execute(request, client, body, work)


@router.get(
    "/Recording/{recording_id}/",
    **openapi_responses(200, RecordingModel, of_owner=False),
    openapi_extra=openapi_query(m.ApiRequest),
)
async def get_recording(
    request: Request,
    client: CurrentClient,
    id: Id,
    body: Annotated[m.ApiRequest, Depends(params_dependency(m.ApiRequest))],
) -> Response:
    async def work() -> ApiResult:
        return ApiResult(200, recording_json(await own_recording(client, id), await now_ms(client.resources.redis)))

    return await execute(request, client, body, work)


@router.delete(
    "/Recording/{recording_id}/",
    **openapi_responses(204, None, of_owner=False),
    openapi_extra=openapi_body(m.ApiRequest),
)
async def delete_recording(
    request: Request,
    client: CurrentClient,
    id: Id,
    body: Annotated[m.ApiRequest, Depends(params_dependency(m.ApiRequest))],
) -> Response:
    """Delete a recording: the file and its sidecar."""

    async def work() -> ApiResult:
        stored = await own_recording(client, id)
        try:
            await client.resources.storage.run(client.auth_id, _delete, client.resources, stored)
        except RecordingFailed as failure:
            log.error("recording deletion failed", auth_id=client.auth_id, recording_id=id, reason=str(failure))
            raise bucket_unavailable() from None
        return ApiResult(204, {})

    return await execute(request, client, body, work)


async def own_recording(client: ApiClient, recording_id: str) -> StoredRecording:
    """Return a recording of the API client's account. Raises ApiError 404 if the account has no such recording."""
    resources, recording_id = client.resources, recording_id[:MAX_ID_CHARS]
    stored = await resources.reads.run(client.auth_id, jobs.get, resources.sync_redis, recording_id)
    if stored is None and await resources.redis.hexists(library.MOVED_KEY, client.auth_id):
        stored = await resources.history_reads.run(
            client.auth_id, library.get, resources.sync_redis, resources.history, recording_id
        )
    if stored is None or stored.auth_id != client.auth_id:
        raise ApiError(404, "recording not found")
    return stored


def _delete(resources: Resources, stored: StoredRecording) -> None:
    deletion.delete(resources.sync_redis, resources.history, Bucket(resources.settings), stored)


def recording_json(one: StoredRecording, now_ms: int) -> dict[str, Any]:
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

"""Route for the sidecar of a recording: attendance, speech intervals and transcript."""

from __future__ import annotations

from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from ari_conf.errors import RecordingFailed
from ari_conf.recordings.bucket import Bucket
from ari_conf.recordings.index import StoredRecording
from ari_conf.recordings.sidecar import sidecar_key
from ari_conf.web import models as m
from ari_conf.web.api_result import ApiResult
from ari_conf.web.auth import CurrentClient
from ari_conf.web.errors import ApiError, bucket_unavailable
from ari_conf.web.execution import execute
from ari_conf.web.openapi import openapi_query, openapi_responses
from ari_conf.web.parameters import params_dependency
from ari_conf.web.resources import Resources
from ari_conf.web.routes.recordings import Id, own_recording

log = structlog.get_logger()
router = APIRouter()


class SidecarResponse(m.ApiResponse):
    document: dict[str, Any]


@router.get(
    "/Recording/{recording_id}/Document/",
    **openapi_responses(200, SidecarResponse, of_owner=False),
    openapi_extra=openapi_query(m.ApiRequest),
)
async def get_document(
    request: Request,
    client: CurrentClient,
    id: Id,
    body: Annotated[m.ApiRequest, Depends(params_dependency(m.ApiRequest))],
) -> Response:
    """Return the sidecar. The web process passes it on, so that the dashboard needs no access to the bucket."""

    async def work() -> ApiResult:
        stored = await own_recording(client, id)
        try:
            document = await client.resources.storage.run(client.auth_id, _read, client.resources, stored)
        except RecordingFailed as failure:
            log.error("sidecar read failed", auth_id=client.auth_id, recording_id=id, reason=str(failure))
            raise bucket_unavailable() from None
        if document is None:
            raise ApiError(404, "this recording's sidecar does not exist in the bucket (any more)")
        return ApiResult(200, {"document": document})

    return await execute(request, client, body, work)


def _read(resources: Resources, stored: StoredRecording) -> dict[str, Any] | None:
    return Bucket(resources.settings).get_json(sidecar_key(stored))

"""Routes that record a live call."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import uuid4

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from pydantic import model_validator

from ari_conf.core import commands as do
from ari_conf.web import models as m
from ari_conf.web.api_result import ApiResult
from ari_conf.web.auth import CurrentClient
from ari_conf.web.execution import execute
from ari_conf.web.openapi import openapi_body, openapi_responses
from ari_conf.web.owner_commands import send_to_call
from ari_conf.web.parameters import params_dependency
from ari_conf.web.routes.conferences import with_transcription_warning
from ari_conf.web.routes.live_calls import ONE, CallId

RECORD = ONE + "Record/"

router = APIRouter()


class StopRequest(m.ApiRequest):
    """Parameters of the end of a recording. The Ruby SDK writes `URL`."""

    url: str = ""

    @model_validator(mode="before")
    @classmethod
    def _either_spelling(cls, given: Any) -> Any:
        return {"url": given["URL"], **given} if isinstance(given, dict) and given.get("URL") else given


Recording = Annotated[m.RecordCallRequest, Depends(params_dependency(m.RecordCallRequest))]
Stopping = Annotated[StopRequest, Depends(params_dependency(StopRequest))]


@router.post(
    RECORD,
    **openapi_responses(202, m.RecordingStartedResponse),
    openapi_extra=openapi_body(m.RecordCallRequest),
)
async def record(request: Request, client: CurrentClient, call_uuid: CallId, body: Recording) -> Response:
    command = do.RecordCall(
        str(uuid4()),
        body.file_format,
        body.record_channel_type == "stereo",
        body.time_limit or m.DEFAULT_RECORDING_S,
        body.callback_url,
        body.callback_method,
        body.transcription_type,
        body.transcription_url,
        body.transcription_method,
        body.transcription_language,
    )
    # callback_url gets the recording's callback here, so it must not make the call asynchronous.
    at_once = body.model_copy(update={"callback_url": None})

    async def work() -> ApiResult:
        return await with_transcription_warning(client, body, await send_to_call(client, call_uuid, command))

    return await execute(request, client, at_once, work)


@router.delete(RECORD, **openapi_responses(204, None), openapi_extra=openapi_body(StopRequest))
async def stop_recording(request: Request, client: CurrentClient, call_uuid: CallId, body: Stopping) -> Response:
    command = do.StopRecordingCall(body.url or None)
    return await execute(request, client, body, lambda: send_to_call(client, call_uuid, command))

"""Routes for commands on a live call: transfer, sounds, digits."""

from __future__ import annotations

from typing import Annotated
from xml.sax.saxutils import escape

from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import Response

from ari_conf.core import commands as do
from ari_conf.core.elements import Play, Speak
from ari_conf.core.queued_sound import SoundList
from ari_conf.documents.parser import parse_sounds
from ari_conf.errors import InvalidDocument
from ari_conf.web import live_call_models as m
from ari_conf.web.auth import ApiClient, CurrentClient
from ari_conf.web.errors import ApiError
from ari_conf.web.execution import execute
from ari_conf.web.middleware import decode_path_part
from ari_conf.web.models import ApiRequest, MessageResponse
from ari_conf.web.openapi import openapi_body, openapi_responses
from ari_conf.web.owner_commands import send_to_call
from ari_conf.web.parameters import params_dependency

ONE = "/Call/{call_uuid}/"

router = APIRouter()


def call_id(call_uuid: Annotated[str, Path(description="CallUUID of a live call.", min_length=1)]) -> str:
    return decode_path_part(call_uuid)


CallId = Annotated[str, Depends(call_id)]
NoParams = Annotated[ApiRequest, Depends(params_dependency(ApiRequest))]
NO_PARAMS = openapi_body(ApiRequest)


async def _execute_command(
    request: Request, client: ApiClient, call_uuid: str, body: ApiRequest, command: do.CallCommand
) -> Response:
    return await execute(request, client, body, lambda: send_to_call(client, call_uuid, command))


Transferring = Annotated[m.TransferRequest, Depends(params_dependency(m.TransferRequest))]


@router.post(
    ONE,
    **openapi_responses(202, MessageResponse),
    openapi_extra=openapi_body(m.TransferRequest, needed=True),
)
async def transfer(request: Request, client: CurrentClient, call_uuid: CallId, body: Transferring) -> Response:
    for leg, url in (("aleg", body.aleg_url), ("bleg", body.bleg_url)):
        if url is None and body.legs in (leg, "both"):
            raise ApiError(400, f"{leg}_url is required for legs={body.legs}")
    command = do.Transfer(body.legs, body.aleg_url or "", body.aleg_method, body.bleg_url or "", body.bleg_method)
    return await _execute_command(request, client, call_uuid, body, command)


Playing = Annotated[m.PlayToCallRequest, Depends(params_dependency(m.PlayToCallRequest))]


@router.post(
    ONE + "Play/",
    **openapi_responses(202, MessageResponse),
    openapi_extra=openapi_body(m.PlayToCallRequest, needed=True),
)
async def play(request: Request, client: CurrentClient, call_uuid: CallId, body: Playing) -> Response:
    command = do.PlayToCall(_queued(body), body.legs)
    return await _execute_command(request, client, call_uuid, body, command)


def _queued(body: m.PlayToCallRequest) -> Play | SoundList:
    """Return what is to be played, in the shortest form."""
    if len(body.urls) > 1:
        return SoundList(tuple(map(Play, body.urls)), body.loop, body.length)
    sound = Play(body.urls[0], loop=0 if body.loop else 1)
    return sound if body.length is None else SoundList((sound,), length=body.length)


@router.delete(ONE + "Play/", **openapi_responses(204, None), openapi_extra=NO_PARAMS)
async def stop_playing(request: Request, client: CurrentClient, call_uuid: CallId, body: NoParams) -> Response:
    return await _execute_command(request, client, call_uuid, body, do.StopPlayingToCall("Play"))


Speaking = Annotated[m.SpeakToCallRequest, Depends(params_dependency(m.SpeakToCallRequest))]


@router.post(
    ONE + "Speak/",
    **openapi_responses(202, MessageResponse),
    openapi_extra=openapi_body(m.SpeakToCallRequest, needed=True),
)
async def speak(request: Request, client: CurrentClient, call_uuid: CallId, body: Speaking) -> Response:
    markup = _read_ssml(body.text) if body.type == "ssml" else escape(body.text)
    command = do.PlayToCall(Speak(markup, body.voice, body.language, 0 if body.loop else 1), body.legs)
    return await _execute_command(request, client, call_uuid, body, command)


def _read_ssml(text: str) -> str:
    """Return SSML as the markup of a Speak. Raises ApiError 400."""
    try:
        sounds, _ = parse_sounds(f"<Response><Speak>{text}</Speak></Response>".encode())
    except InvalidDocument as error:
        raise ApiError(400, f"text is not valid SSML: {error}") from None
    match sounds:
        case (Speak(markup),):
            return markup
    raise ApiError(400, "text is not valid SSML: it has nothing to speak, or more than one text")


@router.delete(ONE + "Speak/", **openapi_responses(204, None), openapi_extra=NO_PARAMS)
async def stop_speaking(request: Request, client: CurrentClient, call_uuid: CallId, body: NoParams) -> Response:
    return await _execute_command(request, client, call_uuid, body, do.StopPlayingToCall("Speak"))


Sending = Annotated[m.DtmfRequest, Depends(params_dependency(m.DtmfRequest))]


@router.post(
    ONE + "DTMF/",
    **openapi_responses(202, MessageResponse),
    openapi_extra=openapi_body(m.DtmfRequest, needed=True),
)
async def send_digits(request: Request, client: CurrentClient, call_uuid: CallId, body: Sending) -> Response:
    command = do.SendDigitsToCall(body.digits, body.leg)
    return await _execute_command(request, client, call_uuid, body, command)

"""Routes for conferences and members: Plivo's calls, and the calls that ari_conf adds."""

from __future__ import annotations

import asyncio
import re
from typing import Annotated
from uuid import uuid4
from xml.sax.saxutils import escape

from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import Response

from ari_conf.common.safe_text import one_spelling
from ari_conf.core import commands as do
from ari_conf.core.elements import Play, Speak
from ari_conf.recordings import transcribers
from ari_conf.web import conference_queries, owner_commands
from ari_conf.web import models as m
from ari_conf.web.api_result import ApiResult
from ari_conf.web.auth import ApiClient, CurrentClient
from ari_conf.web.errors import ApiError
from ari_conf.web.execution import execute
from ari_conf.web.middleware import decode_path_part
from ari_conf.web.openapi import openapi_body, openapi_query, openapi_responses
from ari_conf.web.parameters import params_dependency

ALL = "/Conference/"
ONE = "/Conference/{name}/"
MEMBER = "/Conference/{name}/Member/{member_id}/"
IDS = r"^(all|[0-9]{1,9}(,[0-9]{1,9})*)$"
MAX_IDS_CHARS = 1000
HANG_UP_BATCH = 100
"""Conferences that are ended concurrently: their owners have commands of other accounts to handle, too."""

router = APIRouter()


def conference_name(name: Annotated[str, Path(description="Conference name, URL-encoded.", min_length=1)]) -> str:
    return one_spelling(decode_path_part(name))


def members(
    member_id: Annotated[
        str, Path(description="A member ID, several separated by commas, or `all`.", json_schema_extra={"pattern": IDS})
    ],
) -> do.Members:
    text = decode_path_part(member_id)
    if len(text) > MAX_IDS_CHARS or not re.fullmatch(IDS, text):
        allowed = "a member ID, several separated by commas, or all"
        raise ApiError(400, f"member_id: {text[:100]!r} is not allowed; expected {allowed}")
    return None if text == "all" else tuple(map(int, text.split(",")))


Name = Annotated[str, Depends(conference_name)]
Members = Annotated[do.Members, Depends(members)]
NoParams = Annotated[m.ApiRequest, Depends(params_dependency(m.ApiRequest))]
NO_PARAMS = openapi_body(m.ApiRequest)


async def send_command(client: ApiClient, name: str, command: do.ConferenceCommand) -> ApiResult:
    """Send a command to the owner of the conference, and return its reply. Raises ApiError 404 or 503."""
    _, owner = await conference_queries.get_owner(client.resources, client.auth_id, name)
    return await _send_to_owner(client, owner, name, command, client.api_id)


async def _send_to_owner(
    client: ApiClient, owner: str, name: str, command: do.ConferenceCommand, command_id: str
) -> ApiResult:
    addressed = do.ForConference(client.auth_id, name, command)
    return await owner_commands.send(client, owner, addressed, command_id, to="conference")


async def _execute_command(
    request: Request, client: ApiClient, name: str, body: m.ApiRequest, command: do.ConferenceCommand
) -> Response:
    return await execute(request, client, body, lambda: send_command(client, name, command))


# All conferences, or one.

Query = Annotated[m.ApiRequest, Depends(params_dependency(m.ApiRequest))]
QUERY = openapi_query(m.ApiRequest)


@router.get(ALL, **openapi_responses(200, m.ConferenceList, of_owner=False), openapi_extra=QUERY)
async def list_conferences(request: Request, client: CurrentClient, body: Query) -> Response:
    async def work() -> ApiResult:
        return ApiResult(200, {"conferences": await conference_queries.list_names(client.resources, client.auth_id)})

    return await execute(request, client, body, work)


@router.get(ONE, **openapi_responses(200, m.ConferenceResponse, of_owner=False), openapi_extra=QUERY)
async def get_conference(request: Request, client: CurrentClient, name: Name, body: Query) -> Response:
    async def work() -> ApiResult:
        return ApiResult(200, await conference_queries.get_conference(client.resources, client.auth_id, name))

    return await execute(request, client, body, work)


@router.delete(ALL, **openapi_responses(204, None), openapi_extra=NO_PARAMS)
async def hang_up_all_conferences(request: Request, client: CurrentClient, body: NoParams) -> Response:
    async def one(name: str, owner: str) -> None:
        reply = await _send_to_owner(client, owner, name, do.HangUpAll(), str(uuid4()))
        assert reply.status in (204, 404), "404: it has ended in the meantime"

    async def work() -> ApiResult:
        found = await conference_queries.list_owners(client.resources, client.auth_id)
        for first in range(0, len(found), HANG_UP_BATCH):
            batch = found[first : first + HANG_UP_BATCH]
            results = await asyncio.gather(*(one(*each) for each in batch), return_exceptions=True)
            for result in results:
                if isinstance(result, BaseException):
                    raise result
        return ApiResult(204, {})

    return await execute(request, client, body, work)


@router.delete(ONE, **openapi_responses(204, None), openapi_extra=NO_PARAMS)
async def hang_up_conference(request: Request, client: CurrentClient, name: Name, body: NoParams) -> Response:
    return await _execute_command(request, client, name, body, do.HangUpAll())


Recording = Annotated[m.RecordRequest, Depends(params_dependency(m.RecordRequest))]


@router.post(
    ONE + "Record/", **openapi_responses(202, m.RecordingStartedResponse), openapi_extra=openapi_body(m.RecordRequest)
)
async def record(request: Request, client: CurrentClient, name: Name, body: Recording) -> Response:
    command = do.Record(
        str(uuid4()),
        body.file_format,
        body.time_limit,
        body.callback_url,
        body.callback_method,
        body.transcription_type,
        body.transcription_url,
        body.transcription_method,
        body.transcription_language,
    )
    # Spec: "Its callback". callback_url gets the recording's callback here, so it must not make the call asynchronous.
    at_once = body.model_copy(update={"callback_url": None})

    async def work() -> ApiResult:
        return await with_transcription_warning(client, body, await send_command(client, name, command))

    return await execute(request, client, at_once, work)


async def with_transcription_warning(client: ApiClient, body: m.RecordRequest, result: ApiResult) -> ApiResult:
    """Return the reply to a request to record, with a warning if nobody would transcribe the recording."""
    if result.status != 202 or not body.transcription_type:
        return result
    resources = client.resources
    if not await resources.reads.run(client.auth_id, transcribers.are_missing, resources.sync_redis):
        return result
    warning = f"the recording will not be transcribed: {transcribers.MISSING}"
    return ApiResult(result.status, {**result.body, "warning": warning})


@router.delete(ONE + "Record/", **openapi_responses(204, None), openapi_extra=NO_PARAMS)
async def stop_recording(request: Request, client: CurrentClient, name: Name, body: NoParams) -> Response:
    return await _execute_command(request, client, name, body, do.StopRecording())


# Members.


@router.delete(MEMBER, **openapi_responses(204, None), openapi_extra=NO_PARAMS)
async def hang_up_member(request: Request, client: CurrentClient, name: Name, ids: Members, body: NoParams) -> Response:
    return await _execute_command(request, client, name, body, do.HangUpMembers(ids))


@router.post(MEMBER + "Kick/", **openapi_responses(202, m.MembersResponse), openapi_extra=NO_PARAMS)
async def kick(request: Request, client: CurrentClient, name: Name, ids: Members, body: NoParams) -> Response:
    return await _execute_command(request, client, name, body, do.Kick(ids))


@router.post(MEMBER + "Mute/", **openapi_responses(202, m.MembersResponse), openapi_extra=NO_PARAMS)
async def mute(request: Request, client: CurrentClient, name: Name, ids: Members, body: NoParams) -> Response:
    return await _execute_command(request, client, name, body, do.Mute(ids, True))


@router.delete(MEMBER + "Mute/", **openapi_responses(204, None), openapi_extra=NO_PARAMS)
async def unmute(request: Request, client: CurrentClient, name: Name, ids: Members, body: NoParams) -> Response:
    return await _execute_command(request, client, name, body, do.Mute(ids, False))


@router.post(MEMBER + "Deaf/", **openapi_responses(202, m.MembersResponse), openapi_extra=NO_PARAMS)
async def deafen(request: Request, client: CurrentClient, name: Name, ids: Members, body: NoParams) -> Response:
    return await _execute_command(request, client, name, body, do.Deafen(ids, True))


@router.delete(MEMBER + "Deaf/", **openapi_responses(204, None), openapi_extra=NO_PARAMS)
async def undeafen(request: Request, client: CurrentClient, name: Name, ids: Members, body: NoParams) -> Response:
    return await _execute_command(request, client, name, body, do.Deafen(ids, False))


Playing = Annotated[m.PlayRequest, Depends(params_dependency(m.PlayRequest))]


@router.post(
    MEMBER + "Play/",
    **openapi_responses(202, m.MembersResponse),
    openapi_extra=openapi_body(m.PlayRequest, needed=True),
)
async def play(request: Request, client: CurrentClient, name: Name, ids: Members, body: Playing) -> Response:
    return await _execute_command(request, client, name, body, do.PlayToMembers(ids, Play(body.url)))


@router.delete(MEMBER + "Play/", **openapi_responses(204, None), openapi_extra=NO_PARAMS)
async def stop_playing(request: Request, client: CurrentClient, name: Name, ids: Members, body: NoParams) -> Response:
    return await _execute_command(request, client, name, body, do.StopPlaying(ids, "Play"))


def plain_text_speak(text: str, voice: str, language: str) -> Speak:
    """Return a Speak element for the API's text, which is plain text and not SSML."""
    return Speak(escape(text), voice, language)


Speaking = Annotated[m.MemberSpeakRequest, Depends(params_dependency(m.MemberSpeakRequest))]


@router.post(
    MEMBER + "Speak/",
    **openapi_responses(202, m.MembersResponse),
    openapi_extra=openapi_body(m.SpeakRequest, needed=True),
)
async def speak(request: Request, client: CurrentClient, name: Name, ids: Members, body: Speaking) -> Response:
    sound = plain_text_speak(body.text, body.voice, body.language)
    return await _execute_command(request, client, name, body, do.PlayToMembers(ids, sound))


@router.delete(MEMBER + "Speak/", **openapi_responses(204, None), openapi_extra=NO_PARAMS)
async def stop_speaking(request: Request, client: CurrentClient, name: Name, ids: Members, body: NoParams) -> Response:
    return await _execute_command(request, client, name, body, do.StopPlaying(ids, "Speak"))


# Calls that Plivo's API does not have.

Holding = Annotated[m.HoldRequest, Depends(params_dependency(m.HoldRequest))]


@router.post(MEMBER + "Hold/", **openapi_responses(202, m.MembersResponse), openapi_extra=openapi_body(m.HoldRequest))
async def hold(request: Request, client: CurrentClient, name: Name, ids: Members, body: Holding) -> Response:
    return await _execute_command(request, client, name, body, do.Hold(ids, True, body.url))


@router.delete(MEMBER + "Hold/", **openapi_responses(204, None), openapi_extra=NO_PARAMS)
async def unhold(request: Request, client: CurrentClient, name: Name, ids: Members, body: NoParams) -> Response:
    return await _execute_command(request, client, name, body, do.Hold(ids, False))


Announcing = Annotated[m.AnnounceRequest, Depends(params_dependency(m.AnnounceRequest))]


@router.post(
    ONE + "Announce/",
    **openapi_responses(202, m.MessageResponse),
    openapi_extra=openapi_body(m.AnnounceRequest, needed=True),
)
async def announce(request: Request, client: CurrentClient, name: Name, body: Announcing) -> Response:
    if (body.url is None) == (body.text is None):
        raise ApiError(400, "either url or text is required")
    sound = Play(body.url) if body.url else plain_text_speak(body.text or "", body.voice, body.language)
    return await _execute_command(request, client, name, body, do.Announce(sound))


@router.delete(ONE + "Announce/", **openapi_responses(204, None), openapi_extra=NO_PARAMS)
async def stop_announcing(request: Request, client: CurrentClient, name: Name, body: NoParams) -> Response:
    return await _execute_command(request, client, name, body, do.StopAnnouncing())


@router.post(ONE + "Lock/", **openapi_responses(202, m.MessageResponse), openapi_extra=NO_PARAMS)
async def lock(request: Request, client: CurrentClient, name: Name, body: NoParams) -> Response:
    return await _execute_command(request, client, name, body, do.Lock(True))


@router.delete(ONE + "Lock/", **openapi_responses(204, None), openapi_extra=NO_PARAMS)
async def unlock(request: Request, client: CurrentClient, name: Name, body: NoParams) -> Response:
    return await _execute_command(request, client, name, body, do.Lock(False))

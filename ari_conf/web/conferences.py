"""The calls about conferences: Plivo's, and ours beyond them."""

from __future__ import annotations

import asyncio
import re
from typing import Annotated, Any
from uuid import uuid4
from xml.sax.saxutils import escape

from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import Response

from ari_conf import transcribers
from ari_conf.core import commands as do
from ari_conf.core.elements import Play, Speak
from ari_conf.visible import one_spelling
from ari_conf.web import models as m
from ari_conf.web import reads
from ari_conf.web.answer import Answer, answer
from ari_conf.web.body import described, described_query, read
from ari_conf.web.caller import Caller, Calling
from ari_conf.web.errors import Refused, unavailable
from ari_conf.web.paths import decoded

ALL = "/Conference/"
ONE = "/Conference/{name}/"
MEMBER = "/Conference/{name}/Member/{member_id}/"
IDS = r"^(all|[0-9]{1,9}(,[0-9]{1,9})*)$"
MOST_IDS = 1000
HUNG_UP_AT_ONCE = 100
"""Conferences: their owners have others' commands to do, too."""

router = APIRouter()


def conference_name(name: Annotated[str, Path(description="The conference's, URL-encoded.", min_length=1)]) -> str:
    return one_spelling(decoded(name))


def members(
    member_id: Annotated[
        str, Path(description="One id, several by comma, or `all`.", json_schema_extra={"pattern": IDS})
    ],
) -> do.Members:
    text = decoded(member_id)
    if len(text) > MOST_IDS or not re.fullmatch(IDS, text):
        raise Refused(400, "member_id: one id, several separated by commas, or all")
    return None if text == "all" else tuple(map(int, text.split(",")))


Name = Annotated[str, Depends(conference_name)]
Members = Annotated[do.Members, Depends(members)]
Nothing = Annotated[m.Asynchronous, Depends(read(m.Asynchronous))]
NOTHING = described(m.Asynchronous)


def replies(status: int, model: Any, *, of_owner: bool = True, asynchronous: bool = True) -> dict[str, Any]:
    """A call's status and replies, for OpenAPI."""
    refusals = [400, 401, 404, 429, 503] + ([409] if of_owner else [])
    told: dict[int | str, Any] = {code: {"model": m.Error} for code in refusals}
    if asynchronous:
        told[202] = {"model": m.Reply, "description": "With callback_url: the result is sent there."}
    if status == 204:
        told[204] = {"description": "Done.", "content": None}
    else:
        told[status] = {"model": model if status != 202 else model | m.Reply, "description": "Done."}
    return {"status_code": status, "responses": told, "response_class": Response}


async def command(caller: Caller, name: str, wanted: do.Command) -> Answer:
    """Asks the owner. Raises Refused: 404, 503."""
    _, owner = await reads.owner(caller.parts, caller.auth_id, name)
    return await _ask(caller, owner, name, wanted, caller.api_id)


async def _ask(caller: Caller, owner: str, name: str, wanted: do.Command, command_id: str) -> Answer:
    deadline_s = caller.parts.settings.command_deadline
    reply = await caller.parts.asker.ask(owner, wanted, command_id, caller.auth_id, name, deadline_s)
    if reply is None:
        raise unavailable("the conference's Asterisk did not answer in time: try again")
    if reply.status == 503:
        raise unavailable(str(dict(reply.body)["error"]))
    return Answer(reply.status, dict(reply.body))


async def _to_conference(
    request: Request, caller: Caller, name: str, body: m.Asynchronous, wanted: do.Command
) -> Response:
    return await answer(request, caller, body, lambda: command(caller, name, wanted))


# All conferences, and one.

Query = Annotated[m.Asynchronous, Depends(read(m.Asynchronous))]
QUERY = described_query(m.Asynchronous)


@router.get(ALL, **replies(200, m.Names, of_owner=False), openapi_extra=QUERY)
async def list_conferences(request: Request, caller: Calling, body: Query) -> Response:
    async def work() -> Answer:
        return Answer(200, {"conferences": await reads.names(caller.parts, caller.auth_id)})

    return await answer(request, caller, body, work)


@router.get(ONE, **replies(200, m.OneConference, of_owner=False), openapi_extra=QUERY)
async def get_conference(request: Request, caller: Calling, name: Name, body: Query) -> Response:
    async def work() -> Answer:
        return Answer(200, await reads.conference(caller.parts, caller.auth_id, name))

    return await answer(request, caller, body, work)


@router.delete(ALL, **replies(204, None), openapi_extra=NOTHING)
async def hang_up_all_conferences(request: Request, caller: Calling, body: Nothing) -> Response:
    async def one(name: str, owner: str) -> None:
        reply = await _ask(caller, owner, name, do.HangUpAll(), str(uuid4()))
        assert reply.status in (204, 404), "one that has ended meanwhile is as good"

    async def work() -> Answer:
        found = await reads.owners(caller.parts, caller.auth_id)
        for first in range(0, len(found), HUNG_UP_AT_ONCE):
            some = found[first : first + HUNG_UP_AT_ONCE]
            results = await asyncio.gather(*(one(*each) for each in some), return_exceptions=True)
            for result in results:
                if isinstance(result, BaseException):
                    raise result
        return Answer(204, {})

    return await answer(request, caller, body, work)


@router.delete(ONE, **replies(204, None), openapi_extra=NOTHING)
async def hang_up_conference(request: Request, caller: Calling, name: Name, body: Nothing) -> Response:
    return await _to_conference(request, caller, name, body, do.HangUpAll())


Recording = Annotated[m.Recording, Depends(read(m.Recording))]


@router.post(ONE + "Record/", **replies(202, m.RecordingStarted), openapi_extra=described(m.Recording))
async def record(request: Request, caller: Calling, name: Name, body: Recording) -> Response:
    wanted = do.Record(
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
    # "Its callback": callback_url is the recording's here, told when that is there.
    at_once = body.model_copy(update={"callback_url": None})

    async def work() -> Answer:
        told = await command(caller, name, wanted)
        if told.status == 202 and body.transcription_type and await _nothing_transcribes(caller):
            return Answer(told.status, {**told.body, "warning": f"it will not be transcribed: {transcribers.MISSING}"})
        return told

    return await answer(request, caller, at_once, work)


async def _nothing_transcribes(caller: Caller) -> bool:
    return await caller.parts.reads.run(caller.auth_id, transcribers.are_missing, caller.parts.blocking)


@router.delete(ONE + "Record/", **replies(204, None), openapi_extra=NOTHING)
async def stop_recording(request: Request, caller: Calling, name: Name, body: Nothing) -> Response:
    return await _to_conference(request, caller, name, body, do.StopRecording())


# Members.


@router.delete(MEMBER, **replies(204, None), openapi_extra=NOTHING)
async def hang_up_member(request: Request, caller: Calling, name: Name, ids: Members, body: Nothing) -> Response:
    return await _to_conference(request, caller, name, body, do.HangUpMembers(ids))


@router.post(MEMBER + "Kick/", **replies(202, m.OfMembers), openapi_extra=NOTHING)
async def kick(request: Request, caller: Calling, name: Name, ids: Members, body: Nothing) -> Response:
    return await _to_conference(request, caller, name, body, do.Kick(ids))


@router.post(MEMBER + "Mute/", **replies(202, m.OfMembers), openapi_extra=NOTHING)
async def mute(request: Request, caller: Calling, name: Name, ids: Members, body: Nothing) -> Response:
    return await _to_conference(request, caller, name, body, do.Mute(ids, True))


@router.delete(MEMBER + "Mute/", **replies(204, None), openapi_extra=NOTHING)
async def unmute(request: Request, caller: Calling, name: Name, ids: Members, body: Nothing) -> Response:
    return await _to_conference(request, caller, name, body, do.Mute(ids, False))


@router.post(MEMBER + "Deaf/", **replies(202, m.OfMembers), openapi_extra=NOTHING)
async def deafen(request: Request, caller: Calling, name: Name, ids: Members, body: Nothing) -> Response:
    return await _to_conference(request, caller, name, body, do.Deafen(ids, True))


@router.delete(MEMBER + "Deaf/", **replies(204, None), openapi_extra=NOTHING)
async def undeafen(request: Request, caller: Calling, name: Name, ids: Members, body: Nothing) -> Response:
    return await _to_conference(request, caller, name, body, do.Deafen(ids, False))


Playing = Annotated[m.Playing, Depends(read(m.Playing))]


@router.post(MEMBER + "Play/", **replies(202, m.OfMembers), openapi_extra=described(m.Playing, needed=True))
async def play(request: Request, caller: Calling, name: Name, ids: Members, body: Playing) -> Response:
    return await _to_conference(request, caller, name, body, do.PlayToMembers(ids, Play(body.url)))


@router.delete(MEMBER + "Play/", **replies(204, None), openapi_extra=NOTHING)
async def stop_playing(request: Request, caller: Calling, name: Name, ids: Members, body: Nothing) -> Response:
    return await _to_conference(request, caller, name, body, do.StopPlaying(ids, "Play"))


def spoken(text: str, voice: str, language: str) -> Speak:
    """The API's text is plain, not SSML."""
    return Speak(escape(text), voice, language)


Speaking = Annotated[m.SpeakingToMember, Depends(read(m.SpeakingToMember))]


@router.post(MEMBER + "Speak/", **replies(202, m.OfMembers), openapi_extra=described(m.Speaking, needed=True))
async def speak(request: Request, caller: Calling, name: Name, ids: Members, body: Speaking) -> Response:
    sound = spoken(body.text, body.voice, body.language)
    return await _to_conference(request, caller, name, body, do.PlayToMembers(ids, sound))


@router.delete(MEMBER + "Speak/", **replies(204, None), openapi_extra=NOTHING)
async def stop_speaking(request: Request, caller: Calling, name: Name, ids: Members, body: Nothing) -> Response:
    return await _to_conference(request, caller, name, body, do.StopPlaying(ids, "Speak"))


# Ours beyond Plivo's.

Holding = Annotated[m.Holding, Depends(read(m.Holding))]


@router.post(MEMBER + "Hold/", **replies(202, m.OfMembers), openapi_extra=described(m.Holding))
async def hold(request: Request, caller: Calling, name: Name, ids: Members, body: Holding) -> Response:
    return await _to_conference(request, caller, name, body, do.Hold(ids, True, body.url))


@router.delete(MEMBER + "Hold/", **replies(204, None), openapi_extra=NOTHING)
async def unhold(request: Request, caller: Calling, name: Name, ids: Members, body: Nothing) -> Response:
    return await _to_conference(request, caller, name, body, do.Hold(ids, False))


Announcing = Annotated[m.Announcing, Depends(read(m.Announcing))]


@router.post(ONE + "Announce/", **replies(202, m.Message), openapi_extra=described(m.Announcing, needed=True))
async def announce(request: Request, caller: Calling, name: Name, body: Announcing) -> Response:
    if (body.url is None) == (body.text is None):
        raise Refused(400, "either url or text is required")
    sound = Play(body.url) if body.url else spoken(body.text or "", body.voice, body.language)
    return await _to_conference(request, caller, name, body, do.Announce(sound))


@router.delete(ONE + "Announce/", **replies(204, None), openapi_extra=NOTHING)
async def stop_announcing(request: Request, caller: Calling, name: Name, body: Nothing) -> Response:
    return await _to_conference(request, caller, name, body, do.StopAnnouncing())


@router.post(ONE + "Lock/", **replies(202, m.Message), openapi_extra=NOTHING)
async def lock(request: Request, caller: Calling, name: Name, body: Nothing) -> Response:
    return await _to_conference(request, caller, name, body, do.Lock(True))


@router.delete(ONE + "Lock/", **replies(204, None), openapi_extra=NOTHING)
async def unlock(request: Request, caller: Calling, name: Name, body: Nothing) -> Response:
    return await _to_conference(request, caller, name, body, do.Lock(False))

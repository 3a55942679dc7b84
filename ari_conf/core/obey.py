"""What each command of the API does to a conference, and what is replied. "202" and "204" mean: it is decided."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ari_conf.core import commands as do
from ari_conf.core import ids
from ari_conf.core.bounds import MOST_QUEUED
from ari_conf.core.conference_state import ANNOUNCEMENT
from ari_conf.core.effects import DeafenChannel, Field, MuteChannel, Reply, Target
from ari_conf.core.elements import Conference as Element
from ari_conf.core.elements import Play, Speak
from ari_conf.core.internal import HangUpCall, Out
from ari_conf.core.player import Player
from ari_conf.core.recording import Recording

if TYPE_CHECKING:
    from ari_conf.core.conference import Conference
    from ari_conf.core.events import CommandReceived
    from ari_conf.core.member import Member

KINDS: dict[str, type[Play] | type[Speak]] = {"Play": Play, "Speak": Speak}


def refused(command_id: str, status: int, error: str) -> Reply:
    return Reply(command_id, status, (("error", error),))


def obey(conference: Conference, received: CommandReceived, now: int) -> Out:
    """All effects, the reply last."""
    command, command_id = received.command, received.command_id
    match command:
        case do.HangUpAll():
            calls = [m.call_uuid for m in conference.members.values()]
            out = conference.end("api_hangup", now)
            return [*out, *map(HangUpCall, calls), Reply(command_id, 204)]
        case do.Lock(on):
            conference.locked = on
            return [Reply(command_id, 202, (("message", "locked"),)) if on else Reply(command_id, 204)]
        case do.Announce(sound):
            return _announce(conference, command_id, sound, now)
        case do.StopAnnouncing():
            stopped = [effect for player in conference.announced for effect in player.stop()]
            return [*stopped, Reply(command_id, 204)]
        case do.Record():
            return _record(conference, command_id, command, now)
        case do.StopRecording():
            recording = conference.recording
            if recording is None or recording.state != "running":
                return [refused(command_id, 404, "the conference is not being recorded")]
            return [*recording.stop(now), Reply(command_id, 204)]
    members = _chosen(conference, command.members)
    if not members:
        return [refused(command_id, 404, "member not found")]
    if isinstance(command, do.PlayToMembers) and any(len(m.aside.queue) >= MOST_QUEUED for m in members):
        return [refused(command_id, 409, f"{MOST_QUEUED} sounds wait for this member already: stop them, or wait")]
    out = []
    for member in members:
        out += _obey(conference, member, command, now)
    return [*out, Reply(command_id, *_told(command, members))]


def _chosen(conference: Conference, wanted: do.Members) -> list[Member]:
    """ "one id, several by comma, or `all`": those of them who are in."""
    present = {m.member_id: m for m in conference.members.values() if m.present}
    return [present[i] for i in (present if wanted is None else dict.fromkeys(wanted)) if i in present]


def _obey(conference: Conference, member: Member, command: do.Command, now: int) -> Out:
    match command:
        case do.Mute(_, on):
            return _mute(conference, member, on, now)
        case do.Deafen(_, on):
            return _deafen(member, on)
        case do.Hold(_, on, url):
            return _hold(member, on, url)
        case do.Kick():
            return conference.leave(member.channel_id, "kick", now)
        case do.HangUpMembers():
            return [*conference.leave(member.channel_id, "api_hangup", now), HangUpCall(member.call_uuid)]
        case do.PlayToMembers(_, sound):
            member.aside.queue.append(sound)
        case do.StopPlaying(_, kind):
            return [*member.aside.drop(KINDS[kind])]
    return []


def _mute(conference: Conference, member: Member, on: bool, now: int) -> Out:
    if member.muted == on:
        return []
    # What he has said so far was heard, and what he says meanwhile is not.
    out = conference.note_talk(member, now)
    member.muted = on
    member.talking_at = now
    if on and conference.floor == member.member_id:
        # "it is free when he leaves or is muted"
        conference.floor = None
    # Of a phone that holds us nothing is heard anyway, until it takes us back.
    return out if member.on_hold else [*out, MuteChannel(member.channel_id, on)]


def _deafen(member: Member, on: bool) -> Out:
    if member.deaf == on:
        return []
    member.deaf = on
    # One who is held hears his music: it holds from his return on.
    return [] if member.state == "held" else [DeafenChannel(member.channel_id, on)]


def _hold(member: Member, on: bool, url: str | None) -> Out:
    other_music = member.held and on and member.hold_url != url and member.state == "held"
    member.held, member.hold_url = on, url if on else None
    return member.stop_waiting() if other_music else []


def _announce(conference: Conference, command_id: str, sound: Play | Speak, now: int) -> Out:
    if not conference.mixed:
        # Until it starts each hears his own waitSound: there is nothing yet that all hear.
        return [refused(command_id, 409, "the conference has not started: nobody would hear it")]
    if len(conference.announced) >= MOST_QUEUED:
        error = f"{MOST_QUEUED} announcements wait in this conference already: stop them, or wait"
        return [refused(command_id, 409, error)]
    conference.sounds += 1
    owner = ids.for_conference(conference.conference_id, ANNOUNCEMENT, conference.sounds)
    player = Player(owner, Target("bridge", conference.bridge_id), (sound,))
    conference.players[owner] = player
    return [*player.start(now), Reply(command_id, 202, (("message", "announcement queued into conference"),))]


def _record(conference: Conference, command_id: str, wanted: do.Record, now: int) -> Out:
    last = conference.recording
    if last is not None and not last.handed_on:
        # "POST …/Record/ when a recording runs: 409."
        return [refused(command_id, 409, "the conference is being recorded already")]
    if not conference.mixed:
        return [refused(command_id, 409, "the conference has not started: there is nothing to record")]
    element = Element(
        conference.name,
        record=True,
        record_file_format=wanted.file_format,
        callback_url=wanted.callback_url,
        callback_method=wanted.callback_method,
        transcription_type=wanted.transcription_type,
        transcription_url=wanted.transcription_url,
        transcription_method=wanted.transcription_method,
        transcription_language=wanted.transcription_language,
    )
    ids_ = (wanted.recording_id, conference.bridge_id, conference.auth_id, "")
    wideband = any(m.wideband for m in conference.members.values())
    recording = Recording(*ids_, element, now, wideband=wideband, api_id=command_id)
    recording.deadline = now + wanted.time_limit * 1000 if wanted.time_limit else None
    conference.recording = recording
    body = (
        ("message", "conference recording started"),
        ("recording_id", recording.recording_id),
        ("url", recording.url(conference.public_url)),
    )
    return [*recording.start(), Reply(command_id, 202, body)]


def _told(command: do.Command, members: list[Member]) -> tuple[int, tuple[Field, ...]]:
    match command:
        case do.Mute(_, True):
            message = "muted"
        case do.Deafen(_, True):
            message = "deaf"
        case do.Hold(_, True):
            message = "held"
        case do.Kick():
            message = "kicked"
        case do.PlayToMembers(_, sound):
            message = f"{type(sound).__name__.lower()} queued into conference"
        case _:
            return 204, ()
    # "In replies `member_id` is a list of strings."
    return 202, (("message", message), ("member_id", tuple(str(m.member_id) for m in members)))

"""Command handler: applies each API command to a conference and builds the reply.

Status 202 or 204 means that the command has been decided, not that Asterisk has carried it out.
"""

from __future__ import annotations

from http import HTTPStatus

from ari_conf.core import commands as do
from ari_conf.core import ids
from ari_conf.core.bounds import MAX_QUEUED
from ari_conf.core.conferences.conference import Conference
from ari_conf.core.conferences.member import Member
from ari_conf.core.conferences.member_state import ON_HOLD
from ari_conf.core.conferences.recording import ConferenceRecording
from ari_conf.core.effects import CommandReply, DeafenChannel, MuteChannel, ReplyField, Target
from ari_conf.core.elements import Conference as Element
from ari_conf.core.elements import Play, Speak
from ari_conf.core.messages import HangupRequested, Outputs
from ari_conf.core.playback.shared_playback import ANNOUNCEMENT
from ari_conf.core.queued_sound import SOUND_TYPES


def error_reply(command_id: str, status: HTTPStatus, error: str) -> CommandReply:
    return _reply(command_id, status, ("error", error))


def hang_up_all(conference: Conference, now: int) -> Outputs:
    """End the conference and hang up all of its members."""
    calls = [m.call_uuid for m in conference.members.values()]
    return [*conference.end("api_hangup", now), *map(HangupRequested, calls)]


def _reply(command_id: str, status: HTTPStatus, *fields: ReplyField) -> CommandReply:
    # The reply is sent and logged as a number.
    return CommandReply(command_id, status.value, fields)


def handle_command(conference: Conference, command_id: str, command: do.ConferenceCommand, now: int) -> Outputs:
    """Apply the command; return its effects, the reply, and the resulting changes of the media state."""
    return _apply(conference, command_id, command, now) + conference.update_media(now)


def _apply(conference: Conference, command_id: str, command: do.ConferenceCommand, now: int) -> Outputs:
    """Apply the command; return its effects, with the reply last."""
    match command:
        case do.HangUpAll():
            return [*hang_up_all(conference, now), _reply(command_id, HTTPStatus.NO_CONTENT)]
        case do.Lock(on):
            conference.locked = on
            if on:
                return [_reply(command_id, HTTPStatus.ACCEPTED, ("message", "locked"))]
            return [_reply(command_id, HTTPStatus.NO_CONTENT)]
        case do.Announce(sound):
            return _announce(conference, command_id, sound, now)
        case do.StopAnnouncing():
            stopped = conference.shared_playback.stop_announcements()
            return [*stopped, _reply(command_id, HTTPStatus.NO_CONTENT)]
        case do.Record():
            return _record(conference, command_id, command, now)
        case do.StopRecording():
            running = [recording for recording in conference.recordings.values() if recording.is_running]
            if not running:
                return [error_reply(command_id, HTTPStatus.NOT_FOUND, "the conference is not being recorded")]
            stops = [effect for recording in running for effect in recording.stop(now)]
            return [*stops, _reply(command_id, HTTPStatus.NO_CONTENT)]
    members = _select_members(conference, command.members)
    if not members:
        return [error_reply(command_id, HTTPStatus.NOT_FOUND, "member not found")]
    if isinstance(command, do.PlayToMembers) and any(len(m.private_playback.queue) >= MAX_QUEUED for m in members):
        error = f"{MAX_QUEUED} sounds are already queued for this member: stop them, or wait"
        return [error_reply(command_id, HTTPStatus.CONFLICT, error)]
    out = []
    for member in members:
        out += _apply_to_member(conference, member, command, now)
    return [*out, _success_reply(command_id, command, members)]


def _select_members(conference: Conference, wanted: do.Members) -> list[Member]:
    """Return the named members that are present. Spec: "one id, several by comma, or `all`"."""
    present = {m.member_id: m for m in conference.members.values() if m.is_present}
    return [present[i] for i in (present if wanted is None else dict.fromkeys(wanted)) if i in present]


def _apply_to_member(conference: Conference, member: Member, command: do.ConferenceCommand, now: int) -> Outputs:
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
            return [*conference.leave(member.channel_id, "api_hangup", now), HangupRequested(member.call_uuid)]
        case do.PlayToMembers(_, sound):
            member.private_playback.queue.append(sound)
        case do.StopPlaying(_, kind):
            return [*member.private_playback.clear(SOUND_TYPES[kind])]
    return []


def _mute(conference: Conference, member: Member, on: bool, now: int) -> Outputs:
    if member.muted == on:
        return []
    # Speech so far was heard unless the member was muted; speech while muted is not heard.
    out = conference.note_speech(member, now)
    member.muted = on
    member.talking_at = now
    if on and conference.floor == member.member_id:
        # Spec: the floor becomes free when its holder leaves or is muted.
        conference.floor = None
    # A phone that has put the call on hold stays muted anyway until it resumes the call.
    return out if member.held_by_phone else [*out, MuteChannel(member.channel_id, on)]


def _deafen(member: Member, on: bool) -> Outputs:
    if member.deaf == on:
        return []
    member.deaf = on
    # A member on hold must hear the music: deafness takes effect on their return to the bridge.
    return [] if member.state is ON_HOLD else [DeafenChannel(member.channel_id, on)]


def _hold(member: Member, on: bool, url: str | None) -> Outputs:
    is_on_hold = member.hold_requested and member.state is ON_HOLD
    other_sound = is_on_hold and on and member.hold_url != url
    member.hold_requested, member.hold_url = on, url if on else None
    return member.stop_wait_sound() if other_sound else []


def _announce(conference: Conference, command_id: str, sound: Play | Speak, now: int) -> Outputs:
    if not conference.members_in_bridge:
        # Before the start, each member hears their own waitSound, and no sound reaches all members.
        error = "the conference has not started: no member would hear the announcement"
        return [error_reply(command_id, HTTPStatus.CONFLICT, error)]
    if len(conference.shared_playback.announcements) >= MAX_QUEUED:
        error = f"{MAX_QUEUED} announcements are already queued in this conference: stop them, or wait"
        return [error_reply(command_id, HTTPStatus.CONFLICT, error)]
    owner, target = ids.for_conference(conference.conference_id, ANNOUNCEMENT), Target("bridge", conference.bridge_id)
    started = conference.shared_playback.play(owner, target, (sound,), now)
    message = "announcement queued into conference"
    return [*started, _reply(command_id, HTTPStatus.ACCEPTED, ("message", message))]


def _record(conference: Conference, command_id: str, wanted: do.Record, now: int) -> Outputs:
    if conference.recording_to_hand_over is not None:
        # Spec: "POST …/Record/ when a recording runs: 409."
        return [error_reply(command_id, HTTPStatus.CONFLICT, "the conference is being recorded already")]
    if not conference.members_in_bridge:
        error = "the conference has not started: nothing can be recorded yet"
        return [error_reply(command_id, HTTPStatus.CONFLICT, error)]
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
    recording = ConferenceRecording(
        recording_id=wanted.recording_id,
        bridge_id=conference.bridge_id,
        auth_id=conference.auth_id,
        call_uuid="",
        element=element,
        started_at=now,
        api_id=command_id,
    )
    recording.deadline = now + wanted.time_limit * 1000 if wanted.time_limit else None
    started = conference.start_recording(recording)
    body = (
        ("message", "conference recording started"),
        ("recording_id", recording.recording_id),
        ("url", recording.url(conference.public_url)),
    )
    return [*started, _reply(command_id, HTTPStatus.ACCEPTED, *body)]


def _success_reply(command_id: str, command: do.ConferenceCommand, members: list[Member]) -> CommandReply:
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
            return _reply(command_id, HTTPStatus.NO_CONTENT)
    # Spec: "In replies `member_id` is a list of strings."
    body = (("message", message), ("member_id", tuple(str(m.member_id) for m in members)))
    return _reply(command_id, HTTPStatus.ACCEPTED, *body)

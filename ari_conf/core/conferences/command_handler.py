"""Command handler: applies each API command to a conference and builds the reply.

Status 202 or 204 means that the command has been decided, not that Asterisk has carried it out.
"""

from __future__ import annotations

from ari_conf.core import commands as do
from ari_conf.core import ids
from ari_conf.core.bounds import MOST_QUEUED
from ari_conf.core.conferences.conference import Conference
from ari_conf.core.conferences.member import Member
from ari_conf.core.conferences.recording import Recording
from ari_conf.core.conferences.state import ANNOUNCEMENT
from ari_conf.core.effects import CommandReply, DeafenChannel, MuteChannel, ReplyField, Target
from ari_conf.core.elements import Conference as Element
from ari_conf.core.elements import Play, Speak
from ari_conf.core.messages import HangupRequested, Outputs
from ari_conf.core.playback.player import Player

SOUND_TYPES: dict[str, type[Play] | type[Speak]] = {"Play": Play, "Speak": Speak}


def error_reply(command_id: str, status: int, error: str) -> CommandReply:
    return CommandReply(command_id, status, (("error", error),))


def handle_command(conference: Conference, command_id: str, command: do.ConferenceCommand, now: int) -> Outputs:
    """Apply the command; return its effects, the reply, and the resulting changes of the media state."""
    return _obeyed(conference, command_id, command, now) + conference.update_media(now)


def _obeyed(conference: Conference, command_id: str, command: do.ConferenceCommand, now: int) -> Outputs:
    """Apply the command; return its effects, with the reply last."""
    match command:
        case do.HangUpAll():
            calls = [m.call_uuid for m in conference.members.values()]
            out = conference.end("api_hangup", now)
            return [*out, *map(HangupRequested, calls), CommandReply(command_id, 204)]
        case do.Lock(on):
            conference.locked = on
            return [CommandReply(command_id, 202, (("message", "locked"),)) if on else CommandReply(command_id, 204)]
        case do.Announce(sound):
            return _announce(conference, command_id, sound, now)
        case do.StopAnnouncing():
            stopped = [effect for player in conference.announced for effect in player.stop()]
            return [*stopped, CommandReply(command_id, 204)]
        case do.Record():
            return _record(conference, command_id, command, now)
        case do.StopRecording():
            recording = conference.recording
            if recording is None or recording.state != "running":
                return [error_reply(command_id, 404, "the conference is not being recorded")]
            return [*recording.stop(now), CommandReply(command_id, 204)]
    members = _select_members(conference, command.members)
    if not members:
        return [error_reply(command_id, 404, "member not found")]
    if isinstance(command, do.PlayToMembers) and any(len(m.aside.queue) >= MOST_QUEUED for m in members):
        error = f"{MOST_QUEUED} sounds are already queued for this member: stop them, or wait"
        return [error_reply(command_id, 409, error)]
    out = []
    for member in members:
        out += _apply_to_member(conference, member, command, now)
    return [*out, CommandReply(command_id, *_success_reply(command, members))]


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
            member.aside.queue.append(sound)
        case do.StopPlaying(_, kind):
            return [*member.aside.clear(SOUND_TYPES[kind])]
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
    return out if member.on_hold else [*out, MuteChannel(member.channel_id, on)]


def _deafen(member: Member, on: bool) -> Outputs:
    if member.deaf == on:
        return []
    member.deaf = on
    # A member on hold must hear the music: deafness takes effect on their return to the bridge.
    return [] if member.state == "held" else [DeafenChannel(member.channel_id, on)]


def _hold(member: Member, on: bool, url: str | None) -> Outputs:
    other_music = member.held and on and member.hold_url != url and member.state == "held"
    member.held, member.hold_url = on, url if on else None
    return member.stop_wait_sound() if other_music else []


def _announce(conference: Conference, command_id: str, sound: Play | Speak, now: int) -> Outputs:
    if not conference.members_in_bridge:
        # Before the start, each member hears their own waitSound, and no sound reaches all members.
        return [error_reply(command_id, 409, "the conference has not started: no member would hear the announcement")]
    if len(conference.announced) >= MOST_QUEUED:
        error = f"{MOST_QUEUED} announcements are already queued in this conference: stop them, or wait"
        return [error_reply(command_id, 409, error)]
    conference.sounds += 1
    owner = ids.for_conference(conference.conference_id, ANNOUNCEMENT, conference.sounds)
    player = Player(owner, Target("bridge", conference.bridge_id), (sound,))
    conference.players[owner] = player
    return [*player.start(now), CommandReply(command_id, 202, (("message", "announcement queued into conference"),))]


def _record(conference: Conference, command_id: str, wanted: do.Record, now: int) -> Outputs:
    last = conference.recording
    if last is not None and not last.handed_on:
        # Spec: "POST …/Record/ when a recording runs: 409."
        return [error_reply(command_id, 409, "the conference is being recorded already")]
    if not conference.members_in_bridge:
        return [error_reply(command_id, 409, "the conference has not started: nothing can be recorded yet")]
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
    return [*recording.start(), CommandReply(command_id, 202, body)]


def _success_reply(command: do.ConferenceCommand, members: list[Member]) -> tuple[int, tuple[ReplyField, ...]]:
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
    # Spec: "In replies `member_id` is a list of strings."
    return 202, (("message", message), ("member_id", tuple(str(m.member_id) for m in members)))

"""Commands on a live call: transfer, sounds and digits of the API, and the replies.

They apply whatever the call does meanwhile: an element runs, a document is being requested, or the call is in a
conference. As with conferences, status 202 or 204 means that the command has been decided.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import NamedTuple

from ari_conf.core import commands as do
from ari_conf.core.bounds import MAX_QUEUED, MAX_TRANSFERS
from ari_conf.core.calls.call import Call
from ari_conf.core.calls.call_state import CONFIRMING, DETECTING, FETCHING, IDENTIFYING, IN_CONFERENCE, RUNNING
from ari_conf.core.calls.live_media import LiveMedia
from ari_conf.core.effects import CommandReply, WarmSounds
from ari_conf.core.elements import Play
from ari_conf.core.hangup_codes import HangupCode
from ari_conf.core.messages import DepartureRequested, Outputs, SoundRequested, SoundStopRequested
from ari_conf.core.problem_kinds import ProblemKind
from ari_conf.core.queued_sound import SOUND_TYPES, is_of, sounds_of

NO_SECOND_LEG = "the call has no second leg: legs={} is only for a call that a Dial element has connected; use aleg"
TRANSFERABLE = FETCHING, RUNNING, IN_CONFERENCE
NOT_ANSWERED = "the call is not answered yet: try again once it is"
UNDECIDED = {
    DETECTING: "the call is answered, but not known yet is whether by a machine: try again in some seconds",
    CONFIRMING: "the call is answered, but not confirmed yet by the key: try again once it is",
}


class Leg(NamedTuple):
    """Call that a command is for."""

    call: Call
    queued: int
    """Number of sounds that are queued for the call's member."""


def handle_command(
    first: Leg, second: Leg | None, command_id: str, command: do.LiveCommand, now: int
) -> tuple[Outputs, list[Call]]:
    """Apply the command to the legs that it is for, none of which is ending; return its effects, with the reply last,
    and the calls that it has changed: none if it is refused.

    `second`: the leg with which a Dial element has connected the call."""
    legs = "both" if isinstance(command, do.StopPlayingToCall) else command.legs
    chosen = [second] if second is not None and legs != "aleg" else []
    if legs != "bleg":
        chosen.append(first)
    refusals = [_refusal(leg, command, now) for leg in chosen]
    if second is None and legs != "aleg" and not isinstance(command, do.StopPlayingToCall):
        refusals = [(HTTPStatus.CONFLICT, NO_SECOND_LEG.format(legs))]
    for refusal in refusals:
        if refusal is not None:
            status, error = refusal
            return [CommandReply(command_id, status.value, (("error", error),))], []
    out: Outputs = []
    for leg in chosen:
        # The last one, which is the first leg if it is among them, replies.
        *effects, reply = _apply(leg, leg is second, command_id, command, now)
        out += effects
    return [*out, reply], [leg.call for leg in chosen]


def _apply(leg: Leg, is_second: bool, command_id: str, command: do.LiveCommand, now: int) -> Outputs:
    call, queued = leg
    match command:
        case do.Transfer():
            url, method = command.aleg_url, command.aleg_method
            if is_second:
                url, method = command.bleg_url, command.bleg_method
            # A second leg may also be addressed by its own UUID: its first leg does not wait for it either.
            detached = call.leave_first_leg()
            return [*detached, *_transfer(call, url, method, command_id, now)]
        case do.PlayToCall(sound):
            behind = bool(queued) or (call.live is not None and bool(call.live.playback.queue))
            out: Outputs = [SoundRequested(call.call_uuid, sound)] if call.in_conference else call.play(sound, now)
            # Those behind the first would otherwise be prepared when their turn has come, after a pause.
            later = sounds_of(sound)[0 if behind else 1 :]
            out += [WarmSounds(call.call_uuid, call.auth_id, later)] if later else []
            message = "play started" if is_of(sound, Play) else "speak started"
        case do.StopPlayingToCall(kind):
            out = call.stop_playing(SOUND_TYPES[kind], now)
            out += [SoundStopRequested(call.call_uuid, kind)] if call.in_conference else []
            return [*out, CommandReply(command_id, HTTPStatus.NO_CONTENT.value)]
        case do.SendDigitsToCall(digits):
            out, message = call.send_digits(digits, now), "digits sent"
    return [*out, _accepted(command_id, message)]


def _refusal(leg: Leg, command: do.LiveCommand, now: int) -> tuple[HTTPStatus, str] | None:
    """Return status and reason if the command can't be applied, otherwise None."""
    call, queued = leg
    if call.state is IDENTIFYING:
        return HTTPStatus.SERVICE_UNAVAILABLE, "the call has only just arrived: try again"
    if isinstance(command, do.StopPlayingToCall):
        return None
    if isinstance(command, do.Transfer):
        return None if call.state in TRANSFERABLE else (HTTPStatus.CONFLICT, UNDECIDED.get(call.state, NOT_ANSWERED))
    if call.answered_at is None:
        return HTTPStatus.CONFLICT, NOT_ANSWERED
    live = call.live or LiveMedia()
    if isinstance(command, do.PlayToCall) and max(queued, len(live.playback.queue)) >= MAX_QUEUED:
        return HTTPStatus.CONFLICT, f"{MAX_QUEUED} sounds are already queued for this call: stop them, or wait"
    if isinstance(command, do.SendDigitsToCall) and not live.has_room_for(command.digits, now):
        return HTTPStatus.CONFLICT, "too many digits are already waiting to be sent to this call: try again later"
    return None


def _transfer(call: Call, url: str, method: str, command_id: str, now: int) -> Outputs:
    if call.transfers >= MAX_TRANSFERS:
        return _refuse_transfer(call, command_id, now)
    out = call.transfer_to(url, method, now)
    if call.in_conference:
        out.append(DepartureRequested(call.call_uuid))
    return [*out, _accepted(command_id, "call transferred")]


def _refuse_transfer(call: Call, command_id: str, now: int) -> Outputs:
    """Hang up a call that is transferred again and again."""
    text = f"the call was transferred {MAX_TRANSFERS} times, the maximum; it was hung up at the next transfer"
    out: Outputs = [call.problem(ProblemKind.TOO_MANY_TRANSFERS, text, HangupCode.LOOP)]
    if call.in_conference:
        out.append(DepartureRequested(call.call_uuid))
    out += call.hang_up("normal", HangupCode.LOOP, now)
    return [*out, CommandReply(command_id, HTTPStatus.CONFLICT.value, (("error", text),))]


def _accepted(command_id: str, message: str) -> CommandReply:
    return CommandReply(command_id, HTTPStatus.ACCEPTED.value, (("message", message),))

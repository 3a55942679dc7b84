"""Commands on a live call: transfer, sounds and digits of the API, and the replies.

They apply whatever the call does meanwhile: an element runs, a document is being requested, or the call is in a
conference. As with conferences, status 202 or 204 means that the command has been decided.
"""

from __future__ import annotations

from http import HTTPStatus

from ari_conf.core import commands as do
from ari_conf.core.bounds import MAX_QUEUED, MAX_TRANSFERS
from ari_conf.core.calls.call import Call
from ari_conf.core.calls.call_state import CONFIRMING, DETECTING, FETCHING, IDENTIFYING, IN_CONFERENCE, RUNNING
from ari_conf.core.calls.live_media import LiveMedia
from ari_conf.core.effects import CommandReply, WarmSounds
from ari_conf.core.elements import Play
from ari_conf.core.hangup_codes import HangupCode
from ari_conf.core.messages import Outputs, SoundRequested, SoundStopRequested, TransferRequested
from ari_conf.core.problem_kinds import ProblemKind
from ari_conf.core.queued_sound import SOUND_TYPES, is_of, sounds_of

TRANSFERABLE = FETCHING, RUNNING, IN_CONFERENCE
NO_SECOND_LEG = "the call has no second leg: legs={} is only for a call that is bridged with another one; use aleg"
NOT_ANSWERED = "the call is not answered yet: try again once it is"
UNDECIDED = {
    DETECTING: "the call is answered, but not known yet is whether by a machine: try again in some seconds",
    CONFIRMING: "the call is answered, but not confirmed yet by the key: try again once it is",
}


def handle_command(call: Call, queued: int, command_id: str, command: do.LiveCommand, now: int) -> Outputs:
    """Apply the command to a call that is not ending; return its effects, with the reply last.

    `queued`: number of sounds that are queued for the call's member. A single output is a refusal, which has changed
    nothing."""
    refusal = _refusal(call, queued, command, now)
    if refusal is not None:
        status, error = refusal
        return [CommandReply(command_id, status.value, (("error", error),))]
    match command:
        case do.Transfer():
            return _transfer(call, command_id, command, now)
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


def has_second_leg(call: Call) -> bool:
    """Return whether the call is bridged with a leg that a command can be meant for. No element does that yet."""
    return False


def _refusal(call: Call, queued: int, command: do.LiveCommand, now: int) -> tuple[HTTPStatus, str] | None:
    """Return status and reason if the command can't be applied, otherwise None."""
    if call.state is IDENTIFYING:
        return HTTPStatus.SERVICE_UNAVAILABLE, "the call has only just arrived: try again"
    if isinstance(command, do.StopPlayingToCall):
        return None
    if command.legs != "aleg" and not has_second_leg(call):
        return HTTPStatus.CONFLICT, NO_SECOND_LEG.format(command.legs)
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


def _transfer(call: Call, command_id: str, command: do.Transfer, now: int) -> Outputs:
    if call.transfers >= MAX_TRANSFERS:
        return _refuse_transfer(call, command_id, now)
    out = call.transfer_to(command.aleg_url, command.aleg_method, now)
    if call.in_conference:
        out.append(TransferRequested(call.call_uuid))
    return [*out, _accepted(command_id, "call transferred")]


def _refuse_transfer(call: Call, command_id: str, now: int) -> Outputs:
    """Hang up a call that is transferred again and again."""
    text = f"the call was transferred {MAX_TRANSFERS} times, the maximum; it was hung up at the next transfer"
    out: Outputs = [call.problem(ProblemKind.TOO_MANY_TRANSFERS, text, HangupCode.LOOP)]
    if call.in_conference:
        out.append(TransferRequested(call.call_uuid))
    out += call.hang_up("normal", HangupCode.LOOP, now)
    return [*out, CommandReply(command_id, HTTPStatus.CONFLICT.value, (("error", text),))]


def _accepted(command_id: str, message: str) -> CommandReply:
    return CommandReply(command_id, HTTPStatus.ACCEPTED.value, (("message", message),))

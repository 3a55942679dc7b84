"""A member's stay: what he does while he is in, and how he leaves."""

from __future__ import annotations

from ari_conf.core import events as ev
from ari_conf.core import ids
from ari_conf.core.callbacks import truth
from ari_conf.core.digits import Found
from ari_conf.core.effects import (
    DeafenChannel,
    DetectTalking,
    MuteChannel,
    Params,
    ReleaseName,
    RemoveChannel,
    ReportProblem,
    SendDigits,
    StopPreparing,
)
from ari_conf.core.hearing import Hearing
from ari_conf.core.internal import Out, Released
from ari_conf.core.member import Member, Reason

LEAVING_MS = 3000
"""Asterisk says at once that a channel has left a bridge. It is asked again if it does not."""


class Staying(Hearing):
    __slots__ = ()

    def _pressed(self, member: Member, digit: str, now: int) -> Out:
        if not member.present:
            return []
        if digit == "*" and member.element.hangup_on_star:
            # "`*` with hangupOnStar leaves at once, whatever the patterns are"
            return self._leave(member, "star", now)
        return self._found(member, member.matcher.press(digit, now), now)

    def _found(self, member: Member, found: list[Found], now: int) -> Out:
        out: Out = []
        for part in found:
            if part.matched:
                out += self._notify(member, "digits", now, ("ConferenceDigitsMatch", part.text))
            elif member.element.relay_dtmf:
                out += self._relay(member, part.text)
        return out

    def _relay(self, member: Member, digits: str) -> Out:
        # "sent to all others": to those who hear the conference.
        if member.state != "mixed":
            return []
        return [
            SendDigits(m.channel_id, digits)
            for m in self.members.values()
            if m.state == "mixed" and m is not member and not m.deaf
        ]

    def _talks(self, member: Member, now: int) -> Out:
        if member.on_hold:
            return []
        member.talking_at = member.talking_at if member.talking else now
        member.talking = True
        holder = self.members.get(self.floor) if self.floor is not None else None
        # "An unmuted member who starts to talk takes it if nobody holds it or the holder is silent"
        if member.state != "mixed" or member.silenced or holder is member or (holder is not None and holder.talking):
            return []
        return self._takes_floor(member, now)

    def _takes_floor(self, member: Member, now: int) -> Out:
        self.floor = member.member_id
        # "One event for each taking"
        return self._notify(member, "floor", now) if member.element.floor_event else []

    def _audio_stopped(self, member: Member, for_ms: int, now: int) -> Out:
        if not member.talking:
            return []
        out = self.note_talk(member, now - for_ms)
        member.talking = False
        return [*out, *self._pass_floor(member, now), *self._detect_anew(member)]

    def _pass_floor(self, holder: Member, now: int) -> Out:
        """ "It becomes free when the holder … is held …, or when no audio has come from them for a second". Who began
        to talk meanwhile has it now."""
        if self.floor != holder.member_id:
            return []
        self.floor = None
        talkers = [m for m in self.members.values() if m.state == "mixed" and m.talking and not m.silenced]
        if not talkers:
            return []
        return self._takes_floor(min(talkers, key=lambda m: m.talking_at), now)

    def _holds_us(self, member: Member, now: int) -> Out:
        """Music that the phone may send instead of a voice is neither mixed nor recorded."""
        if member.on_hold:
            return []
        out = self.note_talk(member, now)
        was, member.on_hold, member.talking = member.silenced, True, False
        return [*out, *self._pass_floor(member, now), *self._silence(member, was)]

    def _takes_us_back(self, member: Member) -> Out:
        if not member.on_hold:
            return []
        was, member.on_hold = member.silenced, False
        # Whatever comes now may come as another stream.
        member.restarted = member.state == "mixed"
        return [*self._silence(member, was), *self._detect_anew(member)]

    def _silence(self, member: Member, was: bool) -> Out:
        if was == member.silenced or member.state in ("arriving", "leaving"):
            return []
        return [MuteChannel(member.channel_id, member.silenced)]

    def _playback(self, playback_id: str, event: ev.Event, now: int) -> Out:
        member = self.members.get(ids.member_of(playback_id) or 0)
        return member.playback(event, now) if member is not None else self._announced(playback_id, event, now)

    def _announced(self, playback_id: str, event: ev.Event, now: int) -> Out:
        player = self.players.get(playback_id.rpartition(".")[0])
        if player is None:
            return []
        out: Out = []
        if isinstance(event, ev.SoundFailed):
            out.append(ReportProblem(self.auth_id, player.call_uuid, None, event.reason))
        out += player.receive(event, now)
        if player.done:
            del self.players[player.owner]
        return out

    def _sounds(self, event: ev.SoundsFetched | ev.SoundsFailed, now: int) -> Out:
        member = self.members.get(ids.member_of(event.fetch_id) or 0)
        sound = member.asked(event.fetch_id) if member else None
        if member is None or sound is None:
            return []
        if isinstance(event, ev.SoundsFailed):
            member.not_fetched(sound)
            return [member.problem(f"{sound.action}: {event.reason}")]
        member.fetched(sound, event.sounds, now)
        out: Out = [member.problem(f"{sound.action}: {w}") for w in event.warnings]
        return out + self._announce_entry(member, now)

    # Leaving.

    def _leave(self, member: Member, reason: Reason, now: int) -> Out:
        if member.state == "leaving":
            # He was on his way out of the bridge and has hung up meanwhile: nothing more will be heard of him.
            member.reason = member.reason or reason
            return self._out(member, now) if reason == "hangup" else []
        out = member.fall_silent() + self._found(member, member.matcher.flush(), now)
        if member.state == "arriving":
            self._let_out(member)
            return [*out, Released(member.call_uuid, member.element, ())]
        was, member.state, member.reason, member.sending = member.state, "leaving", reason, ()
        if reason == "hangup" or was in ("waiting", "joining", "held"):
            return out + self._out(member, now)
        member.leaving_until = now + LEAVING_MS
        # One who was to be held is on his way out of the bridge already.
        return out if was == "parting" else [*out, RemoveChannel(member.channel_id, self.bridge_id, member.member_id)]

    def _left(self, member: Member, now: int) -> Out:
        if member.reentering:
            # It is on its way into the bridge again.
            member.outside = True
        elif member.state == "mixed":
            # Somebody else took him out of the bridge: he goes on with his document.
            member.reason, member.state = "conference_ended", "leaving"
        elif member.state == "parting":
            # To be held, or, should he not be wanted held any more, to come back.
            member.state = "joining"
        return self._out(member, now) if member.state == "leaving" and not member.reentering else []

    def _out(self, member: Member, now: int) -> Out:
        """In this order: out of the mix, exit callback, exitSound, what follows from his leaving, his action."""
        self._let_out(member)
        self._gone.append(member)
        reason = member.reason or "conference_ended"
        if self.floor == member.member_id:
            self.floor = None
        out = member.fall_silent()
        out += self._note_stay(member, now, now)
        if reason != "hangup":
            out += [DetectTalking(member.channel_id, None)] if member.detected else []
            out += [MuteChannel(member.channel_id, False)] if member.silenced else []
            out += [DeafenChannel(member.channel_id, False)] if member.deaf else []
        last = ("ConferenceLastMember", truth(not self.members))
        out += self._notify(member, "exit", now, last, ("ConferenceExitReason", reason))
        out += self._consequences(member, now)
        out.append(Released(member.call_uuid, member.element, self._action_params(member)))
        return out

    def _consequences(self, member: Member, now: int) -> Out:
        if member.element.end_conference_on_exit:
            return self._end("host_left", now)
        if not self.members:
            # "The last one out ends it."
            return self._end("conference_ended", now)
        if not self.stay_alone and self.staying == 1:
            return self._end("left_alone", now)
        items = member.exit_sound.items
        return self._announce(member, items, now) if items and self.started and self.mixed else []

    def _action_params(self, member: Member) -> Params:
        params = (
            ("ConferenceName", self.name),
            ("ConferenceUUID", self.conference_id),
            ("ConferenceMemberID", str(member.member_id)),
        )
        if member.element.record and self.recording is not None:
            recording = self.recording
            return (*params, ("RecordUrl", recording.url(self.public_url)), ("RecordingID", recording.recording_id))
        return params

    def _end(self, reason: Reason, now: int) -> Out:
        if self.ending:
            return []
        self.ending = True
        out: Out = []
        for player in self.players.values():
            out += player.stop()
        out += self._release()
        for member in list(self.members.values()):
            out += self._leave(member, reason, now)
        return [*out, StopPreparing(self.conference_id)]

    def _release(self) -> Out:
        if self.claim != "held":
            return []
        self.claim = "released"
        return [ReleaseName(self.auth_id, self.name, self.conference_id)]

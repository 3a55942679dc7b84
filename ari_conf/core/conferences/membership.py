"""Membership: what members do while they are in the conference, and how they leave it."""

from __future__ import annotations

from ari_conf.core import events as ev
from ari_conf.core import ids
from ari_conf.core.conferences.digit_matching import DigitRun
from ari_conf.core.conferences.media_control import MediaControl
from ari_conf.core.conferences.member import ExitReason, Member
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
from ari_conf.core.messages import MemberReleased, Outputs
from ari_conf.core.problem_kinds import ProblemKind
from ari_conf.core.request_params import bool_text

LEAVE_TIMEOUT_MS = 3000
"""Milliseconds until RemoveChannel is repeated. Asterisk normally reports immediately that a channel has left."""


class Membership(MediaControl):
    __slots__ = ()

    def _on_digit(self, member: Member, digit: str, now: int) -> Outputs:
        if not member.is_present:
            return []
        if digit == "*" and member.element.hangup_on_star:
            # Spec: "`*` with hangupOnStar leaves at once, whatever the patterns are"
            return self._start_leaving(member, "star", now)
        return self._apply_digit_runs(member, member.matcher.press(digit, now), now)

    def _apply_digit_runs(self, member: Member, found: list[DigitRun], now: int) -> Outputs:
        out: Outputs = []
        for part in found:
            if part.matched:
                out += self._request_callback(member, "digits", now, ("ConferenceDigitsMatch", part.text))
            elif member.element.relay_dtmf:
                out += self._relay_digits(member, part.text)
        return out

    def _relay_digits(self, member: Member, digits: str) -> Outputs:
        # Spec: "sent to all others", which means the members that hear the conference.
        if member.state != "mixed":
            return []
        return [
            SendDigits(m.channel_id, digits)
            for m in self.members.values()
            if m.state == "mixed" and m is not member and not m.deaf
        ]

    def _on_talking_started(self, member: Member, now: int) -> Outputs:
        if member.on_hold:
            return []
        member.talking_at = member.talking_at if member.talking else now
        member.talking = True
        holder = self.members.get(self.floor) if self.floor is not None else None
        # Spec: "An unmuted member who starts to talk takes it if nobody holds it or the holder is silent"
        if member.state != "mixed" or member.silenced or holder is member or (holder is not None and holder.talking):
            return []
        return self._takes_floor(member, now)

    def _takes_floor(self, member: Member, now: int) -> Outputs:
        self.floor = member.member_id
        # Spec: "One event for each taking"
        return self._request_callback(member, "floor", now) if member.element.floor_event else []

    def _audio_stopped(self, member: Member, for_ms: int, now: int) -> Outputs:
        if not member.talking:
            return []
        out = self.note_speech(member, now - for_ms)
        member.talking = False
        return [*out, *self._pass_floor(member, now), *self._detect_anew(member)]

    def _pass_floor(self, holder: Member, now: int) -> Outputs:
        """Take the floor from `holder` and pass it to the member who has been talking longest, if any.

        Spec: "It becomes free when the holder … is held …, or when no audio has come from them for a second".
        """
        if self.floor != holder.member_id:
            return []
        self.floor = None
        talkers = [m for m in self.members.values() if m.state == "mixed" and m.talking and not m.silenced]
        if not talkers:
            return []
        return self._takes_floor(min(talkers, key=lambda m: m.talking_at), now)

    def _holds_us(self, member: Member, now: int) -> Outputs:
        """Silence a member whose phone has put the call on hold: music from the phone is not mixed or recorded."""
        if member.on_hold:
            return []
        out = self.note_speech(member, now)
        was, member.on_hold, member.talking = member.silenced, True, False
        return [*out, *self._pass_floor(member, now), *self._silence(member, was)]

    def _takes_us_back(self, member: Member) -> Outputs:
        if not member.on_hold:
            return []
        was, member.on_hold = member.silenced, False
        # The audio that follows may arrive as another RTP stream.
        member.restarted = member.state == "mixed"
        return [*self._silence(member, was), *self._detect_anew(member)]

    def _silence(self, member: Member, was: bool) -> Outputs:
        if was == member.silenced or member.state in ("arriving", "leaving"):
            return []
        return [MuteChannel(member.channel_id, member.silenced)]

    def _on_playback(self, playback_id: str, event: ev.Event, now: int) -> Outputs:
        member = self.members.get(ids.member_of(playback_id) or 0)
        return (
            member.handle_playback_event(event, now)
            if member is not None
            else self._on_announcement_playback(playback_id, event, now)
        )

    def _on_announcement_playback(self, playback_id: str, event: ev.Event, now: int) -> Outputs:
        player = self.players.get(playback_id.rpartition(".")[0])
        if player is None:
            return []
        out: Outputs = []
        if isinstance(event, ev.SoundFailed):
            out.append(ReportProblem(self.auth_id, player.call_uuid, event.kind, None, event.reason))
        out += player.handle_event(event, now)
        if player.done:
            del self.players[player.owner]
        return out

    def _on_sound_document(self, event: ev.SoundDocumentFetched | ev.SoundDocumentFailed, now: int) -> Outputs:
        member = self.members.get(ids.member_of(event.fetch_id) or 0)
        sound = member.pending_sound(event.fetch_id) if member else None
        if member is None or sound is None:
            return []
        if isinstance(event, ev.SoundDocumentFailed):
            member.on_sound_failed(sound)
            return [member.problem(event.kind, f"{sound.action}: {event.reason}")]
        member.on_sound_fetched(sound, event.sounds, now)
        out: Outputs = [member.problem(ProblemKind.DOCUMENT_WARNING, f"{sound.action}: {w}") for w in event.warnings]
        return out + self._play_enter_sound(member, now)

    # Leaving.

    def _start_leaving(self, member: Member, reason: ExitReason, now: int) -> Outputs:
        if member.state == "leaving":
            # The member hung up while leaving the bridge: no further event about this channel will come.
            member.reason = member.reason or reason
            return self._complete_leaving(member, now) if reason == "hangup" else []
        out = member.stop_all_sounds() + self._apply_digit_runs(member, member.matcher.flush(), now)
        if member.state == "arriving":
            self._remove_member(member)
            return [*out, MemberReleased(member.call_uuid, member.element, ())]
        was, member.state, member.reason, member.sending = member.state, "leaving", reason, ()
        if reason == "hangup" or was in ("waiting", "joining", "held"):
            return out + self._complete_leaving(member, now)
        member.leaving_until = now + LEAVE_TIMEOUT_MS
        # A member about to go on hold is already leaving the bridge.
        return out if was == "parting" else [*out, RemoveChannel(member.channel_id, self.bridge_id, member.member_id)]

    def _on_left_bridge(self, member: Member, now: int) -> Outputs:
        if member.reentering:
            # The channel is about to re-enter the bridge.
            member.outside = True
        elif member.state == "mixed":
            # Something other than the server removed the channel from the bridge: the call continues its document.
            member.reason, member.state = "conference_ended", "leaving"
        elif member.state == "parting":
            # The member goes on hold from there, or returns to the bridge if the hold has ended in the meantime.
            member.state = "joining"
        return self._complete_leaving(member, now) if member.state == "leaving" and not member.reentering else []

    def _complete_leaving(self, member: Member, now: int) -> Outputs:
        """Complete a departure, in this order: out of the mix, exit callback, exitSound, consequences for the
        conference, the member's action."""
        self._remove_member(member)
        self._gone.append(member)
        reason = member.reason or "conference_ended"
        if self.floor == member.member_id:
            self.floor = None
        out = member.stop_all_sounds()
        out += self._note_attendance(member, now, now)
        if reason != "hangup":
            out += [DetectTalking(member.channel_id, None)] if member.detected else []
            out += [MuteChannel(member.channel_id, False)] if member.silenced else []
            out += [DeafenChannel(member.channel_id, False)] if member.deaf else []
        last = ("ConferenceLastMember", bool_text(not self.members))
        out += self._request_callback(member, "exit", now, last, ("ConferenceExitReason", reason))
        out += self._after_member_left(member, now)
        out.append(MemberReleased(member.call_uuid, member.element, self._action_params(member)))
        return out

    def _after_member_left(self, member: Member, now: int) -> Outputs:
        if member.element.end_conference_on_exit:
            return self._start_ending("host_left", now)
        if not self.members:
            # Spec: "The last one out ends it."
            return self._start_ending("conference_ended", now)
        if not self.stay_alone and self.remaining_count == 1:
            return self._start_ending("left_alone", now)
        items = member.exit_sound.items
        return self._play_to_all(member, items, now) if items and self.started and self.members_in_bridge else []

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

    def _start_ending(self, reason: ExitReason, now: int) -> Outputs:
        if self.ending:
            return []
        self.ending = True
        out: Outputs = []
        for player in self.players.values():
            out += player.stop()
        out += self._release()
        for member in list(self.members.values()):
            out += self._start_leaving(member, reason, now)
        return [*out, StopPreparing(self.conference_id)]

    def _release(self) -> Outputs:
        if self.claim != "held":
            return []
        self.claim = "released"
        return [ReleaseName(self.auth_id, self.name, self.conference_id)]

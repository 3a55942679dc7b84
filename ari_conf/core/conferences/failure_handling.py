"""Failure handling and deadlines of a conference."""

from __future__ import annotations

from ari_conf.core import events as ev
from ari_conf.core.conferences.member import Member
from ari_conf.core.conferences.membership import LEAVE_TIMEOUT_MS, Membership
from ari_conf.core.conferences.recording import Recording
from ari_conf.core.effects import (
    AddChannel,
    ClaimName,
    CreateBridge,
    DeafenChannel,
    DestroyBridge,
    MuteChannel,
    PlayMedia,
    RemoveChannel,
    ReportProblem,
    StartRecording,
    StopRecording,
)
from ari_conf.core.messages import HangupRequested, JoinSkipped, Outputs
from ari_conf.core.problem_kinds import ProblemKind

REMOVAL_AGAIN_MS, REMOVALS = 5000, 120
"""Interval in milliseconds, and maximum number, of repeated RemoveChannel requests for a leaving member. After them
(ten minutes), the call is hung up."""


class FailureHandling(Membership):
    __slots__ = ()

    def _on_claim_refused(self, why: str) -> Outputs:
        members = list(self.members.values())
        self.claim, self.ending = "released", True
        for member in members:
            self._remove_member(member)
        return [JoinSkipped(m.call_uuid, f"conference {self.name!r} could not be joined: {why}") for m in members]

    def _on_bridge_destroyed(self, now: int) -> Outputs:
        self.bridge, self.destroy_again_at = "gone", None
        if self.recording is not None:
            self.recording.mark_stopped(now)
        out = self._start_ending("conference_ended", now)
        for member in list(self.members.values()):
            out += self._complete_leaving(member, now)
        return out

    def _on_effect_failed(self, failure: ev.EffectFailed, now: int) -> Outputs:
        match failure.effect:
            case CreateBridge() if self.bridge == "creating":
                trouble: Outputs = [
                    m.problem(ProblemKind.ASTERISK_FAILED, failure.reason) for m in self.members.values()
                ]
                # The bridge may exist although the request failed: the response may have been lost.
                destroyed = self._destroy(now)
                return [*trouble, *self._start_ending("conference_ended", now), *destroyed]
            case DestroyBridge() if failure.target_gone:
                # Otherwise DestroyBridge is repeated at its deadline: don't leave the bridge behind in Asterisk.
                return self._on_bridge_destroyed(now)
            case ClaimName() if self.claim == "asked":
                return self._on_claim_refused(f"its name could not be claimed: {failure.reason}")
            case AddChannel(member_id=member_id) | RemoveChannel(member_id=member_id):
                member = self.members.get(member_id)
                return self._on_move_failed(member, failure, now) if member else []
            case PlayMedia(_, playback_id):
                return self._on_playback(playback_id, ev.PlaybackFinished(playback_id, failed=True), now)
            case StopRecording(_, recording_id) if (recording := self._recording(recording_id)) and failure.target_gone:
                # Otherwise it may still run: StopRecording is repeated, and the recording's deadline decides.
                recording.mark_stopped(now)
            case StartRecording(_, recording_id) if (recording := self._recording(recording_id)) is not None:
                if failure.refused:
                    recording.mark_refused()
                else:
                    recording.doubtful = True
                text = f"recording {recording_id} of conference {self.name!r} could not be started: {failure.reason}"
                return [ReportProblem(self.auth_id, recording.call_uuid, ProblemKind.RECORDING_FAILED, None, text)]
        return []

    def _on_move_failed(self, member: Member, failure: ev.EffectFailed, now: int) -> Outputs:
        if member.reentering and isinstance(failure.effect, AddChannel):
            return self._not_reentered(member, failure, now)
        if member.state == "leaving" and isinstance(failure.effect, RemoveChannel):
            if not failure.target_gone:
                return self._not_removed(member, failure, now)
            if member.reason is not None:
                return self._complete_leaving(member, now)
            # Asterisk did not add the channel; the event that shows the reason may be on its way.
            member.outside = True
            return []
        if member.state == "parting" and isinstance(failure.effect, RemoveChannel):
            member.state, member.held = "mixed", False
            text = f"the member could not be put on hold: {failure.reason}"
            return [] if failure.target_gone else [member.problem(ProblemKind.ASTERISK_FAILED, text)]
        if member.state == "adding" and isinstance(failure.effect, AddChannel):
            # Either the member has hung up or the bridge no longer exists, and the event is on its way.
            # Or Asterisk can't add the channel, or has added it and the response was lost.
            # So remove the channel; the first event that arrives shows the reason.
            member.state, member.sending, member.leaving_until = "leaving", (), now + LEAVE_TIMEOUT_MS
            problem = member.problem(ProblemKind.ASTERISK_FAILED, failure.reason)
            trouble: Outputs = [] if failure.target_gone else [problem]
            return [*trouble, RemoveChannel(member.channel_id, self.bridge_id, member.member_id)]
        return []

    def _not_reentered(self, member: Member, failure: ev.EffectFailed, now: int) -> Outputs:
        """Handle a failed re-entry: a member still in the bridge continues; one outside it joins like a new member."""
        if not (failure.target_gone or failure.refused):
            # Asterisk may still do it. Events or the reconciliation show the result; then the channel re-enters again.
            member.restarted = True
            return []
        out, member.outside, member.reentering = member.outside, False, False
        text = f"the member may not be audible to the others: {failure.reason}"
        trouble: Outputs = [] if failure.target_gone else [member.problem(ProblemKind.ASTERISK_FAILED, text)]
        if out and member.state == "leaving":
            return [*trouble, *self._complete_leaving(member, now)]
        member.state = "joining" if out and member.state == "mixed" else member.state
        return trouble

    def _not_removed(self, member: Member, failure: ev.EffectFailed, now: int) -> Outputs:
        """Mute and deafen a leaving member whose channel is still in the bridge, so that the member and the others do
        not hear each other until it is out."""
        if member.stuck:
            return []
        member.stuck = True
        text = f"the member could not be removed from the conference yet, and the request is repeated: {failure.reason}"
        out: Outputs = [member.problem(ProblemKind.ASTERISK_FAILED, text)]
        # Speech so far was heard.
        out += self.note_speech(member, now)
        out += [] if member.silenced else [MuteChannel(member.channel_id, True)]
        out += [] if member.deaf else [DeafenChannel(member.channel_id, True)]
        member.muted = member.deaf = True
        return out

    def _on_recording_finished(self, recording: Recording, failed: bool, now: int) -> Outputs:
        by_itself = recording.state == "running" and self.bridge == "ready" and bool(self.members)
        recording.mark_stopped(now, failed)
        if not by_itself:
            return []
        what = f"the recording of conference {self.name!r} stopped unexpectedly; the conference continues"
        text = f"{what}: is Asterisk's disk full?"
        return [ReportProblem(self.auth_id, recording.call_uuid, ProblemKind.RECORDING_FAILED, None, text)]

    # Deadlines.

    def _on_deadline(self, now: int) -> Outputs:
        out: Outputs = []
        if self.destroy_again_at is not None and self.destroy_again_at <= now:
            self.destroys += 1
            out += self._destroy(now)
        for member in list(self.members.values()):
            out += self._on_member_deadline(member, now)
        for player in self.players.values():
            out += player.handle_event(ev.DeadlineReached(), now)
        if self.recording is not None:
            out += self.recording.on_deadline(now)
        if self.watched_until is not None and self.watched_until <= now:
            out += self._stop_watching()
        if self.ends_at <= now:
            # Spec: "the conference ends after it"
            out += self._start_ending("time_limit", now)
        return out

    def _on_member_deadline(self, member: Member, now: int) -> Outputs:
        out: Outputs = []
        if member.matcher.deadline is not None and member.matcher.deadline <= now:
            out += self._apply_digit_runs(member, member.matcher.flush(), now)
        if member.ask_again_at is not None and member.ask_again_at <= now:
            member.ask_again_at = None
        while member.sending and member.sending[0][0] <= now:
            out += self._relay_digits(member, member.sending[0][1])
            member.sending = member.sending[1:]
        out += member.handle_playback_event(ev.DeadlineReached(), now)
        return out + (self._still_leaving(member, now) if member.state == "leaving" else [])

    def _still_leaving(self, member: Member, now: int) -> Outputs:
        if member.leaving_until is None or member.leaving_until > now:
            return []
        if member.outside:
            return self._complete_leaving(member, now)
        member.removals += 1
        if member.removals > REMOVALS:
            # Only a hangup can still take the channel out of the bridge.
            member.leaving_until = None
            return [HangupRequested(member.call_uuid)]
        member.leaving_until = now + REMOVAL_AGAIN_MS
        return [RemoveChannel(member.channel_id, self.bridge_id, member.member_id)]

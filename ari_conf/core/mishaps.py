"""What went wrong, and what time brings."""

from __future__ import annotations

from ari_conf.core import events as ev
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
from ari_conf.core.internal import HangUpCall, Out, Skipped
from ari_conf.core.member import Member
from ari_conf.core.recording import Recording
from ari_conf.core.staying import LEAVING_MS, Staying

REMOVAL_AGAIN_MS, REMOVALS = 5000, 120
"""Asterisk is asked again and again to take a member out who leaves: for ten minutes; then the call is hung up."""


class Mishaps(Staying):
    __slots__ = ()

    def _not_claimed(self, why: str) -> Out:
        members = list(self.members.values())
        self.claim, self.ending = "released", True
        for member in members:
            self._let_out(member)
        return [Skipped(m.call_uuid, f"the conference {self.name!r} {why}") for m in members]

    def _bridge_gone(self, now: int) -> Out:
        self.bridge, self.destroy_again_at = "gone", None
        if self.recording is not None:
            self.recording.stopped(now)
        out = self._end("conference_ended", now)
        for member in list(self.members.values()):
            out += self._out(member, now)
        return out

    def _failed(self, failure: ev.EffectFailed, now: int) -> Out:
        match failure.effect:
            case CreateBridge() if self.bridge == "creating":
                trouble: Out = [m.problem(failure.reason) for m in self.members.values()]
                # It may have been made all the same, the answer lost.
                destroyed = self._destroy(now)
                return [*trouble, *self._end("conference_ended", now), *destroyed]
            case DestroyBridge() if failure.gone:
                # Otherwise it is asked again at its time: the bridge must not stand there without us.
                return self._bridge_gone(now)
            case ClaimName() if self.claim == "asked":
                return self._not_claimed(f"can't be had: {failure.reason}")
            case AddChannel(member_id=member_id) | RemoveChannel(member_id=member_id):
                member = self.members.get(member_id)
                return self._not_moved(member, failure, now) if member else []
            case PlayMedia(_, playback_id):
                return self._playback(playback_id, ev.PlaybackFinished(playback_id, failed=True), now)
            case StopRecording(_, recording_id) if (recording := self._recording(recording_id)) and failure.gone:
                # Otherwise it may still run: it is asked again, and the recording's deadline decides.
                recording.stopped(now)
            case StartRecording(_, recording_id) if (recording := self._recording(recording_id)) is not None:
                if failure.refused:
                    recording.refused()
                else:
                    recording.doubtful = True
                text = f"the recording {recording_id} of the conference {self.name!r} did not begin: {failure.reason}"
                return [ReportProblem(self.auth_id, recording.call_uuid, None, text)]
        return []

    def _not_moved(self, member: Member, failure: ev.EffectFailed, now: int) -> Out:
        if member.reentering and isinstance(failure.effect, AddChannel):
            return self._not_reentered(member, failure, now)
        if member.state == "leaving" and isinstance(failure.effect, RemoveChannel):
            if not failure.gone:
                return self._not_removed(member, failure, now)
            if member.reason is not None:
                return self._out(member, now)
            # Asterisk did not add the channel: the news that says why may be under way.
            member.outside = True
            return []
        if member.state == "parting" and isinstance(failure.effect, RemoveChannel):
            member.state, member.held = "mixed", False
            return [] if failure.gone else [member.problem(f"not held: {failure.reason}")]
        if member.state == "adding" and isinstance(failure.effect, AddChannel):
            # He has hung up, or the bridge is gone, and that news is under way; or Asterisk can't, or it was done and
            # the answer was lost. So: out of the bridge, and what is heard first says why.
            member.state, member.sending, member.leaving_until = "leaving", (), now + LEAVING_MS
            trouble: Out = [] if failure.gone else [member.problem(failure.reason)]
            return [*trouble, RemoveChannel(member.channel_id, self.bridge_id, member.member_id)]
        return []

    def _not_reentered(self, member: Member, failure: ev.EffectFailed, now: int) -> Out:
        """Still in the bridge, they go on as they are; out of it, they are let in as one who comes."""
        if not (failure.gone or failure.refused):
            # It may be done as yet. Events tell, or the comparison with Asterisk; then it is done once more.
            member.restarted = True
            return []
        out, member.outside, member.reentering = member.outside, False, False
        trouble: Out = [] if failure.gone else [member.problem(f"perhaps not heard by the others: {failure.reason}")]
        if out and member.state == "leaving":
            return [*trouble, *self._out(member, now)]
        member.state = "joining" if out and member.state == "mixed" else member.state
        return trouble

    def _not_removed(self, member: Member, failure: ev.EffectFailed, now: int) -> Out:
        """Whoever has left is neither to hear the others nor to be heard, even if the channel is still in the bridge:
        it is muted and deafened meanwhile."""
        if member.stuck:
            return []
        member.stuck = True
        out: Out = [member.problem(f"not out of the conference yet, which is tried again: {failure.reason}")]
        # What was said so far was heard.
        out += self.note_talk(member, now)
        out += [] if member.silenced else [MuteChannel(member.channel_id, True)]
        out += [] if member.deaf else [DeafenChannel(member.channel_id, True)]
        member.muted = member.deaf = True
        return out

    def _recording_over(self, recording: Recording, failed: bool, now: int) -> Out:
        by_itself = recording.state == "running" and self.bridge == "ready" and bool(self.members)
        recording.stopped(now, failed)
        if not by_itself:
            return []
        what = f"the recording of the conference {self.name!r} ended by itself, the conference goes on"
        text = f"{what}: is Asterisk's disk full?"
        return [ReportProblem(self.auth_id, recording.call_uuid, None, text)]

    # Time.

    def _time(self, now: int) -> Out:
        out: Out = []
        if self.destroy_again_at is not None and self.destroy_again_at <= now:
            self.destroys += 1
            out += self._destroy(now)
        for member in list(self.members.values()):
            out += self._member_time(member, now)
        for player in self.players.values():
            out += player.receive(ev.TimePassed(), now)
        if self.recording is not None:
            out += self.recording.time(now)
        if self.watched_until is not None and self.watched_until <= now:
            out += self._looked_away()
        if self.ends_at <= now:
            # "the conference ends after it"
            out += self._end("time_limit", now)
        return out

    def _member_time(self, member: Member, now: int) -> Out:
        out: Out = []
        if member.matcher.deadline is not None and member.matcher.deadline <= now:
            out += self._found(member, member.matcher.flush(), now)
        if member.ask_again_at is not None and member.ask_again_at <= now:
            member.ask_again_at = None
        while member.sending and member.sending[0][0] <= now:
            out += self._relay(member, member.sending[0][1])
            member.sending = member.sending[1:]
        out += member.playback(ev.TimePassed(), now)
        return out + (self._still_leaving(member, now) if member.state == "leaving" else [])

    def _still_leaving(self, member: Member, now: int) -> Out:
        if member.leaving_until is None or member.leaving_until > now:
            return []
        if member.outside:
            return self._out(member, now)
        member.removals += 1
        if member.removals > REMOVALS:
            # There is no other way out of the bridge.
            member.leaving_until = None
            return [HangUpCall(member.call_uuid)]
        member.leaving_until = now + REMOVAL_AGAIN_MS
        return [RemoveChannel(member.channel_id, self.bridge_id, member.member_id)]

"""All calls and conferences of one application, and the one door to them: `receive(event, now) -> effects`.

It finds whom an event is for, carries what calls and conferences tell each other within the step, and knows the next
deadline. An event about what is gone, or never was, yields nothing.

Here is the door, and which call or conference an event is for. It stands on `giving_up`, that on `telling`, and that on
`directory_state`.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any, get_args

from ari_conf.core import events as ev
from ari_conf.core import ids
from ari_conf.core.call import Call
from ari_conf.core.callbacks import BUSY
from ari_conf.core.effects import (
    AddChannel,
    ClaimName,
    CreateBridge,
    DestroyBridge,
    Effect,
    FetchDocument,
    FetchSounds,
    HangUp,
    PlayMedia,
    PrepareSound,
    RemoveChannel,
    Reply,
    ReportProblem,
    StartRecording,
    StopPlayback,
    StopRecording,
)
from ari_conf.core.giving_up import GivingUp
from ari_conf.core.insisting import Insisted, lane_of
from ari_conf.core.internal import Out
from ari_conf.core.obey import refused

TOLD_AGAIN_MS = 60_000
"""Of calls that are refused an account is told once in this time."""


class Directory(GivingUp):
    __slots__ = ()

    def resume(self, out: Out, now: int) -> list[Effect]:
        """Effects of what is to be done again: see `reconcile`."""
        self._next_step()
        return self._settle(out, now)

    def whose(self, channel_id: str) -> dict[str, str]:
        """The call and the conference of a channel, as far as it has them."""
        call = self.calls.get(self._channels.get(channel_id, ""))
        if call is None:
            return {}
        found = {"call_uuid": call.call_uuid}
        return found | {"conference_id": call.conference_id} if call.conference_id else found

    def owners(self, owned_id: str) -> tuple[str, tuple[str, ...]]:
        """Of a playback's or a fetch's id: the account, and the call and the conference with whose end nobody waits
        for it any more. ("", ()) if they have ended."""
        kind, owner = ids.owner_of(owned_id)
        if kind == "c":
            call = self.calls.get(owner)
            return (call.auth_id, (owner,)) if call is not None and not call.over else ("", ())
        conference = self.conferences.get(owner)
        if conference is None:
            return "", ()
        member = conference.members.get(ids.member_of(owned_id) or 0)
        return conference.auth_id, (owner, member.call_uuid) if member is not None else (owner,)

    def receive(self, event: ev.Event, now: int) -> list[Effect]:
        if self._touched:
            self._next_step()
        kind = type(event)
        if kind is ev.TalkingStarted or kind is ev.TalkingFinished:
            return self._talk(event, now)  # type: ignore[arg-type]
        if kind is ev.TimePassed:
            return self._time(now)
        return self._settle(ROUTES[kind](self, event, now), now)

    def _arrived(self, event: ev.CallArrived, now: int) -> Out:
        if event.channel_id in self._channels:
            return []
        if 0 < self.calls_per_account <= self.calls.of_account(event.auth_id):
            return self._refuse(event, now)
        self.calls[event.call_uuid], out = Call.arrived(event, now)
        self._channels[event.channel_id] = event.call_uuid
        self._touched.add(event.call_uuid)
        return out

    def _refuse(self, event: ev.CallArrived, now: int) -> Out:
        """Nothing is kept of it: however many come, they cost what their hanging up costs."""
        out: Out = [HangUp(event.channel_id, "busy")]
        if event.auth_id not in self._refused or not 0 <= now - self._refused[event.auth_id] < TOLD_AGAIN_MS:
            self._refused = {who: at for who, at in self._refused.items() if 0 <= now - at < TOLD_AGAIN_MS}
            self._refused[event.auth_id] = now
            text = (
                f"a call was refused as busy: the account has {self.calls_per_account} calls, and may have no more at "
                "once (ARI_CONF_CALLS_PER_ACCOUNT); told once a minute"
            )
            out.append(ReportProblem(event.auth_id, event.call_uuid, BUSY, text))
        return out

    # Whom an event is for.

    def _call(self, call_uuid: str, event: ev.Event, now: int) -> Out:
        call = self.calls.get(call_uuid)
        if call is None:
            return []
        self._touched.add(call_uuid)
        out = call.receive(event, now)
        if call.ended_at is not None and (conference := self._conference_of(call)) is not None:
            # However that became known: by the event, or because the channel could not be hung up any more.
            self._touched.add(conference.conference_id)
            out += conference.leave(call.channel_id, "hangup", now)
        return out

    def _conference(self, conference_id: str, event: ev.Event, now: int) -> Out:
        conference = self.conferences.get(conference_id)
        if conference is None:
            return []
        self._touched.add(conference_id)
        return conference.receive(event, now)

    def _of_conference(self, event: _OfConference, now: int) -> Out:
        return self._conference(event.conference_id, event, now)

    def _of_bridge(self, event: _OfBridge, now: int) -> Out:
        if isinstance(event, ev.BridgeDestroyed):
            self._insisting.forget(event.bridge_id)
        return self._conference(event.bridge_id, event, now)

    def _of_playback(self, event: _OfPlayback, now: int) -> Out:
        return self._owner(event.playback_id, event, now)

    def _of_fetch(self, event: _OfFetch, now: int) -> Out:
        return self._owner(event.fetch_id, event, now)

    def _of_call(self, event: ev.CallIdentified, now: int) -> Out:
        return self._call(event.call_uuid, event, now)

    def _hung_up(self, event: ev.ChannelHungUp, now: int) -> Out:
        if event.channel_id not in self._channels:
            self._insisting.forget(event.channel_id)
        return self._call(self._channels.get(event.channel_id, ""), event, now)

    def _replaced(self, event: ev.ChannelReplaced, now: int) -> Out:
        """Refused: the new channel would hear a conference, and be heard, and be nobody's member."""
        out: Out = [HangUp(event.by)] if event.by not in self._channels else []
        call = self.calls.get(self._channels.get(event.channel_id, ""))
        if call is None or call.over:
            return out
        text = "the call was transferred by a phone, to one that would have been no member: both are hung up"
        out += [call.problem(text), HangUp(event.channel_id)]
        return out + self._call(call.call_uuid, ev.ChannelHungUp(event.channel_id), now)

    def _owner(self, owned_id: str, event: ev.Event, now: int) -> Out:
        kind, owner = ids.owner_of(owned_id)
        return self._call(owner, event, now) if kind == "c" else self._conference(owner, event, now)

    def _talk(self, event: ev.TalkingStarted | ev.TalkingFinished, now: int) -> list[Effect]:
        """The most frequent by far, and no deadline of a conference's depends on them."""
        call = self.calls.get(self._channels.get(event.channel_id, ""))
        if call is None:
            return []
        conference = self.conferences.get(call.conference_id or "")
        if conference is None:
            return self._settle(self._call(call.call_uuid, event, now), now)
        self._touched.add(conference.conference_id)
        out = conference.talk(event, now)
        effects = self._effects_of(out, now) if out else []
        conference.step_ended()
        return effects

    def _of_channel(self, event: ev.DigitReceived | ev.BeepHeard, now: int) -> Out:
        call = self.calls.get(self._channels.get(event.channel_id, ""))
        if call is None:
            return []
        conference = self._conference_of(call)
        if conference is not None:
            return self._conference(conference.conference_id, event, now)
        return self._call(call.call_uuid, event, now)

    def _of_phone(self, event: _OfPhone, now: int) -> Out:
        call = self.calls.get(self._channels.get(event.channel_id, ""))
        if call is None:
            return []
        if isinstance(event, ev.StreamSeen):
            known, call.stream = call.stream, event.source
            if known == event.source and not event.jumped:
                return []
            self._touched.add(call.call_uuid)
            if known is None:
                return []
        elif isinstance(event, ev.PhoneHeld | ev.PhoneResumed):
            call.on_hold = isinstance(event, ev.PhoneHeld)
            self._touched.add(call.call_uuid)
        if call.conference_id:
            return [] if isinstance(event, ev.NothingSent) else self._conference(call.conference_id, event, now)
        return self._call(call.call_uuid, event, now)

    def _command(self, event: ev.CommandReceived, now: int) -> Out:
        if event.expires_at <= now:
            return [refused(event.command_id, 503, "the command came too late to be done: try again")]
        conference = self.conferences.get(self._names.get((event.auth_id, event.conference_name), ""))
        if conference is None or conference.ending or conference.claim != "held":
            return [refused(event.command_id, 404, "conference not found")]
        self._touched.add(conference.conference_id)
        out = conference.command(event, now)
        if len(out) == 1 and isinstance(out[0], Reply) and out[0].status >= 400:
            # It has changed nothing: whoever asks in vain, however often, is not to have the conference written.
            self._touched.discard(conference.conference_id)
        return out

    def _watch(self, event: ev.AccountWatched, now: int) -> Out:
        auth_id, until = event.auth_id, event.until
        # Of the others those that nobody has looked at for some time are forgotten.
        self._watched = {account: end for account, end in self._watched.items() if end > now}
        if until <= now:
            return []
        self._watched[auth_id] = until
        out: Out = []
        for conference in [c for c in self.conferences.values() if c.auth_id == auth_id and not c.ending]:
            self._touched.add(conference.conference_id)
            out += conference.watch(until, now)
        return out

    def _failed(self, event: ev.EffectFailed, now: int) -> Out:
        effect = event.effect
        if isinstance(effect, Insisted) and not self._awaited(effect):
            return self._not_done(effect, event, now)
        match effect:
            case AddChannel(_, bridge_id) | RemoveChannel(_, bridge_id):
                return self._conference(bridge_id, event, now)
            case CreateBridge(bridge_id) | DestroyBridge(bridge_id):
                return self._conference(bridge_id, event, now)
            case StartRecording(bridge_id):
                return self._conference(bridge_id, event, now)
            case PlayMedia(target, playback_id):
                # It is passed over; if nobody knows whether it began, it must not go on behind what comes next.
                doubtful = not (event.gone or event.refused)
                stopped: Out = [StopPlayback(target, playback_id)] if doubtful else []
                return [*stopped, *self._owner(playback_id, event, now)]
            case ClaimName(_, _, conference_id):
                return self._conference(conference_id, event, now)
            # Those that say by themselves how they failed: so they do unless what runs them is broken.
            case FetchDocument(fetch_id):
                return self._owner(fetch_id, ev.DocumentFailed(fetch_id, False, event.reason), now)
            case FetchSounds(fetch_id):
                return self._owner(fetch_id, ev.SoundsFailed(fetch_id, event.reason), now)
            case PrepareSound(playback_id, sound):
                return self._owner(playback_id, ev.SoundFailed(playback_id, sound, event.reason), now)
            case _:
                channel_id = getattr(effect, "channel_id", None)
                return self._call(self._channels.get(channel_id or "", ""), event, now)

    def _awaited(self, effect: Insisted) -> bool:
        """By the call or the conference that ends with it."""
        ends = isinstance(effect, HangUp | DestroyBridge)
        return ends and (lane_of(effect) in self._channels or lane_of(effect) in self.conferences)

    def _not_done(self, effect: Insisted, event: ev.EffectFailed, now: int) -> Out:
        if event.gone:
            self._insisting.settled(effect)
        elif self._is_wanted(effect):
            self._insisting.failed(effect, now)
        return self._conference(effect.bridge_id, event, now) if isinstance(effect, StopRecording) else []

    def _is_wanted(self, effect: Insisted) -> bool:
        """As yet; where it is not, something else has been asked for since."""
        if isinstance(effect, HangUp | DestroyBridge):
            return not self._awaited(effect)
        where = lane_of(effect)
        return (where in self.conferences or where in self._channels) and self.wanted(effect) == effect

    def _ask_again(self, now: int) -> list[Effect]:
        return self._settle([effect for effect in self._insisting.due(now) if self._is_wanted(effect)], now)

    def _time(self, now: int) -> list[Effect]:
        """To all whose deadline has come, each once: one of them may have a new one at once."""
        due: list[str] = []
        while (deadline := self._next_deadline()) is not None and deadline <= now:
            key = heapq.heappop(self._deadlines)[1]
            del self._due[key]
            due.append(key)
        effects: list[Effect] = []
        for at, key in enumerate(due):
            # One after another: what the one leads to may concern the next.
            self._next_step()
            self._touched.add(key)
            deliver = self._call if key in self.calls else self._conference
            try:
                effects += self._settle(deliver(key, ev.TimePassed(), now), now)
            except Exception:
                # Whose turn it was is to be given up; the others' comes again, or is done.
                self._whole = effects
                for other in due[at + 1 :]:
                    self._bookkeep(other)
                raise
        if self._insisting.at is not None and self._insisting.at <= now:
            self._next_step()
            effects += self._ask_again(now)
        return effects


_OfConference = ev.NameClaimed | ev.NameRefused
_OfBridge = (
    ev.ChannelEnteredBridge
    | ev.ChannelLeftBridge
    | ev.BridgeCreated
    | ev.BridgeDestroyed
    | ev.RecordingStarted
    | ev.RecordingFinished
)
_OfPlayback = ev.SoundPrepared | ev.SoundFailed | ev.PlaybackStarted | ev.PlaybackFinished
_OfPhone = ev.PhoneHeld | ev.PhoneResumed | ev.StreamSeen | ev.AudioStopped | ev.NothingSent
_OfFetch = ev.DocumentFetched | ev.DocumentFailed | ev.SoundsFetched | ev.SoundsFailed

# By the event's class: trying one pattern after another takes as long as what then follows.
ROUTES: dict[type, Callable[[Directory, Any, int], Out]] = {
    ev.CallArrived: Directory._arrived,
    ev.CallIdentified: Directory._of_call,
    ev.ChannelHungUp: Directory._hung_up,
    ev.ChannelReplaced: Directory._replaced,
    ev.EffectFailed: Directory._failed,
    ev.CommandReceived: Directory._command,
    ev.AccountWatched: Directory._watch,
    ev.DigitReceived: Directory._of_channel,
    ev.BeepHeard: Directory._of_channel,
    **dict.fromkeys(get_args(_OfPhone), Directory._of_phone),
    **dict.fromkeys(get_args(_OfConference), Directory._of_conference),
    **dict.fromkeys(get_args(_OfBridge), Directory._of_bridge),
    **dict.fromkeys(get_args(_OfPlayback), Directory._of_playback),
    **dict.fromkeys(get_args(_OfFetch), Directory._of_fetch),
}

"""Engine: every call and conference of one server, behind a single entry point, `handle_event(event, now) -> effects`.

It routes each event to the call or conference that owns it, delivers the messages that calls and conferences exchange
within the step, and keeps the next deadline. An event about something that no longer exists, or never did, has no
effect.

This module holds the entry point and the routing. It builds on `abort`, that on `dispatcher`, and that on `registry`.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any, get_args

from ari_conf.core import events as ev
from ari_conf.core import ids
from ari_conf.core.abort import AbortHandling
from ari_conf.core.calls.call import Call
from ari_conf.core.commands import ForCall
from ari_conf.core.conferences.command_handler import error_reply, handle_command
from ari_conf.core.effects import (
    AddChannel,
    ClaimName,
    CommandReply,
    CreateBridge,
    DestroyBridge,
    Effect,
    FetchDocument,
    FetchSoundDocument,
    HangUp,
    PlayMedia,
    PrepareSound,
    RemoveChannel,
    ReportProblem,
    StartRecording,
    StopPlayback,
    StopRecording,
)
from ari_conf.core.ids import OwnerKind
from ari_conf.core.messages import HangupRequested, Outputs
from ari_conf.core.request_params import BUSY
from ari_conf.core.request_retries import RetriableEffect, lane_of

TOLD_AGAIN_MS = 60_000
"""Milliseconds between two problems about refused calls of the same account."""


class Engine(AbortHandling):
    __slots__ = ()

    def replay(self, out: Outputs, now: int) -> list[Effect]:
        """Make a step of effects to repeat and return its effects: see `reconciliation/plan.py`."""
        self._begin_step()
        return self._resolve(out, now)

    def log_context(self, channel_id: str) -> dict[str, str]:
        """Return the call_uuid and conference_id of a channel, as far as it has a call and a conference."""
        call = self.calls.get(self._call_by_channel.get(channel_id, ""))
        if call is None:
            return {}
        found = {"call_uuid": call.call_uuid}
        return found | {"conference_id": call.conference_id} if call.conference_id else found

    def owners(self, owned_id: str) -> tuple[str, tuple[str, ...]]:
        """Return the account of a playback or fetch id, and its owners: the call or conference, and a member's call.

        The result is not needed once one of the owners has ended. Returns ("", ()) if the call or conference has ended.
        """
        owned = ids.parse(owned_id)
        if owned is None:
            return "", ()
        if owned.kind is OwnerKind.CALL:
            call = self.calls.get(owned.owner)
            return (call.auth_id, (owned.owner,)) if call is not None and not call.is_ending else ("", ())
        conference = self.conferences.get(owned.owner)
        if conference is None:
            return "", ()
        member = conference.members.get(owned.member_id or 0)
        return conference.auth_id, (owned.owner, member.call_uuid) if member is not None else (owned.owner,)

    def handle_event(self, event: ev.Event, now: int) -> list[Effect]:
        if self._touched:
            self._begin_step()
        kind = type(event)
        if kind is ev.TalkingStarted or kind is ev.TalkingFinished:
            return self._on_talking(event, now)  # type: ignore[arg-type]
        if kind is ev.DeadlineReached:
            return self._on_deadline(now)
        return self._resolve(EVENT_HANDLERS[kind](self, event, now), now)

    def _on_call_arrived(self, event: ev.CallArrived, now: int) -> Outputs:
        if event.channel_id in self._call_by_channel:
            return []
        if 0 < self.calls_per_account <= self.calls.of_account(event.auth_id):
            return self._refuse(event, now)
        self.calls[event.call_uuid], out = Call.from_arrival(event, now)
        self._call_by_channel[event.channel_id] = event.call_uuid
        self._touched.add(event.call_uuid)
        return out

    def _refuse(self, event: ev.CallArrived, now: int) -> Outputs:
        """Hang the call up as busy and keep no state, so that any number of refused calls costs only their hangups."""
        out: Outputs = [HangUp(event.channel_id, "busy")]
        if event.auth_id not in self._refused or not 0 <= now - self._refused[event.auth_id] < TOLD_AGAIN_MS:
            self._refused = {who: at for who, at in self._refused.items() if 0 <= now - at < TOLD_AGAIN_MS}
            self._refused[event.auth_id] = now
            text = (
                f"a call was refused as busy: the account has {self.calls_per_account} calls, the maximum; end calls, "
                "or raise ARI_CONF_CALLS_PER_ACCOUNT (reported once a minute)"
            )
            out.append(ReportProblem(event.auth_id, event.call_uuid, BUSY, text))
        return out

    # Routing.

    def _to_call(self, call_uuid: str, event: ev.Event, now: int) -> Outputs:
        call = self.calls.get(call_uuid)
        if call is None:
            return []
        self._touched.add(call_uuid)
        out = call.handle_event(event, now)
        if call.ended_at is not None and (conference := self._conference_of(call)) is not None:
            # Either the event said that the channel is gone, or the hangup found that it no longer exists.
            self._touched.add(conference.conference_id)
            out += conference.leave(call.channel_id, "hangup", now)
        return out

    def _to_conference(self, conference_id: str, event: ev.Event, now: int) -> Outputs:
        conference = self.conferences.get(conference_id)
        if conference is None:
            return []
        self._touched.add(conference_id)
        return conference.handle_event(event, now)

    def _to_conference_of(self, bridge_id: str, event: ev.Event, now: int) -> Outputs:
        conference = self.conference_of_bridge(bridge_id)
        return self._to_conference(conference.conference_id, event, now) if conference is not None else []

    def _of_conference(self, event: _OfConference, now: int) -> Outputs:
        return self._to_conference(event.conference_id, event, now)

    def _of_bridge(self, event: _OfBridge, now: int) -> Outputs:
        if isinstance(event, ev.BridgeDestroyed):
            self._insisting.forget(event.bridge_id)
        return self._to_conference_of(event.bridge_id, event, now)

    def _of_playback(self, event: _OfPlayback, now: int) -> Outputs:
        return self._to_owner(event.playback_id, event, now)

    def _of_fetch(self, event: _OfFetch, now: int) -> Outputs:
        return self._to_owner(event.fetch_id, event, now)

    def _of_call(self, event: ev.CallIdentified, now: int) -> Outputs:
        return self._to_call(event.call_uuid, event, now)

    def _on_channel_hung_up(self, event: ev.ChannelHungUp, now: int) -> Outputs:
        if event.channel_id not in self._call_by_channel:
            self._insisting.forget(event.channel_id)
        return self._to_call(self._call_by_channel.get(event.channel_id, ""), event, now)

    def _replaced(self, event: ev.ChannelReplaced, now: int) -> Outputs:
        """Refuse the transfer: the new channel would hear a conference and be heard without being a member."""
        out: Outputs = [HangUp(event.by)] if event.by not in self._call_by_channel else []
        call = self.calls.get(self._call_by_channel.get(event.channel_id, ""))
        if call is None or call.is_ending:
            return out
        text = (
            "the call was transferred by a phone, which is not supported: the new channel would not be a member; both "
            "channels were hung up"
        )
        out += [call.problem(text), HangUp(event.channel_id)]
        return out + self._to_call(call.call_uuid, ev.ChannelHungUp(event.channel_id), now)

    def _to_owner(self, owned_id: str, event: ev.Event, now: int) -> Outputs:
        owned = ids.parse(owned_id)
        if owned is None:
            return []
        deliver = self._to_call if owned.kind is OwnerKind.CALL else self._to_conference
        return deliver(owned.owner, event, now)

    def _on_talking(self, event: ev.TalkingStarted | ev.TalkingFinished, now: int) -> list[Effect]:
        """Handle a talking event on a shorter path.

        Talking events are by far the most frequent, and no deadline of a conference depends on them.
        """
        call = self.calls.get(self._call_by_channel.get(event.channel_id, ""))
        if call is None:
            return []
        conference = self.conferences.get(call.conference_id or "")
        if conference is None:
            return self._resolve(self._to_call(call.call_uuid, event, now), now)
        self._touched.add(conference.conference_id)
        out = conference.handle_talking(event, now)
        effects = self._resolve_messages(out, now) if out else []
        conference.step_ended()
        return effects

    def _of_channel(self, event: ev.DigitReceived | ev.BeepHeard, now: int) -> Outputs:
        call = self.calls.get(self._call_by_channel.get(event.channel_id, ""))
        if call is None:
            return []
        conference = self._conference_of(call)
        if conference is not None:
            return self._to_conference(conference.conference_id, event, now)
        return self._to_call(call.call_uuid, event, now)

    def _of_phone(self, event: _OfPhone, now: int) -> Outputs:
        call = self.calls.get(self._call_by_channel.get(event.channel_id, ""))
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
            return [] if isinstance(event, ev.NothingSent) else self._to_conference(call.conference_id, event, now)
        return self._to_call(call.call_uuid, event, now)

    def _on_command(self, event: ev.CommandReceived, now: int) -> Outputs:
        if event.expires_at <= now:
            return [error_reply(event.command_id, 503, "the command arrived after its deadline: try again")]
        if isinstance(event.addressed, ForCall):
            return self._on_call_command(event.command_id, event.addressed, now)
        name = event.addressed.auth_id, event.addressed.name
        conference = self.conferences.get(self._conference_by_name.get(name, ""))
        if conference is None or conference.ending or conference.claim != "held":
            return [error_reply(event.command_id, 404, "conference not found")]
        self._touched.add(conference.conference_id)
        out = handle_command(conference, event.command_id, event.addressed.command, now)
        if len(out) == 1 and isinstance(out[0], CommandReply) and out[0].status >= 400:
            # A rejected command has changed nothing, so any number of them must not cause writes of the conference.
            self._touched.discard(conference.conference_id)
        return out

    def _on_call_command(self, command_id: str, addressed: ForCall, now: int) -> Outputs:
        call = self.calls.get(addressed.call_uuid)
        if call is None or call.is_ending or call.auth_id != addressed.auth_id:
            return [error_reply(command_id, 404, "call not found")]
        self._touched.add(call.call_uuid)
        out: Outputs = []
        if (conference := self._conference_of(call)) is not None:
            self._touched.add(conference.conference_id)
            out += conference.leave(call.channel_id, "api_hangup", now)
        return [*out, HangupRequested(call.call_uuid), CommandReply(command_id, 204)]

    def _on_account_watched(self, event: ev.AccountWatched, now: int) -> Outputs:
        auth_id, until = event.auth_id, event.until
        # Forget the accounts that no viewer watches any more.
        self._watched_until = {account: end for account, end in self._watched_until.items() if end > now}
        if until <= now:
            return []
        self._watched_until[auth_id] = until
        out: Outputs = []
        for conference in [c for c in self.conferences.values() if c.auth_id == auth_id and not c.ending]:
            self._touched.add(conference.conference_id)
            out += conference.watch(until, now)
        return out

    def _on_effect_failed(self, event: ev.EffectFailed, now: int) -> Outputs:
        effect = event.effect
        if isinstance(effect, RetriableEffect) and not self._awaited(effect):
            return self._not_done(effect, event, now)
        match effect:
            case AddChannel(_, bridge_id) | RemoveChannel(_, bridge_id):
                return self._to_conference_of(bridge_id, event, now)
            case CreateBridge(bridge_id) | DestroyBridge(bridge_id) | StartRecording(bridge_id):
                return self._to_conference_of(bridge_id, event, now)
            case PlayMedia(target, playback_id):
                # The sound is skipped. If it may have started, it must not continue behind the next sound.
                doubtful = not (event.target_gone or event.refused)
                stopped: Outputs = [StopPlayback(target, playback_id)] if doubtful else []
                return [*stopped, *self._to_owner(playback_id, event, now)]
            case ClaimName(_, _, conference_id):
                return self._to_conference(conference_id, event, now)
            # These effects report failures with events of their own, so EffectFailed means that the runner raised.
            case FetchDocument(fetch_id):
                return self._to_owner(fetch_id, ev.DocumentFailed(fetch_id, False, event.reason), now)
            case FetchSoundDocument(fetch_id):
                return self._to_owner(fetch_id, ev.SoundDocumentFailed(fetch_id, event.reason), now)
            case PrepareSound(playback_id, sound):
                return self._to_owner(playback_id, ev.SoundFailed(playback_id, sound, event.reason), now)
            case _:
                channel_id = getattr(effect, "channel_id", None)
                return self._to_call(self._call_by_channel.get(channel_id or "", ""), event, now)

    def _awaited(self, effect: RetriableEffect) -> bool:
        """Return whether a call or conference waits for this effect in order to end."""
        ends = isinstance(effect, HangUp | DestroyBridge)
        return ends and self._has_owner(lane_of(effect))

    def _has_owner(self, channel_or_bridge: str) -> bool:
        """Return whether a call has this channel, or a conference this bridge."""
        return channel_or_bridge in self._call_by_channel or self.conference_of_bridge(channel_or_bridge) is not None

    def _not_done(self, effect: RetriableEffect, event: ev.EffectFailed, now: int) -> Outputs:
        if event.target_gone:
            self._insisting.settled(effect)
        elif self._is_wanted(effect):
            self._insisting.failed(effect, now)
        return self._to_conference_of(effect.bridge_id, event, now) if isinstance(effect, StopRecording) else []

    def _is_wanted(self, effect: RetriableEffect) -> bool:
        """Return whether the effect is still wanted; otherwise a later request has replaced it."""
        if isinstance(effect, HangUp | DestroyBridge):
            return not self._awaited(effect)
        return self._has_owner(lane_of(effect)) and self.wanted(effect) == effect

    def _ask_again(self, now: int) -> list[Effect]:
        return self._resolve([effect for effect in self._insisting.due(now) if self._is_wanted(effect)], now)

    def _on_deadline(self, now: int) -> list[Effect]:
        """Deliver DeadlineReached to every owner that is due, once each, even if its next deadline is due as well."""
        due: list[str] = []
        while (deadline := self._next_deadline()) is not None and deadline <= now:
            key = heapq.heappop(self._deadline_heap)[1]
            del self._deadline_by_id[key]
            due.append(key)
        effects: list[Effect] = []
        for at, key in enumerate(due):
            # Each owner gets a step of its own, because the effects on one may concern the next.
            self._begin_step()
            self._touched.add(key)
            deliver = self._to_call if key in self.calls else self._to_conference
            try:
                effects += self._resolve(deliver(key, ev.DeadlineReached(), now), now)
            except Exception:
                # Only this owner is ended. Those before it are done, and those after it are scheduled again.
                self._effects_before_failure = effects
                for other in due[at + 1 :]:
                    self._update_indexes(other)
                raise
        if self._insisting.at is not None and self._insisting.at <= now:
            self._begin_step()
            effects += self._ask_again(now)
        return effects


_OfConference = ev.NameClaimed | ev.NameTaken | ev.RecordingStarted | ev.RecordingFinished
_OfBridge = ev.ChannelEnteredBridge | ev.ChannelLeftBridge | ev.BridgeCreated | ev.BridgeDestroyed
_OfPlayback = ev.SoundPrepared | ev.SoundFailed | ev.PlaybackStarted | ev.PlaybackFinished
_OfPhone = ev.PhoneHeld | ev.PhoneResumed | ev.StreamSeen | ev.AudioStopped | ev.NothingSent
_OfFetch = ev.DocumentFetched | ev.DocumentFailed | ev.SoundDocumentFetched | ev.SoundDocumentFailed

# A table by class: matching patterns sequentially takes as long as handling the event.
EVENT_HANDLERS: dict[type, Callable[[Engine, Any, int], Outputs]] = {
    ev.CallArrived: Engine._on_call_arrived,
    ev.CallIdentified: Engine._of_call,
    ev.ChannelHungUp: Engine._on_channel_hung_up,
    ev.ChannelReplaced: Engine._replaced,
    ev.EffectFailed: Engine._on_effect_failed,
    ev.CommandReceived: Engine._on_command,
    ev.AccountWatched: Engine._on_account_watched,
    ev.DigitReceived: Engine._of_channel,
    ev.BeepHeard: Engine._of_channel,
    **dict.fromkeys(get_args(_OfPhone), Engine._of_phone),
    **dict.fromkeys(get_args(_OfConference), Engine._of_conference),
    **dict.fromkeys(get_args(_OfBridge), Engine._of_bridge),
    **dict.fromkeys(get_args(_OfPlayback), Engine._of_playback),
    **dict.fromkeys(get_args(_OfFetch), Engine._of_fetch),
}

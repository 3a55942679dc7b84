"""Engine: every call and conference of one server, behind a single entry point, `handle_event(event, now) -> effects`.

It routes each event to the call or conference that owns it. An event about something that no longer exists, or never
did, has no effect. The engine holds its parts: a `Registry` of calls and conferences, a `Dispatcher` of the messages
that they exchange within a step, and an `AbortHandler` for steps that failed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any, get_args

from ari_conf.core import events as ev
from ari_conf.core import ids
from ari_conf.core.abort import AbortHandler
from ari_conf.core.bounds import MAX_QUEUED_CALLS
from ari_conf.core.calls import call_recording, live_commands
from ari_conf.core.calls.call import Call
from ari_conf.core.calls.call_state import UNANSWERED, CallState
from ari_conf.core.commands import (
    ForAccount,
    ForCall,
    HangUpCall,
    HangUpCalls,
    PlaceCalls,
    RecordCall,
    StopRecordingCall,
)
from ari_conf.core.conferences.command_handler import error_reply, handle_command, hang_up_all
from ari_conf.core.conferences.conference_state import ClaimState
from ari_conf.core.dial_pace import DialPace
from ari_conf.core.dispatcher import Dispatcher
from ari_conf.core.effects import (
    AddChannel,
    AdmitDial,
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
    ReplyField,
    ReportProblem,
    StartRecording,
    StopPlayback,
    StopRecording,
)
from ari_conf.core.elements import Speak
from ari_conf.core.hangup_codes import HangupCode
from ari_conf.core.ids import OwnerKind
from ari_conf.core.messages import HangupRequested, Outputs
from ari_conf.core.placing import CallToPlace
from ari_conf.core.problem_kinds import ProblemKind
from ari_conf.core.registry import Registry
from ari_conf.core.request_retries import RetriableEffect, target_of
from ari_conf.core.step_failed import StepFailed

REFUSED_CALL_PROBLEM_MS = 60_000
"""Milliseconds between two problems about refused calls of the same account."""
REPLY_GRACE_MS = 500
"""Milliseconds after the expiry of a command within which the API client surely gets its reply, if it is persisted."""
CALL_NOT_FOUND = "call not found: it has ended, or the account has no such call"
LATE_COMMAND = "the command arrived after its deadline: try again"


class Engine:
    __slots__ = (
        "_dispatcher",
        "_refused_at",
        "abort_handler",
        "calls",
        "calls_per_account",
        "conferences",
        "registry",
        "take_changes",
    )

    def __init__(
        self,
        new_id: Callable[[], str],
        public_url: str = "http://127.0.0.1:8080",
        calls_per_account: int = 0,
        dials_per_second: float = 0.0,
    ) -> None:
        """Create an engine without calls.

        `new_id` is the source of the ids of conferences and recordings: unguessable, and never the same twice.
        `calls_per_account`: maximum number of concurrent calls of one account; 0: no limit. `dials_per_second`: rate at
        which the calls of one account are dialed; 0: no limit.
        """
        self.registry = Registry(new_id, public_url, dial_pace=DialPace(dials_per_second))
        self.calls, self.conferences = self.registry.calls, self.registry.conferences
        self.take_changes = self.registry.take_changes
        self.calls_per_account = calls_per_account
        self._dispatcher = Dispatcher(self.registry)
        self.abort_handler = AbortHandler(self.registry, self._dispatcher)
        self._refused_at: dict[str, int] = {}
        """account -> epoch ms of its last problem about too many calls; problems of the last minute only"""

    # Entry points.

    def handle_event(self, event: ev.Event, now: int) -> list[Effect]:
        """Make a step of the event and return its effects.

        Raises StepFailed if anything raises, which is a bug: then call `abort_failed_step`.
        """
        if self.registry.touched:
            self.registry.begin_step()
        kind = type(event)
        try:
            if kind is ev.TalkingStarted or kind is ev.TalkingFinished:
                return self._on_talking(event, now)  # type: ignore[arg-type]
            if kind is ev.DeadlineReached:
                return self._on_deadline(now)
            return self._dispatcher.resolve(EVENT_HANDLERS[kind](self, event, now), now)
        except Exception as error:
            failure = StepFailed.of(error)
            failure.event = event
            raise failure from failure.__cause__

    def replay(self, out: Outputs, now: int) -> list[Effect]:
        """Make a step of effects to repeat and return its effects: see `reconciliation/plan.py`. Raises StepFailed."""
        self.registry.begin_step()
        return self._dispatcher.resolve(out, now)

    def abort_failed_step(self, failure: StepFailed, now: int) -> list[Effect]:
        """Clean up after `handle_event` raised.

        The calls and conferences that the step touched are in an inconsistent state. They are ended, so that no caller
        is left in a call that no longer responds. All others continue.
        """
        return self.abort_handler.abort_failed_step(failure, now)

    def abort(self, owner_ids: Iterable[str], now: int) -> list[Effect]:
        """End these calls and conferences, and those that the last step touched, because reconciling them raised."""
        return self.abort_handler.abort(owner_ids, now)

    # State, for those who persist, log and reconcile it.

    @property
    def deadline(self) -> int | None:
        """Epoch milliseconds of the next DeadlineReached, or None if nothing is awaited."""
        earliest, retry_at = self.registry.deadlines.earliest, self.registry.retries.at
        if earliest is None or retry_at is None:
            return retry_at if earliest is None else earliest
        return min(earliest, retry_at)

    @property
    def last_step_changed_state(self) -> bool:
        """True if the last step touched a call or conference."""
        return bool(self.registry.touched)

    def log_context(self, channel_id: str) -> dict[str, str]:
        """Return the call_uuid and conference_id of a channel, as far as it has a call and a conference."""
        call = self.registry.call_of(channel_id)
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

    # Arrivals.

    def _on_call_arrived(self, event: ev.CallArrived, now: int) -> Outputs:
        if event.channel_id in self.registry.call_by_channel:
            return []
        if 0 < self.calls_per_account <= self.calls.of_account(event.auth_id):
            return self._refuse(event, now)
        self.calls[event.call_uuid], out = Call.from_arrival(event, now)
        self.registry.call_by_channel[event.channel_id] = event.call_uuid
        self.registry.touched.add(event.call_uuid)
        return out

    def _refuse(self, event: ev.CallArrived, now: int) -> Outputs:
        """Hang the call up as busy and keep no state, so that any number of refused calls costs only their hangups."""
        out: Outputs = [HangUp(event.channel_id, "busy")]
        last = self._refused_at.get(event.auth_id)
        if last is None or not 0 <= now - last < REFUSED_CALL_PROBLEM_MS:
            recent = {id: at for id, at in self._refused_at.items() if 0 <= now - at < REFUSED_CALL_PROBLEM_MS}
            self._refused_at = recent | {event.auth_id: now}
            text = (
                f"a call was refused as busy: the account has {self.calls_per_account} calls, the maximum; end calls, "
                "or raise ARI_CONF_CALLS_PER_ACCOUNT (reported once a minute)"
            )
            out.append(ReportProblem(event.auth_id, event.call_uuid, ProblemKind.TOO_MANY_CALLS, HangupCode.BUSY, text))
        return out

    def _on_channel_created(self, event: ev.ChannelCreated, now: int) -> Outputs:
        call = self.registry.call_of(event.channel_id)
        # No call waits for it: it was canceled, or a process that no longer exists requested the channel.
        return self._to_call(call.call_uuid, event, now) if call is not None else [HangUp(event.channel_id)]

    # Routing.

    def _to_call(self, call_uuid: str, event: ev.Event, now: int) -> Outputs:
        call = self.calls.get(call_uuid)
        if call is None:
            return []
        self.registry.touched.add(call_uuid)
        out = call.handle_event(event, now)
        if call.ended_at is not None and (conference := self.registry.conference_of(call)) is not None:
            # Either the event said that the channel is gone, or the hangup found that it no longer exists.
            self.registry.touched.add(conference.conference_id)
            out += conference.leave(call.channel_id, "hangup", now)
        return out

    def _to_conference(self, conference_id: str, event: ev.Event, now: int) -> Outputs:
        conference = self.conferences.get(conference_id)
        if conference is None:
            return []
        self.registry.touched.add(conference_id)
        return conference.handle_event(event, now)

    def _to_conference_of(self, bridge_id: str, event: ev.Event, now: int) -> Outputs:
        conference = self.registry.conference_of_bridge(bridge_id)
        return self._to_conference(conference.conference_id, event, now) if conference is not None else []

    def _to_recorded(self, source_id: str, event: ev.Event, now: int) -> Outputs:
        """Deliver an event about what is recorded: a bridge, or a call by its snoop channel."""
        call_uuid = ids.call_of(source_id)
        return self._to_call(call_uuid, event, now) if call_uuid else self._to_conference_of(source_id, event, now)

    def _route_recording(self, event: ev.RecordingStarted | ev.RecordingFinished, now: int) -> Outputs:
        if event.call_uuid:
            return self._to_call(event.call_uuid, event, now)
        return self._to_conference(event.conference_id, event, now)

    def _route_by_conference(self, event: _ConferenceEvent, now: int) -> Outputs:
        return self._to_conference(event.conference_id, event, now)

    def _route_by_bridge(self, event: _BridgeEvent, now: int) -> Outputs:
        if isinstance(event, ev.BridgeDestroyed):
            self.registry.retries.forget(event.bridge_id)
        return self._to_conference_of(event.bridge_id, event, now)

    def _route_by_playback(self, event: _PlaybackEvent, now: int) -> Outputs:
        return self._to_owner(event.playback_id, event, now)

    def _route_by_fetch(self, event: _FetchEvent, now: int) -> Outputs:
        return self._to_owner(event.fetch_id, event, now)

    def _route_by_call(self, event: ev.CallIdentified | ev.CodecRead | ev.MinutesUsedUp, now: int) -> Outputs:
        return self._to_call(event.call_uuid, event, now)

    def _on_dial_admitted(self, event: ev.DialAdmitted, now: int) -> Outputs:
        return self._to_owner(event.dial_id, event, now)

    def _route_to_call(self, event: _DialEvent, now: int) -> Outputs:
        return self._to_call(self.registry.call_by_channel.get(event.channel_id, ""), event, now)

    def _on_channel_hung_up(self, event: ev.ChannelHungUp, now: int) -> Outputs:
        if event.channel_id not in self.registry.call_by_channel:
            self.registry.retries.forget(event.channel_id)
        return self._to_call(self.registry.call_by_channel.get(event.channel_id, ""), event, now)

    def _on_channel_replaced(self, event: ev.ChannelReplaced, now: int) -> Outputs:
        """Refuse the transfer: the new channel would hear a conference and be heard without being a member."""
        out: Outputs = [HangUp(event.by)] if event.by not in self.registry.call_by_channel else []
        call = self.registry.call_of(event.channel_id)
        if call is None or call.is_ending:
            return out
        text = (
            "the call was transferred by a phone, which is not supported: the new channel would not be a member; both "
            "channels were hung up"
        )
        out += [call.problem(ProblemKind.CALL_TRANSFERRED, text), HangUp(event.channel_id)]
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
        registry = self.registry
        call = self.calls.get(registry.call_by_channel.get(event.channel_id, ""))
        if call is None:
            return []
        conference = self.conferences.get(call.conference_id or "")
        if conference is None:
            return self._dispatcher.resolve(self._to_call(call.call_uuid, event, now), now)
        registry.touched.add(conference.conference_id)
        out = conference.handle_talking(event, now)
        effects = self._dispatcher.resolve_messages(out, now) if out else []
        conference.step_ended()
        return effects

    def _route_by_channel(self, event: ev.DigitReceived | ev.BeepHeard, now: int) -> Outputs:
        call = self.registry.call_of(event.channel_id)
        if call is None:
            return []
        conference = self.registry.conference_of(call)
        if conference is not None:
            return self._to_conference(conference.conference_id, event, now)
        return self._to_call(call.call_uuid, event, now)

    def _route_to_call_of(self, event: _ListeningEvent, now: int) -> Outputs:
        """Deliver what is heard of a placed call to it, also while it is in a conference."""
        return self._to_call(self.registry.call_by_channel.get(event.channel_id, ""), event, now)

    def _route_by_phone(self, event: _PhoneEvent, now: int) -> Outputs:
        call = self.registry.call_of(event.channel_id)
        if call is None:
            return []
        if isinstance(event, ev.StreamSeen):
            known, call.stream = call.stream, event.source
            if known == event.source and not event.jumped:
                return []
            self.registry.touched.add(call.call_uuid)
            if known is None:
                return []
        elif isinstance(event, ev.PhoneHeld | ev.PhoneResumed):
            call.on_hold = isinstance(event, ev.PhoneHeld)
            self.registry.touched.add(call.call_uuid)
        if call.conference_id:
            return [] if isinstance(event, ev.NothingSent) else self._to_conference(call.conference_id, event, now)
        return self._to_call(call.call_uuid, event, now)

    def _on_line_measured(self, event: ev.LineMeasured, now: int) -> Outputs:
        call = self.registry.call_of(event.channel_id)
        conference = self.registry.conference_of(call) if call is not None else None
        return self._to_conference(conference.conference_id, event, now) if conference is not None else []

    def _on_command(self, event: ev.CommandReceived, now: int) -> Outputs:
        if event.expires_at <= now:
            return [error_reply(event.command_id, HTTPStatus.SERVICE_UNAVAILABLE, LATE_COMMAND)]
        if isinstance(event.addressed, ForCall):
            return self._on_call_command(event.command_id, event.addressed, now)
        if isinstance(event.addressed, ForAccount):
            command = event.addressed.command
            if isinstance(command, PlaceCalls):
                return self._place_calls(event.command_id, command, now, event.expires_at)
            return self._on_account_command(event.command_id, event.addressed.auth_id, command, now)
        conference = self.registry.conference_named(event.addressed.auth_id, event.addressed.name)
        if conference is None or conference.ending or conference.claim is not ClaimState.GRANTED:
            return [error_reply(event.command_id, HTTPStatus.NOT_FOUND, "conference not found")]
        self.registry.touched.add(conference.conference_id)
        out = handle_command(conference, event.command_id, event.addressed.command, now)
        if len(out) == 1 and isinstance(out[0], CommandReply) and out[0].status >= 400:
            # A rejected command has changed nothing, so any number of them must not cause writes of the conference.
            self.registry.touched.discard(conference.conference_id)
        return out

    def _on_call_command(self, command_id: str, addressed: ForCall, now: int) -> Outputs:
        call = self.calls.get(addressed.call_uuid)
        if call is None or call.is_ending or call.auth_id != addressed.auth_id:
            return [error_reply(command_id, HTTPStatus.NOT_FOUND, CALL_NOT_FOUND)]
        if isinstance(addressed.command, HangUpCall):
            return [*self._hang_up_call(call, now), CommandReply(command_id, HTTPStatus.NO_CONTENT)]
        if isinstance(addressed.command, RecordCall) and call.state in UNANSWERED:
            # The channel may still be replaced by another one, of the next trunk.
            return [error_reply(command_id, HTTPStatus.CONFLICT, live_commands.NOT_ANSWERED)]
        if isinstance(addressed.command, RecordCall | StopRecordingCall):
            self.registry.touched.add(call.call_uuid)
            public_url = self.registry.public_url
            return call_recording.handle_command(call, command_id, addressed.command, public_url, now)
        second = self.registry.second_leg_of(call)
        legs = self._addressed_leg(call), self._addressed_leg(second) if second is not None else None
        out, changed = live_commands.handle_command(*legs, command_id, addressed.command, now)
        self.registry.touched |= {each.call_uuid for each in changed}
        return out

    def _addressed_leg(self, call: Call) -> live_commands.Leg:
        member = self.registry.member_of(call)
        return live_commands.Leg(call, len(member.private_playback.queue) if member is not None else 0)

    def _hang_up_call(self, call: Call, now: int) -> Outputs:
        self.registry.touched.add(call.call_uuid)
        out: Outputs = []
        if (conference := self.registry.conference_of(call)) is not None:
            self.registry.touched.add(conference.conference_id)
            out += conference.leave(call.channel_id, "api_hangup", now)
        return [*out, HangupRequested(call.call_uuid)]

    def _place_calls(self, command_id: str, command: PlaceCalls, now: int, expires_at: int) -> Outputs:
        """Create the calls, all or none. Those whose turn it is are dialed once this step is persisted."""
        account, placed = command.account, command.calls
        present = self.calls.of_account(account.auth_id)
        if 0 < self.calls_per_account < present + len(placed):
            text = (
                f"the account has {present} calls on this Asterisk, and may have {self.calls_per_account}: end calls, "
                "or raise ARI_CONF_CALLS_PER_ACCOUNT"
            )
            return [error_reply(command_id, HTTPStatus.FORBIDDEN, text)]
        pace = self.registry.dial_pace
        paced = pace.plan(account.auth_id, len(placed), now)
        turns = [max(turn, now + each.delay_ms) for turn, each in zip(paced, placed, strict=True)]
        waiting = sum(turn > now for turn in turns)
        if waiting and waiting + self._queued_calls(account.auth_id) > MAX_QUEUED_CALLS:
            text = f"more than {MAX_QUEUED_CALLS} calls of the account would be queued: try again later"
            return [error_reply(command_id, HTTPStatus.TOO_MANY_REQUESTS, text)]
        pace.take(account.auth_id, len(placed), now)
        out: Outputs = []
        for each, turn in zip(placed, turns, strict=True):
            call = Call.to_place(each, command.options, account, now, turn)
            if command.options.is_race and call.outgoing is not None:
                call.outgoing.rivals = tuple(p.call_uuid for p in placed if p is not each)
            out += self.registry.add_placed(call, now, expires_at + REPLY_GRACE_MS)
        return [*out, CommandReply(command_id, HTTPStatus.CREATED.value, _placed_body(placed, is_queued=bool(waiting)))]

    def _queued_calls(self, auth_id: str) -> int:
        return sum(call.auth_id == auth_id and call.state is CallState.QUEUED for call in self.calls.values())

    def _on_account_command(self, command_id: str, auth_id: str, command: HangUpCalls, now: int) -> Outputs:
        """Hang up calls of an account. The reply has the number of calls for the next command."""
        at_most, out = command.at_most, list[Any]()
        left = {c.call_uuid: c for c in self.calls.values() if c.auth_id == auth_id and not c.is_ending}
        hung_up = set[str]()
        # Whole conferences first, so that no member hears the exit sounds of all others.
        for conference in [c for c in self.conferences.values() if c.auth_id == auth_id]:
            if len(hung_up) < at_most and conference.claim is ClaimState.GRANTED and not conference.ending:
                self.registry.touched.add(conference.conference_id)
                hung_up |= {m.call_uuid for m in conference.members.values()}
                out += hang_up_all(conference, now)
        outside = [call for call_uuid, call in left.items() if call_uuid not in hung_up]
        for call in outside[: max(0, at_most - len(hung_up))]:
            hung_up.add(call.call_uuid)
            out += self._hang_up_call(call, now)
        body = (("left", str(len(left.keys() - hung_up))),)
        return [*out, CommandReply(command_id, HTTPStatus.ACCEPTED.value, body)]

    def _on_account_watched(self, event: ev.AccountWatched, now: int) -> Outputs:
        auth_id, until, registry = event.auth_id, event.until, self.registry
        # Forget the accounts that no viewer watches any more.
        registry.watched_until = {account: end for account, end in registry.watched_until.items() if end > now}
        if until <= now:
            return []
        registry.watched_until[auth_id] = until
        out: Outputs = []
        watched = [c for c in self.conferences.values() if c.auth_id == auth_id and not (c.ending or c.is_private)]
        for conference in watched:
            registry.touched.add(conference.conference_id)
            out += conference.watch(until, now)
        return out

    def _on_effect_failed(self, event: ev.EffectFailed, now: int) -> Outputs:
        effect = event.effect
        if isinstance(effect, RetriableEffect) and not self._is_awaited(effect):
            return self._on_retriable_failed(effect, event, now)
        match effect:
            case AddChannel(_, bridge_id) | RemoveChannel(_, bridge_id):
                return self._to_conference_of(bridge_id, event, now)
            case CreateBridge(bridge_id) | DestroyBridge(bridge_id):
                return self._to_conference_of(bridge_id, event, now)
            case StartRecording(source_id):
                return self._to_recorded(source_id, event, now)
            case PlayMedia(target, playback_id):
                # The sound is skipped. If it may have started, it must not continue behind the next sound.
                doubtful = not (event.target_gone or event.refused)
                stopped: Outputs = [StopPlayback(target, playback_id)] if doubtful else []
                return [*stopped, *self._to_owner(playback_id, event, now)]
            case ClaimName(_, _, conference_id):
                return self._to_conference(conference_id, event, now)
            case AdmitDial(dial_id):
                return self._to_owner(dial_id, ev.DialAdmitted(dial_id, (), (event.reason,)), now)
            # These effects report failures with events of their own, so EffectFailed means that the runner raised.
            case FetchDocument(fetch_id):
                failed = ev.DocumentFailed(fetch_id, ProblemKind.DOCUMENT_UNREACHABLE, event.reason)
                return self._to_owner(fetch_id, failed, now)
            case FetchSoundDocument(fetch_id):
                unheard = ev.SoundDocumentFailed(fetch_id, ProblemKind.SOUND_DOCUMENT_FAILED, event.reason)
                return self._to_owner(fetch_id, unheard, now)
            case PrepareSound(playback_id, sound):
                kind = ProblemKind.SPEECH_FAILED if isinstance(sound, Speak) else ProblemKind.SOUND_UNPLAYABLE
                return self._to_owner(playback_id, ev.SoundFailed(playback_id, sound, kind, event.reason), now)
            case _:
                channel_id = getattr(effect, "channel_id", None)
                return self._to_call(self.registry.call_by_channel.get(channel_id or "", ""), event, now)

    def _is_awaited(self, effect: RetriableEffect) -> bool:
        """Return whether a call or conference waits for this effect in order to end."""
        return isinstance(effect, HangUp | DestroyBridge) and self._has_owner(target_of(effect))

    def _has_owner(self, channel_or_bridge: str) -> bool:
        """Return whether a call has this channel, or a conference this bridge."""
        registry = self.registry
        return channel_or_bridge in registry.call_by_channel or (
            registry.conference_of_bridge(channel_or_bridge) is not None
        )

    def _on_retriable_failed(self, effect: RetriableEffect, event: ev.EffectFailed, now: int) -> Outputs:
        if event.target_gone:
            self.registry.retries.settled(effect)
        elif self._is_wanted(effect):
            self.registry.retries.failed(effect, now)
        return self._to_recorded(effect.source_id, event, now) if isinstance(effect, StopRecording) else []

    def _is_wanted(self, effect: RetriableEffect) -> bool:
        """Return whether the effect is still wanted; otherwise a later request has replaced it."""
        if isinstance(effect, HangUp | DestroyBridge):
            return not self._is_awaited(effect)
        if isinstance(effect, StopRecording) and (call_uuid := ids.call_of(effect.source_id)) is not None:
            # Also if the recording counts as stopped: more of the call must not be recorded. It ends with the call.
            return call_uuid in self.calls
        return self._has_owner(target_of(effect)) and self.registry.wanted(effect) == effect

    def _retry_requests(self, now: int) -> list[Effect]:
        return self._dispatcher.resolve([e for e in self.registry.retries.due(now) if self._is_wanted(e)], now)

    def _on_deadline(self, now: int) -> list[Effect]:
        """Deliver DeadlineReached to every owner that is due, once each, even if its next deadline is due as well."""
        registry = self.registry
        effects: list[Effect] = []
        due = registry.deadlines.take_due(now)
        for n, owner_id in enumerate(due):
            # Each owner gets a step of its own, because the effects on one may concern the next.
            registry.begin_step()
            registry.touched.add(owner_id)
            deliver = self._to_call if owner_id in self.calls else self._to_conference
            try:
                effects += self._dispatcher.resolve(deliver(owner_id, ev.DeadlineReached(), now), now)
            except Exception as error:
                # Only this owner is ended. Those before it are done, and those after it are scheduled again.
                for other in due[n + 1 :]:
                    registry.update_indexes(other)
                failure = StepFailed.of(error)
                failure.effects_before = effects
                raise failure from failure.__cause__
        if registry.retries.at is not None and registry.retries.at <= now:
            registry.begin_step()
            effects += self._retry_requests(now)
        return effects


def _placed_body(placed: tuple[CallToPlace, ...], *, is_queued: bool) -> tuple[ReplyField, ...]:
    uuids = tuple(call.call_uuid for call in placed)
    message = "call queued" if is_queued else "call fired" if len(uuids) == 1 else "calls fired"
    return ("message", message), ("request_uuid", uuids if len(uuids) > 1 else uuids[0])


_DialEvent = ev.ChannelRinging | ev.ChannelProgress | ev.ChannelAnswered | ev.DialUnconfirmed
_ConferenceEvent = ev.NameClaimed | ev.NameTaken
_BridgeEvent = ev.ChannelEnteredBridge | ev.ChannelLeftBridge | ev.BridgeCreated | ev.BridgeDestroyed
_PlaybackEvent = ev.SoundPrepared | ev.SoundFailed | ev.PlaybackStarted | ev.PlaybackFinished
_PhoneEvent = ev.PhoneHeld | ev.PhoneResumed | ev.StreamSeen | ev.AudioStopped | ev.NothingSent
_ListeningEvent = ev.ListeningStarted | ev.ListeningFailed | ev.PhraseStarted | ev.PhraseEnded | ev.ToneHeard
_FetchEvent = ev.DocumentFetched | ev.DocumentFailed | ev.SoundDocumentFetched | ev.SoundDocumentFailed

# A table by class: matching patterns sequentially takes as long as handling the event.
EVENT_HANDLERS: dict[type, Callable[[Engine, Any, int], Outputs]] = {
    ev.CallArrived: Engine._on_call_arrived,
    ev.CallIdentified: Engine._route_by_call,
    ev.CodecRead: Engine._route_by_call,
    ev.DialAdmitted: Engine._on_dial_admitted,
    ev.MinutesUsedUp: Engine._route_by_call,
    ev.ChannelCreated: Engine._on_channel_created,
    ev.ChannelHungUp: Engine._on_channel_hung_up,
    ev.ChannelReplaced: Engine._on_channel_replaced,
    ev.EffectFailed: Engine._on_effect_failed,
    ev.CommandReceived: Engine._on_command,
    ev.AccountWatched: Engine._on_account_watched,
    ev.DigitReceived: Engine._route_by_channel,
    ev.BeepHeard: Engine._route_by_channel,
    ev.LineMeasured: Engine._on_line_measured,
    **dict.fromkeys(get_args(_ListeningEvent), Engine._route_to_call_of),
    **dict.fromkeys(get_args(_DialEvent), Engine._route_to_call),
    ev.RecordingStarted: Engine._route_recording,
    ev.RecordingFinished: Engine._route_recording,
    **dict.fromkeys(get_args(_PhoneEvent), Engine._route_by_phone),
    **dict.fromkeys(get_args(_ConferenceEvent), Engine._route_by_conference),
    **dict.fromkeys(get_args(_BridgeEvent), Engine._route_by_bridge),
    **dict.fromkeys(get_args(_PlaybackEvent), Engine._route_by_playback),
    **dict.fromkeys(get_args(_FetchEvent), Engine._route_by_fetch),
}

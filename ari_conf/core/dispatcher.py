"""Message dispatch: within a step, delivers the messages between calls and conferences until only effects remain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast, get_args

from ari_conf.core import archive
from ari_conf.core.account import Account
from ari_conf.core.bounds import MAX_SWITCH_OFFS
from ari_conf.core.calls.call import Call
from ari_conf.core.calls.dial_element import DIAL_MEMBERS
from ari_conf.core.conferences.conference import Conference
from ari_conf.core.conferences.member import Member
from ari_conf.core.effects import (
    AddAttendanceNote,
    Effect,
    FetchSoundDocument,
    PostCallback,
    SendDigits,
    SendSilence,
    SwitchOffEffect,
)
from ari_conf.core.messages import (
    MESSAGE_TYPES,
    Admitted,
    AttendanceNoted,
    CallbackRequested,
    CallRecordingRequested,
    DepartureRequested,
    DialMusicChanged,
    DialRequested,
    DigitsDue,
    HangupRequested,
    JoinRequested,
    JoinSkipped,
    LegChanged,
    LegsMissed,
    LegsPlaced,
    LegsReleased,
    MemberDeparted,
    MemberReleased,
    Message,
    Outputs,
    RaceWon,
    RecordingRequested,
    SoundDocumentRequested,
    SoundRequested,
    SoundStopRequested,
)
from ari_conf.core.problem_kinds import ProblemKind
from ari_conf.core.queued_sound import SOUND_TYPES
from ari_conf.core.registry import Registry
from ari_conf.core.request_retries import target_of
from ari_conf.core.step_failed import StepFailed

SWITCH_OFF_EFFECTS = frozenset(get_args(SwitchOffEffect))
SWITCH_OFF_MEMORY_MS = 30_000
"""Milliseconds after which Asterisk has carried out a switch-off effect, or never will."""


class Dispatcher:
    __slots__ = ("_registry",)

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def resolve(self, out: Outputs, now: int) -> list[Effect]:
        """Complete a step: deliver its messages, in order, until only effects remain; return the effects.

        A call continues only after every message of the conference has been delivered: the call may rejoin the same
        conference immediately, and what it does then must come after everything that was decided earlier. Raises
        StepFailed.
        """
        registry, effects = self._registry, None
        try:
            effects = self.resolve_messages(out, now) if out else []
            for effect in effects:
                if type(effect) in SWITCH_OFF_EFFECTS:
                    self.remember_switch_off(effect, now)  # type: ignore[arg-type]
            for owner_id in registry.touched:
                registry.update_indexes(owner_id)
            if registry.ended:
                effects = [*effects, *self.archive_ended(now)]
        except Exception as error:
            raise StepFailed(decided=effects) from error
        return effects

    def resolve_messages(self, out: Outputs, now: int) -> list[Effect]:
        """Deliver the messages, and return the effects. The step is not complete: no index is updated."""
        for item in out:
            if type(item) in MESSAGE_TYPES:
                break
        else:
            return cast("list[Effect]", out)
        effects: list[Effect] = []
        deferred: list[Message] = []
        self._dispatch(out, effects, deferred, now)
        for message in deferred:
            # Delivery may append further messages to `deferred`.
            self._dispatch(MESSAGE_HANDLERS[type(message)](self, message, now), effects, deferred, now)
        return effects

    def _dispatch(self, out: Outputs, effects: list[Effect], deferred: list[Message], now: int) -> None:
        for item in out:
            kind = type(item)
            if kind not in MESSAGE_TYPES:
                effects.append(item)  # type: ignore[arg-type]
            elif kind is CallbackRequested:
                # The most frequent message: it becomes effects only.
                effects += self._build_callback(item, now)  # type: ignore[arg-type]
            elif kind is MemberReleased or kind is JoinSkipped:
                deferred.append(item)  # type: ignore[arg-type]
            else:
                self._dispatch(MESSAGE_HANDLERS[kind](self, item, now), effects, deferred, now)

    def archive_ended(self, now: int) -> list[Effect]:
        """Return what the history keeps of the calls and conferences that have ended since the last time."""
        effects = archive.of_ended(self._registry.ended, now)
        self._registry.ended = []
        return effects

    def remember_switch_off(self, effect: SwitchOffEffect, now: int) -> None:
        """Remember an effect that switches something off, for a process that takes over.

        The effect leaves no other trace in the state, and after a crash Asterisk may not have carried it out.
        """
        if any(getattr(effect, name, None) for name in ("muted", "deaf", "silence", "silence_ms")):
            return
        target_id = target_of(effect)
        owner = self._registry.call_of(target_id) or self._registry.conference_of_bridge(target_id)
        if owner is not None:
            recent = [u for u in owner.recent_switch_offs if u[0] > now - SWITCH_OFF_MEMORY_MS and u[1] != effect]
            owner.recent_switch_offs = (*recent[1 - MAX_SWITCH_OFFS :], (now, effect))
            self._registry.touched.add(owner.call_uuid if isinstance(owner, Call) else owner.conference_id)

    # Message handlers.

    def _on_sound_document_requested(self, message: SoundDocumentRequested, now: int) -> Outputs:
        call = self._registry.calls[message.call_uuid]
        params = call.standard_params("ConferenceRemoteSounds") + message.params
        return [FetchSoundDocument(message.fetch_id, call.auth_id, message.url, params)]

    def _on_recording_requested(self, message: RecordingRequested, now: int) -> Outputs:
        params = self._registry.calls[message.call_uuid].standard_params("ConferenceRecord")
        self._registry.conferences[message.conference_id].set_recording_params(message.recording_id, params)
        return []

    def _on_call_recording_requested(self, message: CallRecordingRequested, now: int) -> Outputs:
        registry = self._registry
        return self._touch_call(message.call_uuid).on_recording_named(registry.new_id(), registry.public_url, now)

    def _on_attendance_noted(self, message: AttendanceNoted, now: int) -> Outputs:
        call = self._registry.calls[message.call_uuid]
        from_, to = call.from_.removeprefix("+"), call.to.removeprefix("+")
        ids = message.recording_id, message.member_id, message.call_uuid
        return [AddAttendanceNote(*ids, from_, to, message.entered_ms, message.left_ms)]

    def _on_admitted(self, message: Admitted, now: int) -> Outputs:
        return self._touch_call(message.call_uuid).on_admitted(now)

    def _on_join_skipped(self, message: JoinSkipped, now: int) -> Outputs:
        call = self._touch_call(message.call_uuid)
        kind = ProblemKind.CONFERENCE_NOT_JOINED
        return ([call.problem(kind, message.problem)] if message.problem else []) + call.on_join_skipped(now)

    def _on_member_departed(self, message: MemberDeparted, now: int) -> Outputs:
        return [archive.with_numbers(message.member, self._registry.calls.get(message.member.call_uuid))]

    def _on_member_released(self, message: MemberReleased, now: int) -> Outputs:
        return self._touch_call(message.call_uuid).on_member_released(message, now)

    def _on_hangup_requested(self, message: HangupRequested, now: int) -> Outputs:
        return self._touch_call(message.call_uuid).hang_up_by_api(now)

    # Dial.

    def _on_dial_requested(self, message: DialRequested, now: int) -> Outputs:
        call = self._touch_call(message.call_uuid)
        assert call.dial is not None
        return call.on_dial_named(tuple(self._registry.new_id() for _ in call.dial.element.numbers))

    def _on_legs_placed(self, message: LegsPlaced, now: int) -> Outputs:
        first = self._registry.calls[message.call_uuid]
        account = first.account or Account(first.auth_id)
        turns = self._registry.dial_pace.plan(account.auth_id, len(message.legs), now)
        self._registry.dial_pace.take(account.auth_id, len(message.legs), now)
        out: Outputs = []
        rivals = [placed.call_uuid for placed, _ in message.legs]
        for (placed, options), turn in zip(message.legs, turns, strict=True):
            leg = Call.to_place(placed, options, account, now, max(turn, now + placed.delay_ms))
            assert leg.outgoing is not None
            leg.outgoing.first_leg = first.call_uuid
            leg.outgoing.rivals = tuple(uuid for uuid in rivals if uuid != leg.call_uuid)
            out += self._registry.add_placed(leg, now)
        return out

    def _on_leg_changed(self, message: LegChanged, now: int) -> Outputs:
        leg = self._touch_call(message.leg_uuid)
        if message.call_uuid not in self._registry.calls:
            return []
        return self._touch_call(message.call_uuid).on_leg_changed(leg, message.change, now)

    def _on_legs_missed(self, message: LegsMissed, now: int) -> Outputs:
        return self._touch_call(message.call_uuid).on_legs_missed(self._registry.calls.keys(), now)

    def _on_legs_released(self, message: LegsReleased, now: int) -> Outputs:
        out: Outputs = []
        for leg_uuid in message.legs:
            if leg_uuid in self._registry.calls:
                leg = self._touch_call(leg_uuid)
                out += self._touch_call(message.call_uuid).release_leg(leg, message.element, now)
        return out

    def _build_dial_callback(self, message: CallbackRequested, now: int) -> list[Effect]:
        """Return the callback of a Dial element about digits; its conference has no other callbacks."""
        registry, element = self._registry, message.element
        digits = dict(message.params).get("ConferenceDigitsMatch")
        first = registry.calls.get(element.dialed_by)
        leg = registry.calls.get(first.dial.connected) if first is not None and first.dial is not None else None
        if digits is None or first is None or leg is None:
            return []
        return cast("list[Effect]", first.on_dial_digits(leg, digits, message.call_uuid, now))

    def _on_race_won(self, message: RaceWon, now: int) -> Outputs:
        out: Outputs = []
        for call_uuid in message.rivals:
            if call_uuid in self._registry.calls:
                out += self._touch_call(call_uuid).lose_race(now)
        return out

    def _on_dial_music_changed(self, message: DialMusicChanged, now: int) -> Outputs:
        conference = self._registry.conference_named(message.auth_id, message.conference_name)
        if conference is None or conference.dial_music.get(message.call_uuid) == message.music:
            return []
        self._registry.touched.add(conference.conference_id)
        return conference.change_dial_music(message.call_uuid, message.music, now)

    # Commands on a call in a conference.

    def _on_departure_requested(self, message: DepartureRequested, now: int) -> Outputs:
        call, conference = self._touch_both(message.call_uuid)
        return conference.leave(call.channel_id, "transfer", now) if conference is not None else []

    def _on_sound_requested(self, message: SoundRequested, now: int) -> Outputs:
        call, conference = self._touch_both(message.call_uuid)
        if conference is not None and conference.has_ear_of(call.channel_id):
            return conference.play_to(call.channel_id, message.sound, now)
        # The member is leaving: the call plays the sound once the conference has released it.
        return call.play(message.sound, now)

    def _on_sound_stop_requested(self, message: SoundStopRequested, now: int) -> Outputs:
        call, conference = self._touch_both(message.call_uuid)
        kind = SOUND_TYPES[message.kind]
        return conference.stop_playing_to(call.channel_id, kind, now) if conference is not None else []

    def _on_digits_due(self, message: DigitsDue, now: int) -> Outputs:
        call, conference = self._touch_both(message.call_uuid)
        digits = SendDigits(call.channel_id, message.digits)
        return conference.send_digits(digits, now) if conference is not None else [digits]

    def _touch_both(self, call_uuid: str) -> tuple[Call, Conference | None]:
        """Return the call and the conference that it has joined, as parts of the step."""
        call = self._touch_call(call_uuid)
        conference = self._registry.conference_of(call)
        if conference is not None:
            self._registry.touched.add(conference.conference_id)
        return call, conference

    def _touch_call(self, call_uuid: str) -> Call:
        self._registry.touched.add(call_uuid)
        return self._registry.calls[call_uuid]

    def _build_callback(self, message: CallbackRequested, now: int) -> list[Effect]:
        call, element = self._registry.calls[message.call_uuid], message.element
        if element.dialed_by:
            return self._build_dial_callback(message, now)
        params = call.standard_params(message.event) + message.params
        url = element.callback_url or ""
        return [PostCallback(message.conference_id, call.auth_id, url, element.callback_method, params)]

    def _on_join_requested(self, message: JoinRequested, now: int) -> Outputs:
        registry, element = self._registry, message.element
        call = registry.calls[message.call_uuid]
        conference = registry.conference_named(element.directory(call.auth_id), element.name)
        account = call.account or Account(call.auth_id)
        refused = account.refused_members(element.max_members)
        out: Outputs = [call.problem(ProblemKind.DOCUMENT_WARNING, refused)] if refused else []
        # Spec: "A conference that is ending is not live: a caller who arrives then gets a new conference, with a new
        # UUID."
        if conference is None or conference.ending:
            conference = Conference(
                registry.new_id(),
                call.auth_id,
                element.name,
                now,
                # The account's limit is about conferences that it knows, and would leave the second leg outside.
                DIAL_MEMBERS if element.dialed_by else account.allowed_members(element.max_members),
                registry.public_url,
                is_private=bool(element.dialed_by),
            )
            registry.touched.add(conference.conference_id)
            registry.conferences[conference.conference_id] = conference
            registry.conference_by_name[conference.directory, conference.name] = conference.conference_id
            until = registry.watched_until.get(call.auth_id, now)
            conference.watched_until = until if until > now and not conference.is_private else None
            out += conference.claim_name()
        elif conference.is_full or conference.locked:
            # A locked conference behaves like a full one (decided).
            # Spec: "Is the conference full (maxMembers)? Then the server skips the element and its action and runs the
            # next element. It sends no callback."
            return [*out, JoinSkipped(call.call_uuid, None)]
        registry.touched.update((conference.conference_id, call.call_uuid))
        call.conference_id = conference.conference_id
        recording_id = registry.new_id() if element.record else ""
        member_id = registry.next_member_id
        registry.next_member_id += 1
        member = Member.create(
            member_id,
            conference.conference_id,
            call.auth_id,
            call.call_uuid,
            call.channel_id,
            element,
            recording_id,
        )
        member.wideband, member.held_by_phone = call.wideband, call.on_hold
        member.private_playback.queue = call.take_queued_sounds()
        if call.silence:
            call.silence = False
            out.append(SendSilence(call.channel_id, False))
        return out + conference.join(member, now)


MESSAGE_HANDLERS: dict[type, Callable[[Dispatcher, Any, int], Outputs]] = {
    JoinRequested: Dispatcher._on_join_requested,
    Admitted: Dispatcher._on_admitted,
    JoinSkipped: Dispatcher._on_join_skipped,
    MemberReleased: Dispatcher._on_member_released,
    HangupRequested: Dispatcher._on_hangup_requested,
    DialRequested: Dispatcher._on_dial_requested,
    LegsPlaced: Dispatcher._on_legs_placed,
    LegChanged: Dispatcher._on_leg_changed,
    LegsReleased: Dispatcher._on_legs_released,
    LegsMissed: Dispatcher._on_legs_missed,
    RaceWon: Dispatcher._on_race_won,
    DialMusicChanged: Dispatcher._on_dial_music_changed,
    DepartureRequested: Dispatcher._on_departure_requested,
    SoundRequested: Dispatcher._on_sound_requested,
    SoundStopRequested: Dispatcher._on_sound_stop_requested,
    DigitsDue: Dispatcher._on_digits_due,
    SoundDocumentRequested: Dispatcher._on_sound_document_requested,
    RecordingRequested: Dispatcher._on_recording_requested,
    CallRecordingRequested: Dispatcher._on_call_recording_requested,
    AttendanceNoted: Dispatcher._on_attendance_noted,
    MemberDeparted: Dispatcher._on_member_departed,
}
"""Handlers of all messages except CallbackRequested, which `Dispatcher._dispatch` handles."""

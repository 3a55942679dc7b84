"""Message dispatch: within a step, delivers the messages between calls and conferences until only effects remain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast, get_args

from ari_conf.core import archive
from ari_conf.core.account import Account
from ari_conf.core.bounds import MAX_SWITCH_OFFS
from ari_conf.core.calls.call import Call
from ari_conf.core.conferences.conference import Conference
from ari_conf.core.conferences.member import Member
from ari_conf.core.effects import (
    AddAttendanceNote,
    Effect,
    FetchSoundDocument,
    PostCallback,
    SendSilence,
    SwitchOffEffect,
)
from ari_conf.core.hangup_codes import HangupCode
from ari_conf.core.messages import (
    MESSAGE_TYPES,
    Admitted,
    AttendanceNoted,
    CallbackRequested,
    HangupRequested,
    JoinRequested,
    JoinSkipped,
    MemberDeparted,
    MemberReleased,
    Message,
    Outputs,
    RecordingRequested,
    SoundDocumentRequested,
)
from ari_conf.core.problem_kinds import ProblemKind
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
                # The most frequent message: it always becomes exactly one effect.
                effects.append(self._build_callback(item))  # type: ignore[arg-type]
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
        return self._touch_call(message.call_uuid).hang_up("normal", HangupCode.NORMAL, now)

    def _touch_call(self, call_uuid: str) -> Call:
        self._registry.touched.add(call_uuid)
        return self._registry.calls[call_uuid]

    def _build_callback(self, message: CallbackRequested) -> PostCallback:
        call, element = self._registry.calls[message.call_uuid], message.element
        params = call.standard_params(message.event) + message.params
        url = element.callback_url or ""
        return PostCallback(message.conference_id, call.auth_id, url, element.callback_method, params)

    def _on_join_requested(self, message: JoinRequested, now: int) -> Outputs:
        registry, element = self._registry, message.element
        call = registry.calls[message.call_uuid]
        conference = registry.conference_named(call.auth_id, element.name)
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
                account.allowed_members(element.max_members),
                registry.public_url,
            )
            registry.touched.add(conference.conference_id)
            registry.conferences[conference.conference_id] = conference
            registry.conference_by_name[call.auth_id, conference.name] = conference.conference_id
            until = registry.watched_until.get(call.auth_id, now)
            conference.watched_until = until if until > now else None
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
    SoundDocumentRequested: Dispatcher._on_sound_document_requested,
    RecordingRequested: Dispatcher._on_recording_requested,
    AttendanceNoted: Dispatcher._on_attendance_noted,
    MemberDeparted: Dispatcher._on_member_departed,
}
"""Handlers of all messages except CallbackRequested, which `Dispatcher._dispatch` handles."""

"""Message dispatch: within a step, delivers the messages between calls and conferences until only effects remain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast, get_args

from ari_conf.core.account import Account
from ari_conf.core.bounds import MOST_UNDONE
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
from ari_conf.core.messages import (
    MESSAGE_TYPES,
    Admitted,
    AttendanceNoted,
    CallbackRequested,
    HangupRequested,
    JoinRequested,
    JoinSkipped,
    MemberReleased,
    Message,
    Outputs,
    RecordingRequested,
    SoundDocumentRequested,
)
from ari_conf.core.registry import Registry
from ari_conf.core.request_params import NORMAL, standard_params
from ari_conf.core.request_retries import lane_of

SWITCH_OFF_EFFECTS = frozenset(get_args(SwitchOffEffect))
SWITCH_OFF_MEMORY_MS = 30_000
"""Milliseconds after which Asterisk has carried out a switch-off effect, or never will."""


class Dispatcher(Registry):
    __slots__ = ()

    def _resolve(self, out: Outputs, now: int) -> list[Effect]:
        """Deliver messages between calls and conferences, in order, until only effects remain; return the effects.

        A call continues only after every message of the conference has been delivered: the call may rejoin the same
        conference immediately, and what it does then must come after everything that was decided earlier.
        """
        effects = self._resolve_messages(out, now) if out else []
        self._decided = effects
        for effect in effects:
            if type(effect) in SWITCH_OFF_EFFECTS:
                self._remember_switch_off(effect, now)  # type: ignore[arg-type]
        for key in self._touched:
            self._update_indexes(key)
        self._decided = None
        return effects

    def _resolve_messages(self, out: Outputs, now: int) -> list[Effect]:
        for item in out:
            if type(item) in MESSAGE_TYPES:
                break
        else:
            return cast("list[Effect]", out)
        effects: list[Effect] = []
        going_on: list[Message] = []
        self._dispatch(out, effects, going_on, now)
        for waiting in going_on:
            # Delivery may append further messages to `going_on`.
            self._dispatch(MESSAGE_HANDLERS[type(waiting)](self, waiting, now), effects, going_on, now)
        return effects

    def _dispatch(self, out: Outputs, effects: list[Effect], going_on: list[Message], now: int) -> None:
        for item in out:
            kind = type(item)
            if kind not in MESSAGE_TYPES:
                effects.append(item)  # type: ignore[arg-type]
            elif kind is CallbackRequested:
                # The most frequent message: it always becomes exactly one effect.
                effects.append(self._build_callback(item))  # type: ignore[arg-type]
            elif kind is MemberReleased or kind is JoinSkipped:
                going_on.append(item)  # type: ignore[arg-type]
            else:
                self._dispatch(MESSAGE_HANDLERS[kind](self, item, now), effects, going_on, now)

    def _remember_switch_off(self, effect: SwitchOffEffect, now: int) -> None:
        """Remember an effect that switches something off, for a process that takes over.

        The effect leaves no other trace in the state, and after a crash Asterisk may not have carried it out.
        """
        if any(getattr(effect, name, None) for name in ("muted", "deaf", "silence", "silence_ms")):
            return
        where = lane_of(effect)
        call = self.calls.get(self._call_by_channel.get(where, ""))
        owner = call or self.conference_of_bridge(where)
        if owner is not None:
            recent = [u for u in owner.undone if u[0] > now - SWITCH_OFF_MEMORY_MS and u[1] != effect]
            owner.undone = (*recent[1 - MOST_UNDONE :], (now, effect))
            self._touched.add(owner.call_uuid if isinstance(owner, Call) else owner.conference_id)

    # Message handlers.

    def _fetch(self, fetch: SoundDocumentRequested, now: int) -> Outputs:
        call = self.calls[fetch.call_uuid]
        params = standard_params(call, "ConferenceRemoteSounds") + fetch.params
        return [FetchSoundDocument(fetch.fetch_id, call.auth_id, fetch.url, params)]

    def _recording_asked(self, asked: RecordingRequested, now: int) -> Outputs:
        params = standard_params(self.calls[asked.call_uuid], "ConferenceRecord")
        self.conferences[asked.conference_id].recording_params(params)
        return []

    def _stayed(self, stayed: AttendanceNoted, now: int) -> Outputs:
        call = self.calls[stayed.call_uuid]
        numbers = call.from_.removeprefix("+"), call.to.removeprefix("+")
        who = (stayed.recording_id, stayed.member_id, stayed.call_uuid, *numbers)
        return [AddAttendanceNote(*who, stayed.entered_ms, stayed.left_ms)]

    def _admitted(self, admitted: Admitted, now: int) -> Outputs:
        return self._touch_call(admitted.call_uuid).on_admitted(now)

    def _skipped(self, skipped: JoinSkipped, now: int) -> Outputs:
        call = self._touch_call(skipped.call_uuid)
        return ([call.problem(skipped.problem)] if skipped.problem else []) + call.on_join_skipped(now)

    def _released(self, released: MemberReleased, now: int) -> Outputs:
        return self._touch_call(released.call_uuid).on_member_released(released, now)

    def _hang_up(self, wanted: HangupRequested, now: int) -> Outputs:
        return self._touch_call(wanted.call_uuid).hang_up("normal", NORMAL, now)

    def _touch_call(self, call_uuid: str) -> Call:
        self._touched.add(call_uuid)
        return self.calls[call_uuid]

    def _build_callback(self, notify: CallbackRequested) -> PostCallback:
        call, element = self.calls[notify.call_uuid], notify.element
        whole = standard_params(call, notify.event) + notify.params
        url = element.callback_url or ""
        return PostCallback(notify.conference_id, call.auth_id, url, element.callback_method, whole)

    def _on_join_requested(self, join: JoinRequested, now: int) -> Outputs:
        call = self.calls[join.call_uuid]
        conference = self.conferences.get(self._conference_by_name.get((call.auth_id, join.element.name), ""))
        account = call.account or Account(call.auth_id)
        refused = account.refused_members(join.element.max_members)
        out: Outputs = [call.problem(refused)] if refused else []
        # Spec: "A conference that is ending is not live: a caller who arrives then gets a new conference, with a new
        # UUID."
        if conference is None or conference.ending:
            conference = Conference(
                self.new_id(),
                call.auth_id,
                join.element.name,
                now,
                account.most_members(join.element.max_members),
                self.public_url,
            )
            self._touched.add(conference.conference_id)
            self.conferences[conference.conference_id] = conference
            self._conference_by_name[call.auth_id, conference.name] = conference.conference_id
            until = self._watched_until.get(call.auth_id, now)
            conference.watched_until = until if until > now else None
            out += conference.claim_name()
        elif conference.is_full or conference.locked:
            # A locked conference behaves like a full one (decided).
            # Spec: "Is the conference full (maxMembers)? Then the server skips the element and its action and runs the
            # next element. It sends no callback."
            return [*out, JoinSkipped(call.call_uuid, None)]
        self._touched.update((conference.conference_id, call.call_uuid))
        call.conference_id = conference.conference_id
        recording_id = self.new_id() if join.element.record else ""
        member_id = self.next_member_id
        self.next_member_id += 1
        member = Member.create(
            member_id,
            conference.conference_id,
            call.auth_id,
            call.call_uuid,
            call.channel_id,
            join.element,
            recording_id,
        )
        member.wideband, member.on_hold = call.wideband, call.on_hold
        if call.silence:
            call.silence = False
            out.append(SendSilence(call.channel_id, False))
        return out + conference.join(member, now)


MESSAGE_HANDLERS: dict[type, Callable[[Dispatcher, Any, int], Outputs]] = {
    JoinRequested: Dispatcher._on_join_requested,
    Admitted: Dispatcher._admitted,
    JoinSkipped: Dispatcher._skipped,
    MemberReleased: Dispatcher._released,
    HangupRequested: Dispatcher._hang_up,
    SoundDocumentRequested: Dispatcher._fetch,
    RecordingRequested: Dispatcher._recording_asked,
    AttendanceNoted: Dispatcher._stayed,
}
"""Handlers of all messages except CallbackRequested, which `Dispatcher._dispatch` handles."""

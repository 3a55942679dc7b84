"""Restoration: brings the state that another process has persisted into the engine, and ends what is not valid.

A call or conference is ended if it violates an invariant, or if it and its counterpart do not refer to each other.
Later events therefore never meet invalid state.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from ari_conf.core.calls.call import Call
from ari_conf.core.calls.call_state import CallState
from ari_conf.core.calls.outgoing import Outgoing
from ari_conf.core.conferences.conference import Conference
from ari_conf.core.conferences.conference_state import BridgeState, ClaimState
from ari_conf.core.conferences.member import Member
from ari_conf.core.effects import Effect, ReportProblem
from ari_conf.core.elements import Conference as Element
from ari_conf.core.engine import Engine
from ari_conf.core.invariants import call_violations, conference_violations
from ari_conf.core.problem_kinds import ProblemKind

INVALID_STATE = "the stored state of the call is not valid ({}): the call was ended"
UNREADABLE = "it could not be read"


class Restoration:
    """Restoration of an engine that has handled no event yet: `add` any number of batches, then `finish`."""

    def __init__(self, engine: Engine) -> None:
        self._registry = engine.registry
        self._abort_handler = engine.abort_handler
        self._violations: dict[str, str] = {}
        """Calls and conferences that are not valid in themselves: id -> reason."""
        self._invalid_calls: dict[str, str] = {}
        """Calls that are to be ended: call UUID -> reason."""
        self._without_channel: set[str] = set()
        """Calls that lose their channel, because another call has the same one."""

    def add(self, calls: Sequence[Call], conferences: Sequence[Conference], next_member_id: int) -> None:
        """Take in a batch. Deadlines that have passed in the meantime are due immediately."""
        registry = self._registry
        registry.next_member_id = max(registry.next_member_id, next_member_id)
        for call in calls:
            registry.calls[call.call_uuid] = call
            registry.call_by_channel[call.channel_id] = call.call_uuid
            if call.outgoing is not None and call.outgoing.machine is not None:
                call.outgoing.machine.interrupt()
            registry.deadlines.set(call.call_uuid, call.deadline)
            if call.outgoing is not None and call.state is CallState.QUEUED:
                registry.dial_pace.restore(call.auth_id, call.outgoing.dial_at)
            self._check(call.call_uuid, call_violations(call))
        for conference in conferences:
            conference.step_ended()
            registry.conferences[conference.conference_id] = conference
            registry.index_name(conference)
            registry.deadlines.set(conference.conference_id, conference.deadline)
            self._check(conference.conference_id, conference_violations(conference))

    def add_unreadable(self, calls: Sequence[Call], conferences: Sequence[Conference]) -> None:
        """Take in what is known of calls and conferences that can't be read; `finish` ends them."""
        highest = max((id for conference in conferences for id in conference.members), default=0)
        self.add(calls, conferences, highest + 1)
        self._violations |= dict.fromkeys((c.call_uuid for c in calls), UNREADABLE)
        self._violations |= dict.fromkeys((c.conference_id for c in conferences), UNREADABLE)

    def _check(self, owner_id: str, violations: Iterator[str]) -> None:
        try:
            violation = next(violations, None)
        except Exception:
            violation = "it could not be checked"
        if violation is not None:
            self._violations[owner_id] = violation

    def finish(self, now: int) -> list[Effect]:
        """End what is not valid, and return the effects; called after the last batch and before any event."""
        registry = self._registry
        self._find_invalid_calls()
        self._resolve_shared_channels()
        registry.call_by_channel = {
            c.channel_id: key for key, c in registry.calls.items() if key not in self._without_channel
        }
        self._forget_lost_dialing()
        self._recreate_missing_calls(now)
        effects = self._end_invalid_conferences(now)
        effects += self._end_invalid_calls(now)
        effects += self._end_memberships_without_call(now)
        effects += self._forget_lost_legs(now)
        effects += self._report_shared_names()
        self._abort_handler.update_indexes()
        return effects + self._abort_handler.archive_ended(now)

    # What is not valid.

    def _find_invalid_calls(self) -> None:
        violations, found = self._violations, self._invalid_calls
        for key, call in self._registry.calls.items():
            if key in violations:
                found[key] = violations[key]
            elif call.conference_id in violations:
                found[key] = f"its conference: {violations[call.conference_id]}"
            elif call.conference_id is not None and self._registry.member_of(call) is None:
                found[key] = "its conference is missing, or does not list it"
            elif call.outgoing is not None and call.outgoing.first_leg and not self._has_first_leg(key, call.outgoing):
                found[key] = "the call whose Dial has placed it is missing, or does not list it"

    def _has_first_leg(self, call_uuid: str, outgoing: Outgoing) -> bool:
        first = self._registry.calls.get(outgoing.first_leg)
        return first is not None and first.dial is not None and call_uuid in first.dial.legs

    def _resolve_shared_channels(self) -> None:
        """Of several calls with the same channel, the one that fits best keeps it; the others are not valid."""
        calls_by_channel: dict[str, list[Call]] = {}
        for call in self._registry.calls.values():
            calls_by_channel.setdefault(call.channel_id, []).append(call)
        for calls in calls_by_channel.values():
            if len(calls) > 1:
                best = max(calls, key=self._plausibility)
                for call in calls:
                    if call is not best:
                        self._invalid_calls.setdefault(call.call_uuid, "another call has its channel")
                        self._without_channel.add(call.call_uuid)

    def _plausibility(self, call: Call) -> tuple[bool, bool, str]:
        valid = call.call_uuid not in self._invalid_calls
        return valid, self._registry.member_of(call) is not None, call.call_uuid

    def _forget_lost_dialing(self) -> None:
        """Forget the dial music of calls that can't be read: nothing would ever end it."""
        for conference in self._registry.conferences.values():
            lost = [call_uuid for call_uuid in conference.dial_music if call_uuid not in self._registry.calls]
            for call_uuid in lost:
                del conference.dial_music[call_uuid]

    def _forget_lost_legs(self, now: int) -> list[Effect]:
        """Let those who wait for a call that their Dial has placed, and that does not exist any more, go on."""
        calls, effects = self._registry.calls, list[Effect]()
        for call in [call for call in calls.values() if call.dial is not None and call.dial.is_admitted]:
            lost = [leg for leg in call.dial.legs if leg not in calls] if call.dial is not None else []
            for leg in lost:
                self._registry.touched.add(call.call_uuid)
                effects += self._abort_handler.deliver_separately(call.on_leg_lost(leg, now), now)
        return effects

    # Recreating what can't be read, so that it can be ended.

    def _recreate_missing_calls(self, now: int) -> None:
        """Recreate calls that can't be read from their members, which know the channels to hang up."""
        for conference in self._registry.conferences.values():
            for member in conference.members.values():
                if member.call_uuid not in self._registry.calls:
                    self._invalid_calls[member.call_uuid] = "its record is missing"
                    call = self._recreate_call(member.call_uuid, member, now)
                    call.running, call.conference_id = member.element, conference.conference_id
                    if self._registry.call_by_channel[call.channel_id] != call.call_uuid:
                        self._without_channel.add(call.call_uuid)

    def _recreate_call(self, call_uuid: str, member: Member, now: int) -> Call:
        call = Call(call_uuid, "", member.channel_id, member.auth_id, "", "", "", "inbound", now)
        self._registry.calls[call_uuid] = call
        self._registry.call_by_channel.setdefault(call.channel_id, call_uuid)
        return call

    def _recreate_conference(self, call: Call, now: int) -> Conference | None:
        """Recreate the call's conference if it can't be read, because nothing else would free its name and bridge.

        Its members' calls know both. The list of its members and its recording are lost.
        """
        key, element = call.conference_id, call.running
        if not key or key in self._registry or not isinstance(element, Element):
            return None
        url, is_private = self._registry.public_url, bool(element.dialed_by)
        conference = Conference(key, call.auth_id, element.name, now, 1, url, is_private=is_private)
        conference.claim, conference.bridge = ClaimState.GRANTED, BridgeState.READY
        self._registry.conferences[key] = conference
        return conference

    # Ending.

    def _end_invalid_conferences(self, now: int) -> list[Effect]:
        conferences = self._registry.conferences
        invalid = [conferences[key] for key in self._violations if key in conferences]
        return [effect for c in invalid for effect in self._abort_handler.end_conference(c, now)]

    def _end_invalid_calls(self, now: int) -> list[Effect]:
        effects: list[Effect] = []
        for key, reason in self._invalid_calls.items():
            # Whatever the record says, the call is to be ended: it has an end only if it has no channel.
            ended_at = now if key in self._without_channel else None
            call = msgspec.structs.replace(self._registry.calls[key], state=CallState.IDENTIFYING, ended_at=ended_at)
            self._registry.calls[key] = call
            if (conference := self._recreate_conference(call, now)) is not None:
                effects += self._abort_handler.end_conference(conference, now)
            effects += self._abort_handler.end_call(call, INVALID_STATE.format(reason), now)
        return effects

    def _end_memberships_without_call(self, now: int) -> list[Effect]:
        """Remove members that their call does not refer to, and hang up their channels if no call has them."""
        registry, effects = self._registry, list[Effect]()
        for conference in tuple(registry.conferences.values()):
            for member in tuple(conference.members.values()):
                if registry.member_of(registry.calls[member.call_uuid]) is not member:
                    effects += self._abort_handler.end_membership(conference, member, now)
                    if member.channel_id not in registry.call_by_channel:
                        call = self._recreate_call(registry.new_id(), member, now)
                        effects += self._abort_handler.end_call(call, INVALID_STATE.format("its channel"), now)
        return effects

    def _report_shared_names(self) -> list[Effect]:
        """Report conferences that share a name: both continue, and new callers and the API reach the newer one."""
        registry = self._registry
        registry.conference_by_name.clear()
        for conference in registry.conferences.values():
            registry.index_name(conference)
        effects: list[Effect] = []
        for conference in registry.conferences.values():
            if not conference.ending and not registry.has_name(conference):
                text = (
                    f"two conferences are named {conference.name!r} after a failure: new callers and API requests go "
                    "to the newer one; callers in the two conferences can't hear each other"
                )
                effects.append(ReportProblem(conference.auth_id, "", ProblemKind.CONFERENCE_SPLIT, None, text))
        return effects

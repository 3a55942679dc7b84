"""Abort handling: completely ends calls and conferences that can't continue, and no others.

There are two uses: after a failed step, and for restored state that does not fit together. Channels are hung up, exit
and hangup callbacks are sent, a recording is handed over, the bridge is destroyed, the name is released, and a problem
says why. Whatever the damaged state does not allow is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ari_conf.core import archive, ids
from ari_conf.core import events as ev
from ari_conf.core.calls.call import Call
from ari_conf.core.conferences.conference import Conference, tried
from ari_conf.core.conferences.conference_state import ClaimState
from ari_conf.core.conferences.member import Member
from ari_conf.core.dispatcher import SWITCH_OFF_EFFECTS, Dispatcher
from ari_conf.core.effects import ClaimName, CommandReply, DestroyBridge, Effect, HangUp, ReleaseName, Target
from ari_conf.core.messages import HangupRequested, JoinSkipped, MemberReleased, Message
from ari_conf.core.registry import Registry
from ari_conf.core.step_failed import StepFailed

INTERNAL_ERROR = "the call was ended by an internal error in ari_conf: please report it, including what the log says"
MESSAGES_TO_CALLS = HangupRequested, MemberReleased, JoinSkipped


class AbortHandler:
    """Ends calls and conferences. `update_indexes` completes a series of `end_…`."""

    __slots__ = ("_dispatcher", "_registry", "aborted")

    def __init__(self, registry: Registry, dispatcher: Dispatcher) -> None:
        self._registry = registry
        self._dispatcher = dispatcher
        self.aborted: set[str] = set()
        """Ids of the calls and conferences that were ended here, at least as long as the registry has them."""

    def abort_failed_step(self, failure: StepFailed, now: int) -> list[Effect]:
        """End what the failed step touched, and complete what it decided."""
        registry = self._registry
        registry.touched = registry.touched or self._owners_of(failure.event)
        effects = [*failure.effects_before]
        if failure.decided is not None:
            effects += failure.decided
            self._complete_step()
        else:
            effects += self._replies_to(failure.event)
        return effects + self.abort((), now, failure.event)

    def abort(self, owner_ids: Iterable[str], now: int, event: ev.Event | None = None) -> list[Effect]:
        """End these calls and conferences, and those that the last step touched; `event` is the one that it handled."""
        registry = self._registry
        self.aborted = {owner_id for owner_id in self.aborted if owner_id in registry}
        registry.touched |= {owner_id for owner_id in owner_ids if owner_id in registry}
        touched = set(registry.touched)
        conferences = [c for key in sorted(touched) if (c := registry.conferences.get(key)) is not None]
        members = {member.call_uuid for c in conferences for member in c.members.values()}
        ended = {c.conference_id for c in conferences}
        calls = [c for key, c in registry.calls.items() if key in touched | members or c.conference_id in ended]
        effects: list[Effect] = []
        for conference in conferences:
            effects += self.end_conference(conference, now)
            if event is not None and conference.claim is ClaimState.REQUESTED and _is_claim_result(event):
                # A claim gets only one result, and the failed step has consumed it.
                out = tried(lambda: conference.handle_event(event, now))  # noqa: B023 -- done before the next one
                effects += self.deliver_separately(out, now)
        for call in calls:
            effects += self.end_call(call, INTERNAL_ERROR, now)
        self.update_indexes()
        return effects + self.archive_ended(now)

    def _owners_of(self, event: ev.Event | None) -> set[str]:
        """Return the ids of the event's call and conference, for a step that failed before it touched them."""
        subject = event.effect if isinstance(event, ev.EffectFailed) else event
        found = [getattr(subject, name, "") for name in ("call_uuid", "conference_id")]
        found.append(self._registry.call_by_channel.get(getattr(subject, "channel_id", ""), ""))
        owned = [
            ids.parse(getattr(subject, name, "")) for name in ("playback_id", "fetch_id", "bridge_id", "source_id")
        ]
        found += [owned_id.owner for owned_id in owned if owned_id is not None]
        return {owner_id for owner_id in found if owner_id in self._registry}

    def _complete_step(self) -> None:
        """Complete a step whose effects were all decided: only the update of the indexes failed."""
        registry = self._registry
        for owner_id in registry.touched & registry.conferences.keys():
            registry.conferences[owner_id].step_ended()
        for owner_id in registry.touched & registry.calls.keys():
            registry.calls[owner_id].step_reports = []
        for call in [call for call in registry.calls.values() if call.is_finished]:
            registry.touched.add(call.call_uuid)
            registry.remove_call(call)

    def _replies_to(self, event: ev.Event | None) -> list[Effect]:
        """Return the error reply to a failed command, or the hangup of a channel whose call was not created."""
        match event:
            case ev.CommandReceived(command_id):
                error = "the command failed with an internal error in ari_conf: please report it"
                return [CommandReply(command_id, 500, (("error", error),))]
            case ev.CallArrived(channel_id) if channel_id not in self._registry.call_by_channel:
                return [HangUp(channel_id)]
        return []

    # Ending a single call or conference.

    def end_conference(self, conference: Conference, now: int) -> list[Effect]:
        """End the conference, but not the calls of its members."""
        key = conference.conference_id
        self._registry.touched.add(key)
        if key in self.aborted:
            # An earlier attempt to end the conference failed.
            self._registry.remove_conference(conference)
            return [ReleaseName(conference.auth_id, conference.name, key), DestroyBridge(conference.bridge_id)]
        self.aborted.add(key)
        self._registry.unindex_name(conference)
        return self.deliver_separately(conference.give_up(now), now)

    def end_call(self, call: Call, why: str, now: int) -> list[Effect]:
        """End the call and remove it from its conference, which continues."""
        key, conference = call.call_uuid, self._registry.conference_of(call)
        self._registry.touched.add(key)
        out = tried(lambda: call.give_up(why, now)) if key not in self.aborted else []
        self.aborted.add(key)
        effects = self.deliver_separately(out, now)
        if not out:
            # This attempt to end the call failed, or an earlier one did.
            self._registry.remove_call(call)
            effects = [HangUp(call.channel_id)]
        member = conference.member_of(call.channel_id) if conference is not None else None
        if conference is not None and member is not None and member.call_uuid == key:
            effects += self.end_membership(conference, member, now)
        return effects

    def end_membership(self, conference: Conference, member: Member, now: int) -> list[Effect]:
        """Remove the member as if they had hung up; if their call is not in this conference, it gets no message."""
        registry = self._registry
        registry.touched.add(conference.conference_id)
        try:
            out = conference.leave(member.channel_id, "hangup", now)
        except Exception:
            calls = [registry.calls[m.call_uuid] for m in conference.members.values() if m.call_uuid in registry.calls]
            effects = self.end_conference(conference, now)
            return effects + [effect for call in calls for effect in self.end_call(call, INTERNAL_ERROR, now)]
        return self.deliver_separately(
            [item for item in out if not self._concerns_another_call(item, conference, member)], now
        )

    def _concerns_another_call(self, item: Effect | Message, conference: Conference, member: Member) -> bool:
        """Return whether the item would reach a call or channel that is not really this member's."""
        if isinstance(item, MESSAGES_TO_CALLS) and item.call_uuid == member.call_uuid:
            call = self._registry.calls.get(member.call_uuid)
            return (
                call is None
                or call.is_finished
                or not (call.is_ending or call.conference_id == conference.conference_id)
            )
        target = getattr(item, "target", None)
        channel_id = target.id if isinstance(target, Target) else getattr(item, "channel_id", None)
        owner = self._registry.call_by_channel.get(member.channel_id)
        return channel_id == member.channel_id and owner != member.call_uuid

    def deliver_separately(self, out: Sequence[Effect | Message], now: int) -> list[Effect]:
        """Deliver the items one at a time and return the effects; an item whose delivery raises is dropped."""
        effects: list[Effect] = []
        for item in out:
            effects += tried(lambda: self._dispatcher.resolve_messages([item], now))  # noqa: B023 -- done before the next one
        for effect in effects:
            if type(effect) in SWITCH_OFF_EFFECTS:
                self._dispatcher.remember_switch_off(effect, now)  # type: ignore[arg-type]
        return effects

    def archive_ended(self, now: int) -> list[Effect]:
        """Return what the history keeps of the calls and conferences that have ended; what raises is left out."""
        ended, self._registry.ended = self._registry.ended, []
        effects: list[Effect] = []
        for one in ended:
            effects += tried(lambda: archive.of_ended([one], now))  # noqa: B023 -- done before the next one
        return effects

    def update_indexes(self) -> None:
        """Update the indexes of all that was touched; an object that does not allow it gets no deadline."""
        for owner_id in tuple(self._registry.touched):
            try:
                self._registry.update_indexes(owner_id)
            except Exception:
                self._registry.deadlines.set(owner_id, None)


def _is_claim_result(event: ev.Event) -> bool:
    claim = isinstance(event, ev.EffectFailed) and isinstance(event.effect, ClaimName)
    return claim or isinstance(event, ev.NameClaimed | ev.NameTaken)

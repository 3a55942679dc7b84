"""Abort handling: completely ends calls and conferences that can't continue, and no others.

There are two uses: after a failed step, and for restored state that does not fit together. Channels are hung up, exit
and hangup callbacks are sent, a recording is handed over, the bridge is destroyed, the name is released, and a problem
says why. Whatever the damaged state does not allow is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ari_conf.core import events as ev
from ari_conf.core import ids
from ari_conf.core.calls.call import Call
from ari_conf.core.conferences.conference import Conference, tried
from ari_conf.core.conferences.member import Member
from ari_conf.core.dispatcher import SWITCH_OFF_EFFECTS, Dispatcher
from ari_conf.core.effects import (
    ClaimName,
    CommandReply,
    DestroyBridge,
    Effect,
    HangUp,
    ReleaseName,
    ReportProblem,
    Target,
)
from ari_conf.core.elements import Conference as Element
from ari_conf.core.invariants import of_call, of_conference
from ari_conf.core.messages import HangupRequested, JoinSkipped, MemberReleased, Message

BROKEN = "the call was ended by an internal error in ari_conf: please report it, including what the log says"
DOES_NOT_FIT = "the stored state of the call is not valid ({}): the call was ended"
UNREADABLE = "it could not be read"
ABOUT_A_CALL = (HangupRequested, MemberReleased, JoinSkipped)


class AbortHandling(Dispatcher):
    __slots__ = ()

    def abort_failed_step(self, event: ev.Event, now: int, keys: Iterable[str] = ()) -> list[Effect]:
        """Clean up after `handle_event` or `replay` raised, which is a bug.

        The calls and conferences that the step touched, and those in `keys`, are in an inconsistent state. They are
        ended, so that no caller is left in a call that no longer responds. All others continue.
        """
        self._touched = self._touched or self._about(event)
        self._touched |= {key for key in keys if key in self.calls or key in self.conferences}
        broken, effects, self._effects_before_failure = set(self._touched), self._effects_before_failure, []
        conferences = [c for key in sorted(broken) if (c := self.conferences.get(key)) is not None]
        if self._decided is not None:
            effects, self._decided = effects + self._decided, None
            self._have_done(conferences)
        else:
            effects += self._turned_away(event)
        members = {member.call_uuid for c in conferences for member in c.members.values()}
        rooms = {c.conference_id for c in conferences}
        calls = [c for key, c in self.calls.items() if key in broken | members or c.conference_id in rooms]
        for conference in conferences:
            effects += self._end_conference(conference, now)
            if conference.claim == "asked" and _is_answer(event):
                # A claim gets only one result, and the failed step has consumed it.
                effects += self._each(tried(lambda: conference.handle_event(event, now)), now)  # noqa: B023
        for call in calls:
            effects += self._end_call(call, BROKEN, now)
        self._bookkeep_all()
        return effects

    def _about(self, event: ev.Event) -> set[str]:
        """Return the ids of the event's call and conference, for a step that failed before it touched them."""
        told = event.effect if isinstance(event, ev.EffectFailed) else event
        keys = [getattr(told, name, "") for name in ("call_uuid", "conference_id")]
        keys.append(self._call_by_channel.get(getattr(told, "channel_id", ""), ""))
        owned = [ids.parse(getattr(told, name, "")) for name in ("playback_id", "fetch_id", "bridge_id")]
        keys += [one.owner for one in owned if one is not None]
        return {key for key in keys if key in self.calls or key in self.conferences}

    def _have_done(self, conferences: list[Conference]) -> None:
        """Complete a step whose effects were all decided: only the update of the indexes failed."""
        for conference in conferences:
            conference.step_ended()
        for call in [call for call in self.calls.values() if call.is_finished]:
            self._touched.add(call.call_uuid)
            self._forget_call(call)

    def _turned_away(self, event: ev.Event) -> list[Effect]:
        """Return the error reply to a failed command, or the hangup of a channel whose call was not created."""
        match event:
            case ev.CommandReceived(command_id):
                return [
                    CommandReply(
                        command_id,
                        500,
                        (("error", "the command failed with an internal error in ari_conf: please report it"),),
                    )
                ]
            case ev.CallArrived(channel_id) if channel_id not in self._call_by_channel:
                return [HangUp(channel_id)]
        return []

    # Ending a single call or conference.

    def _end_conference(self, conference: Conference, now: int) -> list[Effect]:
        """End the conference, but not the calls of its members."""
        key = conference.conference_id
        self._touched.add(key)
        if key in self._given_up:
            # An earlier attempt to end the conference failed.
            self._forget_conference(conference)
            name = ReleaseName(conference.auth_id, conference.name, key)
            return [name, DestroyBridge(conference.bridge_id)]
        self._given_up.add(key)
        self._unindex_name(conference)
        return self._each(conference.give_up(now), now)

    def _end_call(self, call: Call, why: str, now: int) -> list[Effect]:
        """End the call and remove it from its conference, which continues."""
        key, conference = call.call_uuid, self._conference_of(call)
        self._touched.add(key)
        out = tried(lambda: call.give_up(why, now)) if key not in self._given_up else []
        self._given_up.add(key)
        effects = self._each(out, now)
        if not out:
            # This attempt to end the call failed, or an earlier one did.
            self._forget_call(call)
            effects = [HangUp(call.channel_id)]
        member = conference.member_of(call.channel_id) if conference is not None else None
        if conference is not None and member is not None and member.call_uuid == key:
            effects += self._let_go(conference, member, now)
        return effects

    def _let_go(self, conference: Conference, member: Member, now: int) -> list[Effect]:
        """Remove the member as if they had hung up; if their call is not in this conference, it gets no message."""
        self._touched.add(conference.conference_id)
        try:
            out = conference.leave(member.channel_id, "hangup", now)
        except Exception:
            theirs = [self.calls[m.call_uuid] for m in conference.members.values() if m.call_uuid in self.calls]
            effects = self._end_conference(conference, now)
            return effects + [e for call in theirs for e in self._end_call(call, BROKEN, now)]
        return self._each([item for item in out if not self._is_anothers(item, conference, member)], now)

    def _is_anothers(self, item: Effect | Message, conference: Conference, member: Member) -> bool:
        """Return whether the item would reach a call or channel that is not really this member's."""
        if isinstance(item, ABOUT_A_CALL) and item.call_uuid == member.call_uuid:
            call = self.calls.get(member.call_uuid)
            return (
                call is None
                or call.is_finished
                or not (call.is_ending or call.conference_id == conference.conference_id)
            )
        target = getattr(item, "target", None)
        channel_id = target.id if isinstance(target, Target) else getattr(item, "channel_id", None)
        return channel_id == member.channel_id and self._call_by_channel.get(member.channel_id) != member.call_uuid

    def _each(self, out: Sequence[Effect | Message], now: int) -> list[Effect]:
        """Deliver the items one at a time and return the effects; an item whose delivery raises is dropped."""
        effects: list[Effect] = []
        for item in out:
            effects += tried(lambda: self._resolve_messages([item], now))  # noqa: B023 -- done before the next one
        for effect in effects:
            if type(effect) in SWITCH_OFF_EFFECTS:
                self._remember_switch_off(effect, now)  # type: ignore[arg-type]
        return effects

    def _bookkeep_all(self) -> None:
        for key in tuple(self._touched):
            try:
                self._update_indexes(key)
            except Exception:
                self._await(key, None)

    # Restored state.

    def restore(self, calls: list[Call], conferences: list[Conference], next_member_id: int) -> None:
        """Take in the state that another process has persisted, or one batch of it.

        `restored` must be called after the last batch. Deadlines that have passed in the meantime are due immediately.
        """
        self.next_member_id = max(self.next_member_id, next_member_id)
        for call in calls:
            self.calls[call.call_uuid] = call
            self._call_by_channel[call.channel_id] = call.call_uuid
            self._await(call.call_uuid, call.deadline)
            self._look_at(call.call_uuid, of_call(call))
        for conference in conferences:
            conference.step_ended()
            self.conferences[conference.conference_id] = conference
            self._take_name(conference)
            self._await(conference.conference_id, conference.deadline)
            self._look_at(conference.conference_id, of_conference(conference))

    def restore_unreadable(self, calls: list[Call], conferences: list[Conference]) -> None:
        """Take in what is known of calls and conferences that can't be read; `restored` ends them."""
        highest = max((id for conference in conferences for id in conference.members), default=0)
        self.restore(calls, conferences, highest + 1)
        self._odd |= dict.fromkeys((c.call_uuid for c in calls), UNREADABLE)
        self._odd |= dict.fromkeys((c.conference_id for c in conferences), UNREADABLE)

    def _look_at(self, key: str, reasons: Iterator[str]) -> None:
        try:
            why = next(reasons, None)
        except Exception:
            why = "it could not be checked"
        if why is not None:
            self._odd[key] = why

    def restored(self, now: int) -> list[Effect]:
        """Check the restored state and end what is not valid; called after the last batch and before any event.

        A call or conference is ended if it violates an invariant, or if it and its counterpart do not refer to each
        other. Later events therefore never meet invalid state.
        """
        effects: list[Effect] = []
        odd, self._odd = self._odd, {}
        doubtful = self._doubtful(odd)
        without = self._without_channel(doubtful)
        self._call_by_channel = {c.channel_id: key for key, c in self.calls.items() if key not in without}
        for conference in self.conferences.values():
            for member in conference.members.values():
                if member.call_uuid not in self.calls:
                    doubtful[member.call_uuid] = "its record is missing"
                    self._find_call(conference, member, without, now)
        for conference in [self.conferences[key] for key in odd if key in self.conferences]:
            effects += self._end_conference(conference, now)
        for key, why in doubtful.items():
            call = self.calls[key]
            call.ended_at = now if key in without else None
            effects += self._missing_conference(call, now)
            effects += self._end_call(call, DOES_NOT_FIT.format(why), now)
        for conference in tuple(self.conferences.values()):
            for member in tuple(conference.members.values()):
                if self._member(self.calls[member.call_uuid]) is not member:
                    effects += self._let_go(conference, member, now)
                    if member.channel_id not in self._call_by_channel:
                        stray = self._call_of(self.new_id(), member, now)
                        effects += self._end_call(stray, DOES_NOT_FIT.format("its channel"), now)
        effects += self._two_of_one_name()
        self._bookkeep_all()
        return effects

    def _doubtful(self, odd: dict[str, str]) -> dict[str, str]:
        """Return the calls that are not valid: call UUID -> reason."""
        found: dict[str, str] = {}
        for key, call in self.calls.items():
            if key in odd:
                found[key] = odd[key]
            elif call.conference_id in odd:
                found[key] = f"its conference: {odd[call.conference_id]}"
            elif call.conference_id is not None and self._member(call) is None:
                found[key] = "its conference is missing, or does not list it"
        return found

    def _member(self, call: Call) -> Member | None:
        """Return the call's member in its conference, or None if call and member do not refer to each other."""
        conference = self._conference_of(call)
        member = conference.member_of(call.channel_id) if conference is not None else None
        same = member is not None and (member.call_uuid, member.auth_id) == (call.call_uuid, call.auth_id)
        return member if same else None

    def _without_channel(self, doubtful: dict[str, str]) -> set[str]:
        """Return the calls that lose their channel because several calls have the same one.

        The call that fits best keeps the channel; the others are added to `doubtful`.
        """
        holders: dict[str, list[Call]] = {}
        for call in self.calls.values():
            holders.setdefault(call.channel_id, []).append(call)
        without: set[str] = set()
        for calls in holders.values():
            if len(calls) > 1:
                best = max(calls, key=lambda c: (c.call_uuid not in doubtful, self._member(c) is not None, c.call_uuid))
                for call in calls:
                    if call is not best:
                        doubtful.setdefault(call.call_uuid, "another call has its channel")
                        without.add(call.call_uuid)
        return without

    def _find_call(self, conference: Conference, member: Member, without: set[str], now: int) -> None:
        """Recreate a call that can't be read from its member, which knows the channel to hang up."""
        call = self._call_of(member.call_uuid, member, now)
        call.running, call.conference_id = member.element, conference.conference_id
        if self._call_by_channel[call.channel_id] != call.call_uuid:
            without.add(call.call_uuid)

    def _call_of(self, call_uuid: str, member: Member, now: int) -> Call:
        call = Call(call_uuid, "", member.channel_id, member.auth_id, "", "", "", "inbound", now)
        self.calls[call_uuid] = call
        self._call_by_channel.setdefault(call.channel_id, call_uuid)
        return call

    def _missing_conference(self, call: Call, now: int) -> list[Effect]:
        """Recreate and end a conference that can't be read, because nothing else would free its name and bridge.

        Its members' calls know both. The list of its members and its recording are lost.
        """
        key, element = call.conference_id, call.running
        if not key or key in self.conferences or key in self.calls or not isinstance(element, Element):
            return []
        conference = Conference(key, call.auth_id, element.name, now, 1, self.public_url)
        conference.claim, conference.bridge = "held", "ready"
        self.conferences[key] = conference
        return self._end_conference(conference, now)

    def _two_of_one_name(self) -> list[Effect]:
        """Report conferences that share a name: both continue, and new callers and the API reach the newer one."""
        self._conference_by_name.clear()
        for conference in self.conferences.values():
            self._take_name(conference)
        effects: list[Effect] = []
        for conference in self.conferences.values():
            name = conference.auth_id, conference.name
            if not conference.ending and self._conference_by_name[name] != conference.conference_id:
                text = (
                    f"two conferences are named {conference.name!r} after a failure: new callers and API requests go "
                    "to the newer one; callers in the two conferences can't hear each other"
                )
                effects.append(ReportProblem(conference.auth_id, "", None, text))
        return effects


def _is_answer(event: ev.Event) -> bool:
    """Return whether the event is the result of a name claim."""
    claim = isinstance(event, ev.EffectFailed) and isinstance(event.effect, ClaimName)
    return claim or isinstance(event, ev.NameClaimed | ev.NameTaken)

"""What can't go on is ended completely, and nobody else with it: after a step that broke, and where what was read back
does not fit together.

Completely: channels are hung up, exit callbacks and hangup URLs are told, a recording is handed over, the bridge is
destroyed, the name is free, and a problem says why. What can't be told, since the state is as it is, is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ari_conf.core import events as ev
from ari_conf.core import ids
from ari_conf.core.call import Call
from ari_conf.core.conference import Conference, tried
from ari_conf.core.effects import ClaimName, DestroyBridge, Effect, HangUp, ReleaseName, Reply, ReportProblem, Target
from ari_conf.core.elements import Conference as Element
from ari_conf.core.integrity import of_call, of_conference
from ari_conf.core.internal import HangUpCall, Internal, Released, Skipped
from ari_conf.core.member import Member
from ari_conf.core.telling import UNDOING, Telling

BROKEN = "the call has met a defect of ari_conf and is ended: please report it, with what the log says"
DOES_NOT_FIT = "what was stored of the call can't be used ({}): it is ended"
UNREADABLE = "it can't be read"
ABOUT_A_CALL = (HangUpCall, Released, Skipped)


class GivingUp(Telling):
    __slots__ = ()

    def give_up(self, event: ev.Event, now: int, keys: Iterable[str] = ()) -> list[Effect]:
        """After `receive` or `resume` raised, which is a defect: those whom the step concerned, and `keys`, are half
        changed. They are ended, so that nobody stays on the phone with what does not answer any more; all others go on.
        """
        self._touched = self._touched or self._about(event)
        self._touched |= {key for key in keys if key in self.calls or key in self.conferences}
        broken, effects, self._whole = set(self._touched), self._whole, []
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
                # No other will come.
                effects += self._each(tried(lambda: conference.receive(event, now)), now)  # noqa: B023
        for call in calls:
            effects += self._end_call(call, BROKEN, now)
        self._bookkeep_all()
        return effects

    def _about(self, event: ev.Event) -> set[str]:
        """Whom the event was for, if the step broke before it came to them: they wait for it."""
        told = event.effect if isinstance(event, ev.EffectFailed) else event
        owned_id = getattr(told, "playback_id", "") or getattr(told, "fetch_id", "")
        keys = [getattr(told, name, "") for name in ("call_uuid", "conference_id", "bridge_id")]
        keys += [self._channels.get(getattr(told, "channel_id", ""), ""), ids.owner_of(owned_id)[1]]
        return {key for key in keys if key in self.calls or key in self.conferences}

    def _have_done(self, conferences: list[Conference]) -> None:
        """All was decided, so that all is told; what broke is what is noted of it."""
        for conference in conferences:
            conference.step_ended()
        for call in [call for call in self.calls.values() if call.done]:
            self._touched.add(call.call_uuid)
            self._forget_call(call)

    def _turned_away(self, event: ev.Event) -> list[Effect]:
        """Who waits for what the event was to lead to."""
        match event:
            case ev.CommandReceived(command_id):
                return [Reply(command_id, 500, (("error", "the command met a defect of ari_conf: please report it"),))]
            case ev.CallArrived(channel_id) if channel_id not in self._channels:
                return [HangUp(channel_id)]
        return []

    # Each by itself.

    def _end_conference(self, conference: Conference, now: int) -> list[Effect]:
        """Its members' calls are not ended by that."""
        key = conference.conference_id
        self._touched.add(key)
        if key in self._given_up:
            # Even its end breaks.
            self._forget_conference(conference)
            name = ReleaseName(conference.auth_id, conference.name, key)
            return [name, DestroyBridge(conference.bridge_id)]
        self._given_up.add(key)
        self._forget_name(conference)
        return self._each(conference.give_up(now), now)

    def _end_call(self, call: Call, why: str, now: int) -> list[Effect]:
        """It leaves the conference in which it is, which goes on."""
        key, conference = call.call_uuid, self._conference_of(call)
        self._touched.add(key)
        out = tried(lambda: call.give_up(why, now)) if key not in self._given_up else []
        self._given_up.add(key)
        effects = self._each(out, now)
        if not out:
            # Even its end breaks.
            self._forget_call(call)
            effects = [HangUp(call.channel_id)]
        member = conference.member_of(call.channel_id) if conference is not None else None
        if conference is not None and member is not None and member.call_uuid == key:
            effects += self._let_go(conference, member, now)
        return effects

    def _let_go(self, conference: Conference, member: Member, now: int) -> list[Effect]:
        """The member is out, as if by hanging up; their call, if it is elsewhere, hears nothing of that."""
        self._touched.add(conference.conference_id)
        try:
            out = conference.leave(member.channel_id, "hangup", now)
        except Exception:
            theirs = [self.calls[m.call_uuid] for m in conference.members.values() if m.call_uuid in self.calls]
            effects = self._end_conference(conference, now)
            return effects + [e for call in theirs for e in self._end_call(call, BROKEN, now)]
        return self._each([item for item in out if not self._is_anothers(item, conference, member)], now)

    def _is_anothers(self, item: Effect | Internal, conference: Conference, member: Member) -> bool:
        """It would reach a call or a channel that only this member takes for its own."""
        if isinstance(item, ABOUT_A_CALL) and item.call_uuid == member.call_uuid:
            call = self.calls.get(member.call_uuid)
            return call is None or call.done or not (call.over or call.conference_id == conference.conference_id)
        target = getattr(item, "target", None)
        channel_id = target.id if isinstance(target, Target) else getattr(item, "channel_id", None)
        return channel_id == member.channel_id and self._channels.get(member.channel_id) != member.call_uuid

    def _each(self, out: Sequence[Effect | Internal], now: int) -> list[Effect]:
        """What can be delivered of it, one after another."""
        effects: list[Effect] = []
        for item in out:
            effects += tried(lambda: self._effects_of([item], now))  # noqa: B023 -- done before the next one
        for effect in effects:
            if type(effect) in UNDOING:
                self._remember(effect, now)  # type: ignore[arg-type]
        return effects

    def _bookkeep_all(self) -> None:
        for key in tuple(self._touched):
            try:
                self._bookkeep(key)
            except Exception:
                self._await(key, None)

    # What was read back.

    def restore(self, calls: list[Call], conferences: list[Conference], next_member_id: int) -> None:
        """What another process has written, or a part of it; once all parts are, `restored` is to be called. Each
        deadline that has passed meanwhile is due at once."""
        self.next_member_id = max(self.next_member_id, next_member_id)
        for call in calls:
            self.calls[call.call_uuid] = call
            self._channels[call.channel_id] = call.call_uuid
            self._await(call.call_uuid, call.deadline)
            self._look_at(call.call_uuid, of_call(call))
        for conference in conferences:
            conference.step_ended()
            self.conferences[conference.conference_id] = conference
            self._take_name(conference)
            self._await(conference.conference_id, conference.deadline)
            self._look_at(conference.conference_id, of_conference(conference))

    def restore_unreadable(self, calls: list[Call], conferences: list[Conference]) -> None:
        """What is known of those that can't be read: `restored` gives them up."""
        highest = max((id for conference in conferences for id in conference.members), default=0)
        self.restore(calls, conferences, highest + 1)
        self._odd |= dict.fromkeys((c.call_uuid for c in calls), UNREADABLE)
        self._odd |= dict.fromkeys((c.conference_id for c in conferences), UNREADABLE)

    def _look_at(self, key: str, reasons: Iterator[str]) -> None:
        try:
            why = next(reasons, None)
        except Exception:
            why = "it can't be looked at"
        if why is not None:
            self._odd[key] = why

    def restored(self, now: int) -> list[Effect]:
        """Once all parts are restored, before anything happens. Calls and conferences that can't be as they are, or do
        not refer to each other as they must, are given up: no event meets them any more."""
        effects: list[Effect] = []
        odd, self._odd = self._odd, {}
        doubtful = self._doubtful(odd)
        without = self._without_channel(doubtful)
        self._channels = {c.channel_id: key for key, c in self.calls.items() if key not in without}
        for conference in self.conferences.values():
            for member in conference.members.values():
                if member.call_uuid not in self.calls:
                    doubtful[member.call_uuid] = "it is missing"
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
                    if member.channel_id not in self._channels:
                        stray = self._call_of(self.new_id(), member, now)
                        effects += self._end_call(stray, DOES_NOT_FIT.format("its channel"), now)
        effects += self._two_of_one_name()
        self._bookkeep_all()
        return effects

    def _doubtful(self, odd: dict[str, str]) -> dict[str, str]:
        """The calls that can't be as they are: id -> why."""
        found: dict[str, str] = {}
        for key, call in self.calls.items():
            if key in odd:
                found[key] = odd[key]
            elif call.conference_id in odd:
                found[key] = f"its conference: {odd[call.conference_id]}"
            elif call.conference_id is not None and self._member(call) is None:
                found[key] = "its conference is missing, or does not know it"
        return found

    def _member(self, call: Call) -> Member | None:
        """As which it is in its conference, if both say the same."""
        conference = self._conference_of(call)
        member = conference.member_of(call.channel_id) if conference is not None else None
        same = member is not None and (member.call_uuid, member.auth_id) == (call.call_uuid, call.auth_id)
        return member if same else None

    def _without_channel(self, doubtful: dict[str, str]) -> set[str]:
        """Of calls that have one channel the one that fits has it; the others are doubtful, and have none."""
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
        """Of a call that can't be read its member knows the channel, which is to be hung up."""
        call = self._call_of(member.call_uuid, member, now)
        call.running, call.conference_id = member.element, conference.conference_id
        if self._channels[call.channel_id] != call.call_uuid:
            without.add(call.call_uuid)

    def _call_of(self, call_uuid: str, member: Member, now: int) -> Call:
        call = Call(call_uuid, "", member.channel_id, member.auth_id, "", "", "", "inbound", now)
        self.calls[call_uuid] = call
        self._channels.setdefault(call.channel_id, call_uuid)
        return call

    def _missing_conference(self, call: Call, now: int) -> list[Effect]:
        """Of a conference that can't be read its members' calls know the name and the bridge: nobody else would free
        them. Who was in, and what was recorded, is lost with it."""
        key, element = call.conference_id, call.running
        if not key or key in self.conferences or key in self.calls or not isinstance(element, Element):
            return []
        conference = Conference(key, call.auth_id, element.name, now, 1, self.public_url)
        conference.claim, conference.bridge = "held", "ready"
        self.conferences[key] = conference
        return self._end_conference(conference, now)

    def _two_of_one_name(self) -> list[Effect]:
        """Both go on; new callers and the API come to the one that has the name."""
        self._names.clear()
        for conference in self.conferences.values():
            self._take_name(conference)
        effects: list[Effect] = []
        for conference in self.conferences.values():
            name = conference.auth_id, conference.name
            if not conference.ending and self._names[name] != conference.conference_id:
                text = (
                    f"there were two conferences of the name {conference.name!r} after a failure: new callers and the "
                    "API come to the newer one, and the callers of the two don't hear each other"
                )
                effects.append(ReportProblem(conference.auth_id, "", None, text))
        return effects


def _is_answer(event: ev.Event) -> bool:
    """To a claim."""
    claim = isinstance(event, ev.EffectFailed) and isinstance(event.effect, ClaimName)
    return claim or isinstance(event, ev.NameClaimed | ev.NameRefused)

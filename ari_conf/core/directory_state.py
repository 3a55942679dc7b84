"""All calls and conferences, by what they are looked for, and what is due next."""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar, overload

from ari_conf.core.call import Call
from ari_conf.core.callbacks import LATEST
from ari_conf.core.conference import Conference
from ari_conf.core.effects import Effect
from ari_conf.core.insisting import Insisted, Insisting, wanted

T = TypeVar("T")


class Calls(dict[str, Call]):
    """By their UUIDs; and how many of each account there are. Nothing else than what stands here changes it."""

    def __init__(self) -> None:
        super().__init__()
        self._of_account: Counter[str] = Counter()

    def of_account(self, auth_id: str) -> int:
        return self._of_account[auth_id]

    def __setitem__(self, call_uuid: str, call: Call) -> None:
        self.pop(call_uuid, None)
        super().__setitem__(call_uuid, call)
        self._of_account[call.auth_id] += 1

    def __delitem__(self, call_uuid: str) -> None:
        self.pop(call_uuid)

    @overload
    def pop(self, call_uuid: str, /) -> Call: ...
    @overload
    def pop(self, call_uuid: str, default: T, /) -> Call | T: ...
    def pop(self, call_uuid: str, *default: T) -> Call | T:
        before = len(self)
        found = super().pop(call_uuid, *default)
        if isinstance(found, Call) and len(self) < before:
            self._of_account[found.auth_id] -= 1
            if not self._of_account[found.auth_id]:
                del self._of_account[found.auth_id]
        return found


OVER_KEPT = 1000
"""Calls that have ended and were not told yet: after each step they are."""


@dataclass(slots=True)
class DirectoryState:
    new_id: Callable[[], str]
    """Makes conferences' and recordings' ids: unguessable, never the same twice."""
    public_url: str = "http://127.0.0.1:8080"
    calls_per_account: int = 0
    """Calls that an account may have at once; 0: any number."""
    calls: Calls = field(default_factory=Calls)
    conferences: dict[str, Conference] = field(default_factory=dict)
    next_member_id: int = 1
    """"a small integer, from a counter that all conferences share"."""
    _channels: dict[str, str] = field(default_factory=dict)
    """channel id -> call uuid"""
    _names: dict[tuple[str, str], str] = field(default_factory=dict)
    """(account, name) -> the live conference: a name belongs to one account"""
    _due: dict[str, int] = field(default_factory=dict)
    """call uuid or conference id -> its deadline"""
    _deadlines: list[tuple[int, str]] = field(default_factory=list)
    """A heap of these; one that is not in `_due` any more is stale."""
    _touched: set[str] = field(default_factory=set)
    """By the last step, or the one that is being made."""
    _earlier: set[str] = field(default_factory=set)
    """By those before it, since `touched` was last asked."""
    _decided: list[Effect] | None = None
    """By the step that is being made, once all of it is; None: it is not."""
    _whole: list[Effect] = field(default_factory=list)
    """Of several steps of which one broke: what those before it have decided."""
    _watched: dict[str, int] = field(default_factory=dict)
    """account -> until when"""
    _refused: dict[str, int] = field(default_factory=dict)
    """account -> when it was last told that it has too many calls; those of the last minute"""
    _insisting: Insisting = field(default_factory=Insisting)
    _odd: dict[str, str] = field(default_factory=dict)
    """Of the calls and conferences that were restored, which can't be as they are, and why."""
    _given_up: set[str] = field(default_factory=set)
    """Calls and conferences that a defect has ended, until they are gone."""

    over: deque[Call] = field(default_factory=lambda: deque(maxlen=OVER_KEPT))
    """Calls that have ended, for the log, which takes them out."""

    @property
    def deadline(self) -> int | None:
        """Epoch ms of the next TimePassed, None if nothing is awaited."""
        soonest, again = self._next_deadline(), self._insisting.at
        if soonest is None or again is None:
            return again if soonest is None else soonest
        return min(soonest, again)

    def _next_deadline(self) -> int | None:
        """Of a call or conference."""
        while self._deadlines:
            at, key = self._deadlines[0]
            if self._due.get(key) == at:
                return at
            heapq.heappop(self._deadlines)
        return None

    @property
    def has_changed(self) -> bool:
        """By the last step."""
        return bool(self._touched)

    def touched(self) -> dict[str, Call | Conference | None]:
        """What the last steps may have changed, since this was last asked: id -> as it is now, None if it is gone."""
        if len(self._touched) == 1 and not self._earlier:
            # As a rule: nothing to put in order.
            key = self._touched.pop()
            return {key: self.calls.get(key) or self.conferences.get(key)}
        touched = self._touched | self._earlier
        self._touched, self._earlier = set(), set()
        return {key: self.calls.get(key) or self.conferences.get(key) for key in sorted(touched)}

    def _next_step(self) -> None:
        self._earlier |= self._touched
        self._touched = set()

    def _conference_of(self, call: Call) -> Conference | None:
        return self.conferences.get(call.conference_id) if call.conference_id else None

    def wanted(self, effect: Insisted) -> Insisted:
        """What Asterisk was last asked for in this respect."""
        call = self.calls.get(self._channels.get(getattr(effect, "channel_id", ""), ""))
        conference = self._conference_of(call) if call is not None else None
        return wanted(effect, call, conference.member_of(call.channel_id) if call and conference else None)

    def _bookkeep(self, key: str) -> None:
        deadline = None
        if (call := self.calls.get(key)) is not None:
            if call.done:
                self._forget_call(call)
            else:
                deadline = call.deadline
        elif (conference := self.conferences.get(key)) is not None:
            conference.step_ended()
            if conference.ending:
                self._forget_name(conference)
            if conference.done:
                self._forget_conference(conference)
            else:
                deadline = conference.deadline
        self._await(key, deadline)

    def _await(self, key: str, deadline: int | None) -> None:
        if deadline is None:
            self._due.pop(key, None)
            return
        # Whoever sets an alarm for it must be able to.
        deadline = min(deadline, LATEST)
        if self._due.get(key) != deadline:
            self._due[key] = deadline
            heapq.heappush(self._deadlines, (deadline, key))
            if len(self._deadlines) > 2 * len(self._due) + 100:
                # Those that were put off stay in the heap until they come to its top: now and then make it anew.
                self._deadlines = [(at, k) for k, at in self._due.items()]
                heapq.heapify(self._deadlines)

    def _forget_call(self, call: Call) -> None:
        if self.calls.pop(call.call_uuid, None) is not None:
            self.over.append(call)
        self._given_up.discard(call.call_uuid)
        if self._channels.get(call.channel_id) == call.call_uuid:
            del self._channels[call.channel_id]
            self._insisting.forget(call.channel_id)

    def _forget_conference(self, conference: Conference) -> None:
        self.conferences.pop(conference.conference_id, None)
        self._given_up.discard(conference.conference_id)
        self._insisting.forget(conference.conference_id)
        self._forget_name(conference)

    def _take_name(self, conference: Conference) -> None:
        """Of two of one name the newer one has it: when that began, the other had ended. Member ids tell which it is,
        and no clock: they come from one counter."""
        if conference.ending:
            return
        name = conference.auth_id, conference.name
        other = self.conferences.get(self._names.get(name, ""))
        if other is None or _age(other) < _age(conference):
            self._names[name] = conference.conference_id

    def has_name(self, conference: Conference) -> bool:
        """New callers, and the API, come to it."""
        return self._names.get((conference.auth_id, conference.name)) == conference.conference_id

    def _forget_name(self, conference: Conference) -> None:
        name = (conference.auth_id, conference.name)
        if self._names.get(name) == conference.conference_id:
            del self._names[name]


def _age(conference: Conference) -> tuple[int, int, str]:
    """Comparable: the newer it is, the more."""
    return max(conference.members, default=0), conference.created_at, conference.conference_id

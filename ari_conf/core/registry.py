"""Registry: all calls and conferences, the indexes over them, and the next deadline."""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar, overload

from ari_conf.core import ids
from ari_conf.core.calls.call import Call
from ari_conf.core.conferences.conference import Conference
from ari_conf.core.effects import Effect
from ari_conf.core.request_params import LATEST
from ari_conf.core.request_retries import RequestRetries, RetriableEffect, wanted

T = TypeVar("T")


class Calls(dict[str, Call]):
    """Calls by UUID, with the number of calls per account. Only the methods defined here may modify it."""

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
"""Maximum number of ended calls that wait for their log entry; the server logs them after each step."""


@dataclass(slots=True)
class Registry:
    new_id: Callable[[], str]
    """Source of the ids of conferences and recordings: unguessable, and never the same twice."""
    public_url: str = "http://127.0.0.1:8080"
    calls_per_account: int = 0
    """Maximum number of concurrent calls of one account; 0: no limit."""
    calls: Calls = field(default_factory=Calls)
    conferences: dict[str, Conference] = field(default_factory=dict)
    next_member_id: int = 1
    """Spec: "a small integer, from a counter that all conferences share"."""
    _call_by_channel: dict[str, str] = field(default_factory=dict)
    """channel id -> call UUID"""
    _conference_by_name: dict[tuple[str, str], str] = field(default_factory=dict)
    """(account, name) -> id of the live conference: a name belongs to one account"""
    _deadline_by_id: dict[str, int] = field(default_factory=dict)
    """call UUID or conference id -> deadline, in epoch ms"""
    _deadline_heap: list[tuple[int, str]] = field(default_factory=list)
    """Heap of (deadline, id); an entry that differs from `_deadline_by_id` is stale."""
    _touched: set[str] = field(default_factory=set)
    """Ids of the calls and conferences that the last step, or the current one, has touched."""
    _touched_earlier: set[str] = field(default_factory=set)
    """Ids that earlier steps have touched since the last `take_changes`."""
    _decided: list[Effect] | None = None
    """Effects of the current step once all of them are decided; None: they are not."""
    _effects_before_failure: list[Effect] = field(default_factory=list)
    """Effects of the steps before the failed one, if one event leads to several steps."""
    _watched_until: dict[str, int] = field(default_factory=dict)
    """account -> epoch ms until which viewers watch it"""
    _refused: dict[str, int] = field(default_factory=dict)
    """account -> epoch ms of its last problem about too many calls; problems of the last minute only"""
    _insisting: RequestRetries = field(default_factory=RequestRetries)
    _odd: dict[str, str] = field(default_factory=dict)
    """Restored calls and conferences that are not valid: id -> reason."""
    _given_up: set[str] = field(default_factory=set)
    """Ids of the calls and conferences that abort handling has ended, until they are removed."""

    over: deque[Call] = field(default_factory=lambda: deque(maxlen=OVER_KEPT))
    """Ended calls, for the call log, which removes them."""

    @property
    def deadline(self) -> int | None:
        """Epoch milliseconds of the next DeadlineReached, or None if nothing is awaited."""
        soonest, again = self._next_deadline(), self._insisting.at
        if soonest is None or again is None:
            return again if soonest is None else soonest
        return min(soonest, again)

    def _next_deadline(self) -> int | None:
        """Return the earliest deadline of a call or conference, or None."""
        while self._deadline_heap:
            at, key = self._deadline_heap[0]
            if self._deadline_by_id.get(key) == at:
                return at
            heapq.heappop(self._deadline_heap)
        return None

    @property
    def last_step_changed_state(self) -> bool:
        """True if the last step touched a call or conference."""
        return bool(self._touched)

    def take_changes(self) -> dict[str, Call | Conference | None]:
        """Return what steps may have changed since the previous `take_changes`.

        Maps each id to the call or conference in its present state, or to None if it no longer exists.
        """
        if len(self._touched) == 1 and not self._touched_earlier:
            # The usual case, which needs no sorting.
            key = self._touched.pop()
            return {key: self.calls.get(key) or self.conferences.get(key)}
        touched = self._touched | self._touched_earlier
        self._touched, self._touched_earlier = set(), set()
        return {key: self.calls.get(key) or self.conferences.get(key) for key in sorted(touched)}

    def _begin_step(self) -> None:
        self._touched_earlier |= self._touched
        self._touched = set()

    def _conference_of(self, call: Call) -> Conference | None:
        return self.conferences.get(call.conference_id) if call.conference_id else None

    def conference_of_bridge(self, bridge_id: str) -> Conference | None:
        conference = self.conferences.get(ids.conference_of(bridge_id) or "")
        return conference if conference is not None and conference.bridge_id == bridge_id else None

    def wanted(self, effect: RetriableEffect) -> RetriableEffect:
        """Return the latest request to Asterisk about the same aspect, according to the state."""
        call = self.calls.get(self._call_by_channel.get(getattr(effect, "channel_id", ""), ""))
        conference = self._conference_of(call) if call is not None else None
        return wanted(effect, call, conference.member_of(call.channel_id) if call and conference else None)

    def _update_indexes(self, key: str) -> None:
        deadline = None
        if (call := self.calls.get(key)) is not None:
            if call.is_finished:
                self._forget_call(call)
            else:
                deadline = call.deadline
        elif (conference := self.conferences.get(key)) is not None:
            conference.step_ended()
            if conference.ending:
                self._unindex_name(conference)
            if conference.is_finished:
                self._forget_conference(conference)
            else:
                deadline = conference.deadline
        self._await(key, deadline)

    def _await(self, key: str, deadline: int | None) -> None:
        if deadline is None:
            self._deadline_by_id.pop(key, None)
            return
        # The server must be able to set a timer for the deadline.
        deadline = min(deadline, LATEST)
        if self._deadline_by_id.get(key) != deadline:
            self._deadline_by_id[key] = deadline
            heapq.heappush(self._deadline_heap, (deadline, key))
            if len(self._deadline_heap) > 2 * len(self._deadline_by_id) + 100:
                # Postponed deadlines leave stale entries in the heap until they reach its top.
                # Rebuild the heap when most of it is stale.
                self._deadline_heap = [(at, k) for k, at in self._deadline_by_id.items()]
                heapq.heapify(self._deadline_heap)

    def _forget_call(self, call: Call) -> None:
        if self.calls.pop(call.call_uuid, None) is not None:
            self.over.append(call)
        self._given_up.discard(call.call_uuid)
        if self._call_by_channel.get(call.channel_id) == call.call_uuid:
            del self._call_by_channel[call.channel_id]
            self._insisting.forget(call.channel_id)

    def _forget_conference(self, conference: Conference) -> None:
        self.conferences.pop(conference.conference_id, None)
        self._given_up.discard(conference.conference_id)
        self._insisting.forget(conference.bridge_id)
        self._unindex_name(conference)

    def _take_name(self, conference: Conference) -> None:
        """Give the conference its name, unless a newer one has it: when the newer one began, the older had ended.

        Member ids determine the age instead of a clock, because they come from one counter.
        """
        if conference.ending:
            return
        name = conference.auth_id, conference.name
        other = self.conferences.get(self._conference_by_name.get(name, ""))
        if other is None or _age(other) < _age(conference):
            self._conference_by_name[name] = conference.conference_id

    def has_name(self, conference: Conference) -> bool:
        """Return whether new callers and the API reach this conference by its name."""
        return self._conference_by_name.get((conference.auth_id, conference.name)) == conference.conference_id

    def _unindex_name(self, conference: Conference) -> None:
        name = (conference.auth_id, conference.name)
        if self._conference_by_name.get(name) == conference.conference_id:
            del self._conference_by_name[name]


def _age(conference: Conference) -> tuple[int, int, str]:
    """Return a sort key that is greater the newer the conference is."""
    return max(conference.members, default=0), conference.created_at, conference.conference_id

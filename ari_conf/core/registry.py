"""Registry: all calls and conferences, the indexes over them, their deadlines, and which of them steps have touched."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar, overload

from ari_conf.core import ids
from ari_conf.core.calls.call import Call
from ari_conf.core.conferences.conference import Conference
from ari_conf.core.conferences.member import Member
from ari_conf.core.deadlines import Deadlines
from ari_conf.core.dial_pace import DialPace
from ari_conf.core.messages import Outputs
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


MAX_ENDED_CALLS = 1000
"""Maximum number of ended calls that wait for their log entry; the server logs them after each step."""


@dataclass(slots=True)
class Registry:
    new_id: Callable[[], str]
    """Source of the ids of conferences and recordings: unguessable, and never the same twice."""
    public_url: str
    calls: Calls = field(default_factory=Calls)
    conferences: dict[str, Conference] = field(default_factory=dict)
    next_member_id: int = 1
    """Spec: "a small integer, from a counter that all conferences share"."""
    call_by_channel: dict[str, str] = field(default_factory=dict)
    """channel id -> call UUID"""
    conference_by_name: dict[tuple[str, str], str] = field(default_factory=dict)
    """(account, name) -> id of the live conference: a name belongs to one account. The account of a conference that
    only the legs of a Dial know is ""."""
    deadlines: Deadlines = field(default_factory=Deadlines)
    dial_pace: DialPace = field(default_factory=DialPace)
    retries: RequestRetries = field(default_factory=RequestRetries)
    """Failed requests that are repeated, those about a channel as long as a call has it."""
    watched_until: dict[str, int] = field(default_factory=dict)
    """account -> epoch ms until which viewers watch its conferences"""
    touched: set[str] = field(default_factory=set)
    """Ids of the calls and conferences that the last step, or the current one, has touched."""
    _touched_earlier: set[str] = field(default_factory=set)
    """Ids that earlier steps have touched since the last `take_changes`."""
    ended_calls: deque[Call] = field(default_factory=lambda: deque(maxlen=MAX_ENDED_CALLS))
    """Ended calls, for the call log, which removes them."""

    ended: list[Call | Conference] = field(default_factory=list)
    """Calls and conferences that were removed and that the history does not have yet."""

    def __contains__(self, owner_id: str) -> bool:
        return owner_id in self.calls or owner_id in self.conferences

    # Steps.

    def begin_step(self) -> None:
        self._touched_earlier |= self.touched
        self.touched = set()

    def take_changes(self) -> dict[str, Call | Conference | None]:
        """Return what steps may have changed since the previous `take_changes`.

        Maps each id to the call or conference in its present state, or to None if it no longer exists.
        """
        if len(self.touched) == 1 and not self._touched_earlier:
            # The usual case, which needs no sorting.
            key = self.touched.pop()
            return {key: self.calls.get(key) or self.conferences.get(key)}
        touched = self.touched | self._touched_earlier
        self.touched, self._touched_earlier = set(), set()
        return {key: self.calls.get(key) or self.conferences.get(key) for key in sorted(touched)}

    def update_indexes(self, owner_id: str) -> None:
        """Bring deadline, name and membership of the registry in line with what a step has made of the owner."""
        deadline = None
        if (call := self.calls.get(owner_id)) is not None:
            call.step_reports = []
            if call.is_finished:
                self.remove_call(call)
            else:
                deadline = call.deadline
                self._index_channel(call)
        elif (conference := self.conferences.get(owner_id)) is not None:
            conference.step_ended()
            if conference.ending:
                self.unindex_name(conference)
            if conference.is_finished:
                self.remove_conference(conference)
            else:
                deadline = conference.deadline
        self.deadlines.set(owner_id, deadline)

    def _index_channel(self, call: Call) -> None:
        """Index the channel by which a placed call is dialed now; events of the one before no longer concern it."""
        if call.outgoing is not None and call.outgoing.channels > 1 and call.channel_id not in self.call_by_channel:
            before = ids.channel_id(call.call_uuid, call.outgoing.channels - 1)
            self.call_by_channel.pop(before, None)
            self.call_by_channel[call.channel_id] = call.call_uuid

    # Placing.

    def add_placed(self, call: Call, now: int, not_after: int = 0) -> Outputs:
        """Add a call that is to be placed, and dial it if its turn has come. `not_after`: see CreateChannel."""
        assert call.outgoing is not None
        self.calls[call.call_uuid] = call
        self.call_by_channel[call.channel_id] = call.call_uuid
        self.touched.add(call.call_uuid)
        return call.start_dialing(now, not_after) if call.outgoing.dial_at <= now else [call.dialing_record()]

    # Lookup.

    def call_of(self, channel_id: str) -> Call | None:
        """Return the call that has this channel."""
        return self.calls.get(self.call_by_channel.get(channel_id, ""))

    def conference_of(self, call: Call) -> Conference | None:
        return self.conferences.get(call.conference_id) if call.conference_id else None

    def conference_named(self, auth_id: str, name: str) -> Conference | None:
        return self.conferences.get(self.conference_by_name.get((auth_id, name), ""))

    def second_leg_of(self, call: Call) -> Call | None:
        """Return the call with which a Dial element has connected this one, unless it is ending."""
        if call.dial is None or call.dial.connected not in call.dial.legs:
            return None
        leg = self.calls.get(call.dial.connected)
        return leg if leg is not None and not leg.is_ending else None

    def member_of(self, call: Call) -> Member | None:
        """Return the call's member in its conference, or None if call and member do not refer to each other."""
        conference = self.conference_of(call)
        member = conference.member_of(call.channel_id) if conference is not None else None
        same = member is not None and (member.call_uuid, member.auth_id) == (call.call_uuid, call.auth_id)
        return member if same else None

    def conference_of_bridge(self, bridge_id: str) -> Conference | None:
        conference = self.conferences.get(ids.conference_of(bridge_id) or "")
        return conference if conference is not None and conference.bridge_id == bridge_id else None

    def wanted(self, effect: RetriableEffect) -> RetriableEffect:
        """Return the latest request to Asterisk about the same aspect, according to the state."""
        call = self.call_of(getattr(effect, "channel_id", ""))
        conference = self.conference_of(call) if call is not None else None
        return wanted(effect, call, conference.member_of(call.channel_id) if call and conference else None)

    # Removal.

    def remove_call(self, call: Call) -> None:
        if self.calls.pop(call.call_uuid, None) is not None:
            self.ended_calls.append(call)
            self.ended.append(call)
        if self.call_by_channel.get(call.channel_id) == call.call_uuid:
            del self.call_by_channel[call.channel_id]
            self.retries.forget(call.channel_id)

    def remove_conference(self, conference: Conference) -> None:
        if self.conferences.pop(conference.conference_id, None) is not None:
            self.ended.append(conference)
        self.retries.forget(conference.bridge_id)
        self.unindex_name(conference)

    # Names.

    def has_name(self, conference: Conference) -> bool:
        """Return whether new callers and the API reach this conference by its name."""
        return self.conference_by_name.get((conference.directory, conference.name)) == conference.conference_id

    def index_name(self, conference: Conference) -> None:
        """Give the conference its name, unless a newer one has it: when the newer one began, the older had ended.

        Member ids determine the age instead of a clock, because they come from one counter.
        """
        if conference.ending:
            return
        name = conference.directory, conference.name
        other = self.conferences.get(self.conference_by_name.get(name, ""))
        if other is None or _age(other) < _age(conference):
            self.conference_by_name[name] = conference.conference_id

    def unindex_name(self, conference: Conference) -> None:
        if self.has_name(conference):
            del self.conference_by_name[conference.directory, conference.name]


def _age(conference: Conference) -> tuple[int, int, str]:
    """Return a sort key that is greater the newer the conference is."""
    return max(conference.members, default=0), conference.created_at, conference.conference_id

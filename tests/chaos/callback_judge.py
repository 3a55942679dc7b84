"""Callback judge: in order, signed, none missing, and repeated only with the same content."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tests.chaos.hearing import Finding

ONCE = {"ConferenceAction": {"enter", "exit"}}


class ReceivedRequest(Protocol):
    """A request in the form of tests.integration.receiver."""

    @property
    def at_ms(self) -> float: ...
    @property
    def params(self) -> Mapping[str, str]: ...
    def signed_with(self, token: str) -> bool: ...


@dataclass
class Callbacks:
    arrived: int = 0
    duplicates: int = 0
    conferences: int = 0
    by_action: Counter[str] = field(default_factory=Counter)
    hangups: int = 0
    findings: list[Finding] = field(default_factory=list)

    def wrong(self, at_ms: float, text: str) -> None:
        self.findings.append(Finding(at_ms, text))


def judge(requests: Iterable[ReceivedRequest], token: str) -> Callbacks:
    """Judge the conferences' callbacks, which have a ConferenceSequence."""
    found = Callbacks()
    by_conference: dict[str, list[ReceivedRequest]] = defaultdict(list)
    for request in requests:
        if "ConferenceSequence" in request.params:
            by_conference[request.params["ConferenceUUID"]].append(request)
    found.conferences = len(by_conference)
    for conference, came in by_conference.items():
        found.arrived += len(came)
        for request in came:
            if not request.signed_with(token):
                found.wrong(request.at_ms, f"not signed: {_name(request)}")
        once = _once(found, came)
        _in_order(found, once)
        _everybody(found, conference, once)
    found.findings.sort(key=lambda finding: finding.at_ms)
    return found


def _once(found: Callbacks, came: Sequence[ReceivedRequest]) -> list[ReceivedRequest]:
    """Return the callbacks without repetitions, which must have the same content."""
    first: dict[str, ReceivedRequest] = {}
    for request in came:
        number = request.params["ConferenceSequence"]
        if number not in first:
            first[number] = request
            found.by_action[request.params["ConferenceAction"]] += 1
            continue
        found.duplicates += 1
        if dict(request.params) != dict(first[number].params):
            found.wrong(request.at_ms, f"{_name(request)} came before as {_name(first[number])}")
    return list(first.values())


def _in_order(found: Callbacks, once: Sequence[ReceivedRequest]) -> None:
    numbers = [int(request.params["ConferenceSequence"]) for request in once]
    latest = 0
    for number, request in zip(numbers, once, strict=True):
        if number < latest:
            found.wrong(request.at_ms, f"{_name(request)} came after number {latest}")
        latest = max(latest, number)
    if lost := sorted(set(range(1, latest + 1)) - set(numbers)):
        found.wrong(once[-1].at_ms, f"{_name(once[-1])}: these numbers never came: {lost}")


def _everybody(found: Callbacks, conference: str, once: Sequence[ReceivedRequest]) -> None:
    """Check that each member enters and leaves once, and that only the last exit has ConferenceLastMember."""
    ordered = sorted(once, key=lambda request: int(request.params["ConferenceSequence"]))
    inside: dict[str, str] = {}
    left: set[str] = set()
    end = ordered[-1].at_ms
    for request in ordered:
        action, member = request.params["ConferenceAction"], request.params.get("ConferenceMemberID", "")
        if action == "enter":
            if member in inside or member in left:
                found.wrong(request.at_ms, f"{_name(request)}: member {member} enters twice")
            inside[member] = request.params["CallUUID"]
        elif action == "exit":
            if inside.pop(member, None) != request.params["CallUUID"]:
                found.wrong(request.at_ms, f"{_name(request)}: member {member} leaves without being in")
            left.add(member)
            if (request.params.get("ConferenceLastMember") == "true") != (not inside):
                found.wrong(request.at_ms, f"{_name(request)}: ConferenceLastMember is wrong, {len(inside)} are in")
    for member in inside:
        found.wrong(end, f"conference {conference}: member {member} entered and never left")


def _name(request: ReceivedRequest) -> str:
    params = request.params
    what = f"{params['ConferenceAction']}, number {params['ConferenceSequence']} of {params.get('ConferenceName', '?')}"
    return f"{what} ({params['ConferenceUUID'][:8]})"


def hangups(requests: Iterable[ReceivedRequest], answered: set[str]) -> list[Finding]:
    """Return a finding for each answered call without a hangup callback."""
    came: dict[str, ReceivedRequest] = {}
    for request in requests:
        came.setdefault(request.params.get("CallUUID", ""), request)
    return [Finding(0.0, f"the end of call {call} was not told") for call in sorted(answered - set(came))]

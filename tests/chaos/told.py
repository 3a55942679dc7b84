"""Callback judge: in order, signed, none missing, and repeated only with the same content."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tests.chaos.hearing import Finding

ONCE = {"ConferenceAction": {"enter", "exit"}}


class Told(Protocol):
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


def judge(requests: Iterable[Told], token: str) -> Callbacks:
    """Judge the conferences' callbacks, which have a ConferenceSequence."""
    told = Callbacks()
    by_conference: dict[str, list[Told]] = defaultdict(list)
    for request in requests:
        if "ConferenceSequence" in request.params:
            by_conference[request.params["ConferenceUUID"]].append(request)
    told.conferences = len(by_conference)
    for conference, came in by_conference.items():
        told.arrived += len(came)
        for request in came:
            if not request.signed_with(token):
                told.wrong(request.at_ms, f"not signed: {_name(request)}")
        once = _once(told, came)
        _in_order(told, once)
        _everybody(told, conference, once)
    told.findings.sort(key=lambda finding: finding.at_ms)
    return told


def _once(told: Callbacks, came: Sequence[Told]) -> list[Told]:
    """Return the callbacks without repetitions, which must have the same content."""
    first: dict[str, Told] = {}
    for request in came:
        number = request.params["ConferenceSequence"]
        if number not in first:
            first[number] = request
            told.by_action[request.params["ConferenceAction"]] += 1
            continue
        told.duplicates += 1
        if dict(request.params) != dict(first[number].params):
            told.wrong(request.at_ms, f"{_name(request)} came before as {_name(first[number])}")
    return list(first.values())


def _in_order(told: Callbacks, once: Sequence[Told]) -> None:
    numbers = [int(request.params["ConferenceSequence"]) for request in once]
    latest = 0
    for number, request in zip(numbers, once, strict=True):
        if number < latest:
            told.wrong(request.at_ms, f"{_name(request)} came after number {latest}")
        latest = max(latest, number)
    if lost := sorted(set(range(1, latest + 1)) - set(numbers)):
        told.wrong(once[-1].at_ms, f"{_name(once[-1])}: these numbers never came: {lost}")


def _everybody(told: Callbacks, conference: str, once: Sequence[Told]) -> None:
    """Check that each member enters and leaves once, and that only the last exit has ConferenceLastMember."""
    ordered = sorted(once, key=lambda request: int(request.params["ConferenceSequence"]))
    inside: dict[str, str] = {}
    left: set[str] = set()
    end = ordered[-1].at_ms
    for request in ordered:
        action, member = request.params["ConferenceAction"], request.params.get("ConferenceMemberID", "")
        if action == "enter":
            if member in inside or member in left:
                told.wrong(request.at_ms, f"{_name(request)}: member {member} enters twice")
            inside[member] = request.params["CallUUID"]
        elif action == "exit":
            if inside.pop(member, None) != request.params["CallUUID"]:
                told.wrong(request.at_ms, f"{_name(request)}: member {member} leaves without being in")
            left.add(member)
            if (request.params.get("ConferenceLastMember") == "true") != (not inside):
                told.wrong(request.at_ms, f"{_name(request)}: ConferenceLastMember is wrong, {len(inside)} are in")
    for member in inside:
        told.wrong(end, f"conference {conference}: member {member} entered and never left")


def _name(request: Told) -> str:
    params = request.params
    what = f"{params['ConferenceAction']}, number {params['ConferenceSequence']} of {params.get('ConferenceName', '?')}"
    return f"{what} ({params['ConferenceUUID'][:8]})"


def hangups(requests: Iterable[Told], answered: set[str]) -> list[Finding]:
    """Return a finding for each answered call without a hangup callback."""
    came: dict[str, Told] = {}
    for request in requests:
        came.setdefault(request.params.get("CallUUID", ""), request)
    return [Finding(0.0, f"the end of call {call} was not told") for call in sorted(answered - set(came))]

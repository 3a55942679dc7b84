"""Test of the benchmark of placed calls. Its times need an idle machine, so none of them is asserted."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.bench.placing import MEMBERS, Application, Asked, Figures, failures_of, room_of, run, told

ANN, BOB = "ann", "bob"
PLACED, DIALED = {"p1": "49151000001", "p2": "49151000002"}, {"49151000001": 1, "49151000002": 1}
ALL = Asked(frozenset({ANN, BOB}), frozenset(PLACED), frozenset({ANN, BOB, *PLACED}))


def test_calls_are_placed_and_compared_and_none_fails():
    found = asyncio.run(run(["invite", "both"], 3, 2.0, 2.0))
    assert [len(found.invite_ms[variant]) for variant in ("ours", "bare", "errands")] == [3, 3, 3]
    assert all(ms > 0 for times in found.invite_ms.values() for ms in times)
    assert found.failures == {} and (found.placed, found.arrived, found.joined) == (4, 4, 8)
    assert len(told(found)) == 5


def test_a_ratio_that_exceeds_the_goal_is_said():
    found = Figures({"ours": [10.0] * 20 + [90.0], "bare": [8.0] * 21, "errands": [10.0] * 21})
    assert told(found) == [
        "API request to INVITE, median: 1.25 times a bare originate (10.0 and 8.0 ms); goal 2: yes",
        "API request to INVITE, median: 1.00 times an application that loses no call (10.0 and 10.0 ms); goal 2: yes",
        "API request to INVITE, p95: 10.25 times a bare originate (82.0 and 8.0 ms); goal 2: no",
        "API request to INVITE, p95: 8.20 times an application that loses no call (82.0 and 10.0 ms); goal 2: no",
    ]


def test_placed_calls_have_conferences_that_hold_them():
    uris = [f"sip:49151{number:06}@127.0.0.1:48159" for number in range(10 * MEMBERS)]
    rooms = [room_of(uri, "outbound") for uri in uris]
    assert {rooms.count(room) for room in rooms} == {MEMBERS}
    assert room_of("155500001", "inbound") != room_of("155500002", "inbound")


def test_only_entering_counts_as_having_entered(tmp_path: Path):
    application = Application(tmp_path / "log")

    def post(path: str, **params: str) -> None:
        application.answer(f"POST {path} HTTP/1.1\r\nHost: h\r\n\r\n{urlencode(params)}".encode())

    post("/answer", CallUUID=ANN, To="155500001", Direction="inbound")
    post("/answer", CallUUID="p1", To="sip:49151000001@h", Direction="outbound")
    for action in ("enter", "enter", "exit"):
        post("/callback", CallUUID=ANN, ConferenceAction=action)
    post("/callback", CallUUID="p1", ConferenceAction="exit")
    assert application.asked() == Asked(frozenset({ANN}), frozenset({"p1"}), frozenset({ANN}))


def test_nothing_has_failed_if_all_have_entered():
    assert failures_of(PLACED, DIALED, ALL, 2, 2) == {}


def asked(*without: str, kind: str = "entered") -> Asked:
    """Return what is asked if all goes well, but for some calls of one kind."""
    return replace(ALL, **{kind: getattr(ALL, kind) - set(without)})


@pytest.mark.parametrize(
    ("dialed", "asked", "answered", "reason"),
    [
        ({"49151000001": 1}, ALL, 2, "a placed call was not dialed"),
        ({**DIALED, "49151000002": 2}, ALL, 2, "a placed call was dialed more than once"),
        (DIALED, asked("p2", kind="outbound"), 2, "the document of a placed call was not requested"),
        (DIALED, asked("p2"), 2, "a placed call did not enter its conference"),
        (DIALED, asked(BOB, kind="inbound"), 1, "the document of an arriving call was not requested"),
        (DIALED, asked(BOB), 1, "an arriving call did not enter its conference"),
        (DIALED, ALL, 1, "an arriving call was not answered"),
    ],
)
def test_a_call_fails_once_with_its_reason(dialed: dict[str, int], asked: Asked, answered: int, reason: str):
    assert failures_of(PLACED, dialed, asked, 2, answered) == {reason: 1}

"""Tests of the log fields of events and effects: ids by which to follow a call, and nothing private to the caller."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from structlog.testing import capture_logs

from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core.account import Account
from ari_conf.core.commands import Announce, ForCall, ForConference, HangUpCall
from ari_conf.core.elements import GetDigits, Play, Speak
from ari_conf.core.problem_kinds import ProblemKind
from ari_conf.observability.log_fields import NOTABLE, OMITTED_FIELDS, fields_of, log_item

SECRET = "271828"
"""The digits that a caller presses, and all other text that must not be readable."""
URL = f"https://user.example/answer?pin={SECRET}"


def whose(channel_id: str) -> dict[str, str]:
    return {"call_uuid": f"call-{channel_id}"}


TOLD: list[tuple[Any, dict[str, Any]]] = [
    (
        ev.CallArrived("ann", "u1", "r1", "A", SECRET, "100", f"Ann {SECRET}"),
        {
            "channel_id": "ann",
            "call_uuid": "call-ann",
            "request_uuid": "r1",
            "auth_id": "A",
            "to": "100",
            "direction": "inbound",
            "method": "POST",
            "answered": False,
        },
    ),
    (
        ev.CommandReceived("c1", ForConference("A", "standup", Announce(Speak(SECRET))), 5),
        {"command_id": "c1", "auth_id": "A", "conference_name": "standup", "expires_at": 5},
    ),
    (
        ev.CommandReceived("c1", ForCall("A", "u1", HangUpCall()), 5),
        {"command_id": "c1", "auth_id": "A", "call_uuid": "u1"},
    ),
    (ev.DigitReceived("ann", SECRET), {"channel_id": "ann", "call_uuid": "call-ann"}),
    (do.SendDigits("ann", SECRET), {"channel_id": "ann", "call_uuid": "call-ann"}),
    (
        do.PostCallback("scope", "A", URL, "POST", (("Digits", SECRET),)),
        {"ordering_scope": "scope", "auth_id": "A", "url": "https://user.example/answer", "method": "POST"},
    ),
    (
        do.FetchDocument("c.u1.1", "A", URL, "POST", (("Digits", SECRET),)),
        {
            "fetch_id": "c.u1.1",
            "auth_id": "A",
            "source": "https://user.example/answer",
            "method": "POST",
            "call_uuid": "u1",
        },
    ),
    (do.PrepareSound("c.u1.1", Speak(SECRET)), {"playback_id": "c.u1.1", "call_uuid": "u1"}),
    (do.PrepareSound("c.u1.1", Play(URL)), {"playback_id": "c.u1.1", "call_uuid": "u1"}),
    (ev.DocumentFetched("c.u1.1", (GetDigits((Speak(SECRET),)),), ()), {"fetch_id": "c.u1.1", "call_uuid": "u1"}),
    (
        ev.CallIdentified("u1", Account("A", answer_url=URL), (("X-PH-Pin", SECRET),), True),
        {"call_uuid": "u1", "wideband": True},
    ),
    (do.AddChannel("ann", "b.id1.bridge"), {"channel_id": "ann", "conference_id": "id1", "call_uuid": "call-ann"}),
    (
        do.PlayMedia(do.Target("channel", "ann"), "c.u1.2", ("sound:x",)),
        {"channel_id": "ann", "playback_id": "c.u1.2", "call_uuid": "call-ann"},
    ),
    (
        do.ReportProblem("A", "u1", ProblemKind.DOCUMENT_INVALID, 8011, "it is no XML"),
        {"call_uuid": "u1", "problem_kind": "document_invalid", "code": 8011, "text": "it is no XML"},
    ),
    (
        ev.EffectFailed(do.SendDigits("ann", SECRET), "no"),
        {"effect": "SendDigits", "reason": "no", "channel_id": "ann", "call_uuid": "call-ann"},
    ),
]


@pytest.mark.parametrize(("thing", "expected"), TOLD, ids=lambda each: type(each).__name__)
def test_enough_to_follow_a_call_and_nothing_secret(thing: Any, expected: dict[str, Any]) -> None:
    with capture_logs() as logged:
        log_item("event", thing, fields_of(thing, whose))
    assert SECRET not in json.dumps(logged, default=str)
    (line,) = logged
    assert {name: line[name] for name in expected} == expected


def test_digits_of_every_event_and_effect_are_omitted() -> None:
    """This also covers events and effects that are added later."""
    kinds = [*get_args(do.Effect), *get_args(ev.Event)]
    assert len(kinds) > 40
    names = {name for kind in kinds for name in kind.__struct_fields__}
    secret = {name for name in names if "digit" in name or name in ("params", "headers", "pin", "password", "token")}
    assert secret and secret <= OMITTED_FIELDS


def test_only_actionable_types_are_logged_above_debug() -> None:
    with capture_logs() as logged:
        log_item("event", ev.DeadlineReached(), {})
        log_item("event", ev.DigitReceived("ann", "1"), {})
        log_item("event", ev.EffectFailed(do.Answer("ann"), "gone"), {})
        log_item("effect", do.ReportProblem("A", "u1", ProblemKind.ASTERISK_FAILED, None, "odd"), {})
    assert [line["log_level"] for line in logged] == ["debug", "debug", "info", "warning"]
    assert do.ReportProblem in NOTABLE

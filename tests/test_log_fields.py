"""What of events and effects goes into the log: ids to follow a call by, nothing that is the caller's own affair."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any, get_args

import pytest
from structlog.testing import capture_logs

from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core.account import Account
from ari_conf.core.elements import GetDigits, Play, Speak
from ari_conf.log_fields import LOUD, UNTOLD, fields_of, tell

SECRET = "271828"
"""What a caller presses, and whatever else must not be read."""
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
    (ev.DigitReceived("ann", SECRET), {"channel_id": "ann", "call_uuid": "call-ann"}),
    (do.SendDigits("ann", SECRET), {"channel_id": "ann", "call_uuid": "call-ann"}),
    (
        do.PostCallback("lane", "A", URL, "POST", (("Digits", SECRET),)),
        {"lane": "lane", "auth_id": "A", "url": "https://user.example/answer", "method": "POST"},
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
    (do.AddChannel("ann", "b1"), {"channel_id": "ann", "conference_id": "b1", "call_uuid": "call-ann"}),
    (
        do.PlayMedia(do.Target("channel", "ann"), "c.u1.2", ("sound:x",)),
        {"channel_id": "ann", "playback_id": "c.u1.2", "call_uuid": "call-ann"},
    ),
    (
        ev.EffectFailed(do.SendDigits("ann", SECRET), "no"),
        {"effect": "SendDigits", "reason": "no", "channel_id": "ann", "call_uuid": "call-ann"},
    ),
]


@pytest.mark.parametrize(("thing", "expected"), TOLD, ids=lambda each: type(each).__name__)
def test_enough_to_follow_a_call_and_nothing_secret(thing: Any, expected: dict[str, Any]) -> None:
    with capture_logs() as logged:
        tell("event", thing, fields_of(thing, whose))
    assert SECRET not in json.dumps(logged, default=str)
    (line,) = logged
    assert {name: line[name] for name in expected} == expected


def test_whatever_has_a_field_for_digits_does_not_tell_it() -> None:
    """Also an event or effect that will be added."""
    kinds = [*get_args(do.Effect), *get_args(ev.Event)]
    assert len(kinds) > 40
    names = {f.name for kind in kinds for f in fields(kind)}
    secret = {name for name in names if "digit" in name or name in ("params", "headers", "pin", "password", "token")}
    assert secret and secret <= UNTOLD


def test_only_what_somebody_may_have_to_act_on_is_told_above_level_debug() -> None:
    with capture_logs() as logged:
        tell("event", ev.TimePassed(), {})
        tell("event", ev.DigitReceived("ann", "1"), {})
        tell("event", ev.EffectFailed(do.Answer("ann"), "gone"), {})
        tell("effect", do.ReportProblem("A", "u1", None, "odd"), {})
    assert [line["log_level"] for line in logged] == ["debug", "debug", "info", "warning"]
    assert do.ReportProblem in LOUD

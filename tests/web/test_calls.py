"""Calls: placing them, the parameters as SDKs write them, live and queued calls, hanging up."""

from __future__ import annotations

from typing import Any

import pytest

from ari_conf.core import commands as do
from ari_conf.core.placing import CallOptions, CallToPlace
from ari_conf.dialing import trunk_store, trunks
from ari_conf.store import accounts
from tests.core.stage import stay
from tests.web.conftest import Api, Owner, within

NUMBER, OTHER = "4915112345678", "4915112345679"
PLACED = {"from": "4930123456", "to": NUMBER, "answer_url": "http://example.com/answer"}
MAY_DIAL: dict[str, Any] = {
    "dial_prefixes": "+49",
    "dial_caller_ids": "+4930*",
    "dial_calls": 1000,
    "dial_calls_per_minute": 10_000,
    "dial_minutes_per_day": 10_000,
}


@pytest.fixture
def dialer(api: Api, owner: Owner) -> Api:
    """Return the API of an account that may dial."""
    fields = {"dial": "PJSIP/{number}@provider", "prefixes": "+", "calls": 0, "per_second": 0}
    trunk_store.add(owner.redis, trunks.make("main", fields), (), lambda *_: None)
    accounts.update(owner.redis, "A", **MAY_DIAL)
    return api


def ordered(owner: Owner) -> tuple[CallOptions, tuple[CallToPlace, ...]]:
    """Return what the latest command orders."""
    command = owner.commands[-1].addressed.command
    assert isinstance(command, do.PlaceCalls)
    return command.options, command.calls


def test_one_call(dialer: Api, owner: Owner) -> None:
    placed = dialer.post("Call/", PLACED)
    assert (placed.status, placed.json["message"]) == (201, "call fired")
    options, (call,) = ordered(owner)
    assert (call.call_uuid, call.to, call.from_) == (placed.json["request_uuid"], f"+{NUMBER}", "4930123456")
    assert (call.caller_name, call.attempts[0].endpoint) == ("4930123456", f"PJSIP/{NUMBER}@provider")
    assert options == CallOptions(answer_url="http://example.com/answer")
    assert owner.stage.asterisk.dialed == [f"PJSIP/{NUMBER}@provider"]


def test_several_destinations_as_python_java_and_ruby_send_them(dialer: Api, owner: Owner) -> None:
    for to in (f"{NUMBER}<{OTHER}", f"{NUMBER} < {OTHER} <", [NUMBER, OTHER]):
        placed = dialer.post("Call/", {**PLACED, "to": to})
        assert (placed.status, placed.json["message"]) == (201, "calls fired")
        assert placed.json["request_uuid"] == [call.call_uuid for call in ordered(owner)[1]]
        assert [call.to for call in ordered(owner)[1]] == [f"+{NUMBER}", f"+{OTHER}"]


def test_every_parameter(dialer: Api, owner: Owner) -> None:
    url = "http://example.com/"
    methods = {f"{name}_method": "GET" for name in ("answer", "ring", "hangup", "fallback", "machine_detection")}
    urls = {f"{name}_url": f"{url}{name}" for name in ("answer", "ring", "hangup", "fallback", "machine_detection")}
    more = {
        "caller_name": "Ann",
        "send_digits": "1w2W@100",
        "send_on_preanswer": "True",
        "time_limit": "60",
        "hangup_on_ring": 0,
        "ring_timeout": "30",
        "machine_detection": "HANGUP",
        "machine_detection_time": 2000,
        "machine_detection_maximum_speech_length": 1000,
        "machine_detection_initial_silence": 2000,
        "machine_detection_maximum_words": 2,
        "machine_detection_initial_greeting": 1000,
        "sip_headers": "a=1,B2=x%20y,",
        "parent_call_uuid": "none",
        "something_else": "ignored",
    }
    assert dialer.post("Call/", {**PLACED, **urls, **methods, **more}).status == 201
    options, (call,) = ordered(owner)
    assert (call.caller_name, call.time_limit_s) == ("Ann", 60)
    assert (options.ring_url, options.ring_method, options.fallback_url) == (f"{url}ring", "GET", f"{url}fallback")
    assert (options.hangup_url, options.hangup_method, options.answer_method) == (f"{url}hangup", "GET", "GET")
    assert (options.send_digits, options.time_limit_s, options.hangup_on_ring_s) == ("1w2W@100", 60, 0)
    assert options.ring_timeout_s == 30 and options.headers == (("X-PH-a", "1"), ("X-PH-B2", "x%20y"))
    detection = options.machine_detection
    assert detection is not None and (detection.if_machine, detection.url) == ("hangup", f"{url}machine_detection")
    assert (detection.time_ms, detection.maximum_words, detection.initial_greeting_ms) == (2000, 2, 1000)


def test_numbers_and_objects_in_json(dialer: Api, owner: Owner) -> None:
    odd = {"from": 4930123456, "to": int(NUMBER), "send_digits": 12, "sip_headers": {"Team": "blue", "N": 1}}
    assert dialer.post("Call/", {**PLACED, **odd}).status == 201
    options, (call,) = ordered(owner)
    assert (call.to, call.from_, options.send_digits) == (f"+{NUMBER}", "4930123456", "12")
    assert options.headers == (("X-PH-Team", "blue"), ("X-PH-N", "1"))


def test_what_the_python_sdk_always_sends_turns_nothing_on(dialer: Api, owner: Owner) -> None:
    always = {"machine_detection_time": 5000, "machine_detection_method": "POST", "ring_timeout": 120}
    empty = dict.fromkeys(("ring_url", "send_digits", "caller_name", "sip_headers", "machine_detection"), "")
    null = dict.fromkeys(("hangup_url", "time_limit", "hangup_on_ring", "parent_call_uuid"))
    assert dialer.post("Call/", {**PLACED, **always, **empty, **null}).status == 201
    assert ordered(owner)[0] == CallOptions(answer_url="http://example.com/answer")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("from", ""),
        ("from", None),
        ("to", ""),
        ("to", "<"),
        ("to", {"a": 1}),
        ("to", True),
        ("sip_headers", ["a=1"]),
        ("sip_headers", 5),
        ("caller_name", 5),
        ("machine_detection", ["true"]),
        ("time_limit", {}),
        ("error_if_parent_not_found", {}),
        ("to", "<".join(str(4915100000000 + n) for n in range(1001))),
        ("answer_url", "ftp://example.com/"),
        ("answer_url", None),
        ("ring_url", "example.com"),
        ("ring_method", "PUT"),
        ("time_limit", 0),
        ("time_limit", 86_401),
        ("ring_timeout", 0),
        ("hangup_on_ring", -1),
        ("send_digits", "12a"),
        ("send_digits", "1@20"),
        ("send_digits", "1" * 101),
        ("sip_headers", "a b=1"),
        ("sip_headers", "a"),
        ("sip_headers", "a=\r\nB: c"),
        ("caller_name", "x" * 51),
        ("caller_name", "a\nb"),
        ("machine_detection", "maybe"),
        ("machine_detection_time", 1999),
        ("machine_detection_maximum_words", 11),
    ],
)
def test_a_bad_parameter_is_named(dialer: Api, owner: Owner, name: str, value: Any) -> None:
    refused = dialer.post("Call/", {**PLACED, name: value})
    assert refused.status == 400 and name in refused.json["error"]
    assert not owner.commands


def test_one_refused_destination_refuses_the_request_and_counts_nothing(dialer: Api, owner: Owner) -> None:
    refused = dialer.post("Call/", {**PLACED, "to": f"{NUMBER}<14155550100"})
    assert refused.status == 403 and "14155550100" in refused.json["error"]
    assert not owner.commands and not owner.redis.zcard("ari_conf:dialing-calls:A")


def test_nothing_is_dialed_for_an_account_that_may_not(api: Api, owner: Owner) -> None:
    assert api.post("Call/", PLACED).status == 403
    assert not owner.commands


def test_a_parent_that_does_not_exist(dialer: Api, owner: Owner) -> None:
    for name in ("error_if_parent_not_found", "error_parent_not_found"):
        refused = dialer.post("Call/", {**PLACED, "parent_call_uuid": "none", name: "true"})
        assert (refused.status, "parent_call_uuid" in refused.json["error"]) == (404, True)
    owner.joins("ann")
    placed = dialer.post("Call/", {**PLACED, "parent_call_uuid": "call-ann", "error_if_parent_not_found": True})
    assert placed.status == 201 and ordered(owner)[0].parent_call_uuid == "call-ann"


def test_a_parent_that_is_no_call_of_the_account_is_not_in_the_history(dialer: Api, owner: Owner) -> None:
    assert dialer.post("Call/", {**PLACED, "parent_call_uuid": "none"}).status == 201
    assert ordered(owner)[0].parent_call_uuid is None


def test_the_same_key_twice_dials_once(dialer: Api, owner: Owner) -> None:
    first, second = [dialer.post("Call/", PLACED, Idempotency_Key="k") for _ in range(2)]
    assert first.json == second.json and len(owner.stage.asterisk.dialed) == 1


def test_without_a_server_nothing_is_dialed_and_nothing_counts(dialer: Api, owner: Owner) -> None:
    owner.asterisk_is_there = False
    assert dialer.post("Call/", PLACED).status == 503
    owner.asterisk_is_there = True
    owner.redis.set("ari_conf:owner:fake", "")
    assert dialer.post("Call/", PLACED).status == 503
    assert not owner.stage.asterisk.dialed and not owner.redis.zcard("ari_conf:dialing-calls:A")


@within(1)
def test_a_server_that_does_not_answer_in_time(dialer: Api, owner: Owner) -> None:
    owner.deaf = True
    refused = dialer.post("Call/", PLACED)
    assert refused.status == 503 and "nothing was dialed" in refused.json["error"]
    assert not owner.redis.zcard("ari_conf:dialing-calls:A")


# Live and queued calls.


def test_live_calls(dialer: Api, owner: Owner) -> None:
    uuid = dialer.post("Call/", PLACED).json["request_uuid"]
    owner.plays(lambda stage: stage.call("bob", stay()))
    assert sorted(dialer.get("Call/?status=live").json["calls"]) == sorted(["call-bob", uuid])
    assert dialer.get("Call/?status=live&call_direction=outbound").json["calls"] == [uuid]
    assert dialer.get("Call/?status=live&to_number=345678").json["calls"] == [uuid]
    assert dialer.get("Call/?status=live&limit=1&offset=2").json["calls"] == []
    assert dialer.get("Call/?status=queued").json["calls"] == []
    shown = dialer.get(f"Call/{uuid}?status=live").json
    assert (shown["call_status"], shown["direction"], shown["to"]) == ("ringing", "outbound", NUMBER)
    assert shown["request_uuid"] == shown["call_uuid"] == uuid and shown["session_start"].startswith("2023-11-14 ")
    assert dialer.get("Call/call-bob/?status=live").json["call_status"] == "in-progress"
    assert dialer.get(f"Call/{uuid}/").status == dialer.get(f"Call/{uuid}/?status=queued").status == 404
    assert dialer.get("Call/none/?status=live").status == 404


def test_queued_calls(dialer: Api, owner: Owner) -> None:
    owner.stage.engine.registry.dial_pace.per_second = 1
    placed = dialer.post("Call/", {**PLACED, "to": f"{NUMBER}<{OTHER}"}).json
    assert placed["message"] == "call queued"
    _, waits = placed["request_uuid"]
    assert dialer.get("Call/?status=queued").json["calls"] == [waits]
    assert dialer.get(f"Call/{waits}/?status=queued").json["call_status"] == "queued"
    assert dialer.delete(f"Request/{waits}/").status == 204
    assert dialer.get("Call/?status=queued").json["calls"] == []


# Hanging up.


@pytest.mark.parametrize("path", ["Call/{}/", "Call/{}", "Request/{}/"])
def test_one_is_hung_up(dialer: Api, owner: Owner, path: str) -> None:
    uuid = dialer.post("Call/", PLACED).json["request_uuid"]
    # Plivo's Python SDK sends the UUID in the body as well.
    assert dialer.delete(path.format(uuid), {"call_uuid": uuid}).status == 204
    assert dialer.delete(path.format(uuid)).status == 404
    assert not owner.channels


def test_all_are_hung_up(dialer: Api, owner: Owner) -> None:
    dialer.post("Call/", {**PLACED, "to": f"{NUMBER}<{OTHER}"})
    owner.joins("ann")
    owner.joins("bob", auth="B")
    assert dialer.delete("Call/").status == 204
    assert owner.channels == {"bob"}

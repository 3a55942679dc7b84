"""Tests of `GET Call/` and `GET Call/{uuid}/`: records of ended calls in Plivo's format."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import pytest

from ari_conf.store.accounts import DAY_MS
from tests.web.conftest import Api, Served, account
from tests.web.past import NOW_MS, Past

TYPES: dict[str, type | tuple[type, ...]] = {
    "call_uuid": str,
    "parent_call_uuid": (str, type(None)),
    "conference_uuid": (str, type(None)),
    "from_number": str,
    "to_number": str,
    "call_direction": str,
    "call_state": str,
    "initiation_time": str,
    "answer_time": (str, type(None)),
    "end_time": str,
    "call_duration": int,
    "bill_duration": int,
    "billed_duration": int,
    "total_amount": str,
    "total_rate": str,
    "hangup_cause_code": int,
    "hangup_cause_name": str,
    "hangup_source": str,
    "stir_verification": str,
    "stir_attestation": str,
    "voice_network_group": str,
    "source_ip": (str, type(None)),
    "cnam_lookup": (str, type(None)),
    "resource_uri": str,
}
"""Fields of a record and their types, as Plivo's SDKs read them."""


@pytest.fixture
def past(served: Served) -> Past:
    return Past(served.settings)


def listed(api: Api, **query: Any) -> list[str]:
    response = api.get(f"Call/?{urlencode(query)}")
    assert response.status == 200, response.json
    return [one["call_uuid"] for one in response.json["objects"]]


def at(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(" ")[:19]


def test_a_record_has_the_fields_of_plivo_s(api: Api, past: Past):
    past.call("u1")
    past.member("c1", 1, 0, 10, call_uuid="u1")
    past.member("c2", 2, 20, 30, call_uuid="u1")
    for found in (api.get("Call/u1/").json, api.get("Call/").json["objects"][0]):
        found.pop("api_id", None)
        assert found.keys() == TYPES.keys()
        assert all(isinstance(found[name], kind) for name, kind in TYPES.items())
        assert found["end_time"] == at(NOW_MS - 10_500) + "+00:00"
        assert (found["call_duration"], found["bill_duration"], found["billed_duration"]) == (80, 70, 120)
        assert (found["call_state"], found["hangup_cause_code"], found["total_amount"]) == ("ANSWER", 4000, "0.00000")
        assert found["resource_uri"] == "/v1/Account/A/Call/u1/"
        assert found["conference_uuid"] == "c2", "the last of its conferences"


def test_a_call_that_was_not_answered(api: Api, past: Past):
    for name, code in (("busy", 3010), ("canceled", 1000), ("failed", 8011)):
        past.call(name, answered_ms=None, bill_duration_s=0, hangup_cause_code=code, hangup_cause_name="x")
    states = {one["call_uuid"]: one["call_state"] for one in api.get("Call/").json["objects"]}
    assert states == {"busy": "BUSY", "canceled": "CANCEL", "failed": "FAILED"}
    assert api.get("Call/busy/").json["answer_time"] is None


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({}, "abc"),
        ({"call_direction": "outbound"}, "b"),
        ({"from_number": "4155"}, "ab"),
        ({"from_number": "+1 (415) 555"}, "ab"),
        ({"from_number": "%"}, ""),
        ({"to_number": "SIP:zoe"}, "c"),
        ({"bill_duration": 30}, "b"),
        ({"bill_duration__gt": 30}, "c"),
        ({"bill_duration__gte": 30}, "bc"),
        ({"bill_duration__lt": 30}, "a"),
        ({"bill_duration__lte": 30}, "ab"),
        ({"parent_call_uuid": "p"}, "c"),
        ({"hangup_cause_code": 3010}, "a"),
        ({"hangup_source": "API Request"}, "b"),
        ({"from_number": "4155", "bill_duration__gte": 30}, "b"),
        ({"limit": 1}, "a"),
        ({"limit": 1, "offset": 1}, "b"),
        ({"end_time": at(NOW_MS - 2000)}, "b"),
        ({"end_time__gt": at(NOW_MS - 3000), "end_time__lt": at(NOW_MS - 1000)}, "b"),
        ({"end_time__lte": at(NOW_MS - 8 * DAY_MS)}, "z"),
        ({"end_time__gte": "2020-01-01 00:00"}, "abcz"),
        ({"call_direction": "", "from_number": "", "bill_duration": "", "status": ""}, "abc"),
    ],
)
def test_filters(api: Api, past: Past, query: dict[str, Any], found: str):
    """Without an end_time, the calls of the last week are listed."""
    base = (NOW_MS // 1000) * 1000
    past.call("a", ended_ms=base - 1000, bill_duration_s=10, hangup_cause_code=3010)
    past.call("b", ended_ms=base - 2000, bill_duration_s=30, direction="outbound", hangup_source="API Request")
    past.call(
        "c",
        ended_ms=base - 3000,
        bill_duration_s=60,
        from_number="4930123456",
        to_number="sip:zoe@example.com",
        parent_call_uuid="p",
    )
    past.call("z", ended_ms=base - 9 * DAY_MS, from_number="1")
    if query.get("from_number") == "%":
        assert api.get("Call/?from_number=%25").json["objects"] == []
    else:
        assert listed(api, **query) == list(found)


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ({"limit": "21"}, "limit: Input should be less than or equal to 20"),
        ({"offset": "100001"}, "offset"),
        ({"subaccount": "SA1"}, "subaccounts are not offered"),
        ({"cursor": "x"}, "use limit and offset"),
        ({"call_direction__gt": "x"}, "use call_direction"),
        ({"call_direction": "up"}, "'inbound' or 'outbound'"),
        ({"end_time": "yesterday"}, "expected YYYY-MM-DD HH:MM"),
        ({"bill_duration__gt": "-1"}, "greater than or equal to 0"),
        ({"status": "live"}, "status: 'live' is not allowed; expected no status"),
        ({"status": "queued"}, "status: 'queued' is not allowed; expected no status"),
        ({"status": "dead"}, "'live' or 'queued'"),
        # What would become an empty text would list everything.
        ({"from_number": "\u200b"}, "from_number: has only invisible characters"),
        ({"to_number": "\u200b\u2060 "}, "to_number: has only invisible characters"),
        ({"from_number": "+"}, "expected digits of a number"),
    ],
)
def test_parameters_that_are_not_allowed(api: Api, query: dict[str, str], error: str):
    response = api.get(f"Call/?{urlencode(query)}")
    assert response.status == 400
    assert error in response.json["error"]


def test_pages(api: Api, past: Past):
    for number in range(5):
        past.call(f"u{number}", ended_ms=NOW_MS - number)
    first = api.get("Call/?limit=2&call_direction=inbound").json
    assert first["meta"]["total_count"] == 5
    assert first["meta"]["previous"] is None
    second = api.get(first["meta"]["next"]).json
    assert [one["call_uuid"] for one in second["objects"]] == ["u2", "u3"]
    third = api.get(second["meta"]["next"]).json
    assert [one["call_uuid"] for one in third["objects"]] == ["u4"]
    assert third["meta"]["next"] is None


def test_a_live_call_has_no_record(api: Api, past: Past):
    past.call("of-B", auth_id="B")
    for name in ("unknown", "of-B", "x" * 5000, "%00"):
        response = api.get(f"Call/{name}/")
        assert response.status == 404
        assert "call not found" in response.json["error"] and "status=live" in response.json["error"]
    assert api.get("Call/u1/?status=live").status == 400


def test_an_account_sees_its_own_calls(api: Api, served: Served, past: Past):
    past.call("of-A")
    past.call("of-B", auth_id="B", parent_call_uuid="of-A")
    assert listed(api) == ["of-A"]
    assert listed(api, parent_call_uuid="of-A") == []
    assert listed(account(served, "B")) == ["of-B"]

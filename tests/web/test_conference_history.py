"""Tests of `GET ConferenceHistory/` and `GET ConferenceHistory/{uuid}/`, as JSON and as CSV."""

from __future__ import annotations

import csv
import io
from typing import Any
from urllib.parse import urlencode

import pytest

from ari_conf.history import conference_queries, queries
from ari_conf.web import csv_response
from tests.web.conftest import Api, Served, account
from tests.web.past import HOUR_MS, NOW_MS, Past
from tests.web.test_call_history import at

ZERO_WIDTH = "\u200b"


@pytest.fixture
def past(served: Served) -> Past:
    return Past(served.settings)


@pytest.fixture
def two(past: Past) -> Past:
    """Return the past with two conferences, the later of which had three members."""
    past.conference("c1", name="all hands", ended_ms=NOW_MS - HOUR_MS, created_ms=NOW_MS - 2 * HOUR_MS)
    past.conference("c2", members=3)
    past.member("c2", 1, 0, 600, mos=4.31, mos_worst=2.04, loss_in=0.25, measured_s=590.4, line_was_bad=True)
    past.member("c2", 2, 10, 300, from_number="4930123456", caller_name="Zoë", exit_reason="kick", talk_ms=5000)
    past.member("c2", 3, 300, 600, from_number="", caller_name="=HYPERLINK(1)", exit_reason="conference_ended")
    past.talk("c2", 2, 20, 22.5)
    past.talk("c2", 2, 30, 32.5)
    past.recording("r1", "c2")
    for number, outcome in enumerate(("delivered", "delivered", "dead")):
        past.callback(f"k{number}", "c2", outcome)
    past.problem("p1", "call-1")
    past.problem("p2", "call-elsewhere")
    return past


def rows(text: bytes) -> list[dict[str, str]]:
    assert text.decode().startswith("\ufeff")
    return list(csv.DictReader(io.StringIO(text.decode("utf-8-sig"))))


def listed(api: Api, **query: Any) -> list[str]:
    response = api.get(f"ConferenceHistory/?{urlencode(query)}")
    assert response.status == 200, response.json
    return [one["conference_uuid"] for one in response.json["objects"]]


def test_the_list_counts_what_belongs_to_each(api: Api, two: Past):
    response = api.get("ConferenceHistory/").json
    assert response["meta"]["total_count"] == 2
    later, earlier = response["objects"]
    assert later == {
        "conference_uuid": "c2",
        "conference_name": "standup",
        "started": True,
        "start_time": later["start_time"],
        "end_time": later["end_time"],
        "duration": 600,
        "end_reason": "conference_ended",
        "member_count": 3,
        "peak_member_count": 2,
        "recording_count": 1,
        "callbacks": {"delivered": 2, "dead": 1},
        "problem_count": 1,
        "resource_uri": "/v1/Account/A/ConferenceHistory/c2/",
    }
    assert earlier["peak_member_count"] == earlier["recording_count"] == earlier["problem_count"] == 0
    assert earlier["callbacks"] == {"delivered": 0, "dead": 0}


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"conference_name": "all hands"}, ["c1"]),
        ({"conference_name": f"all{ZERO_WIDTH} hands"}, ["c1"]),
        ({"conference_name": "all"}, []),
        ({"search": "STAND"}, ["c2"]),
        ({"search": "an"}, ["c2", "c1"]),
        ({"search": "zo"}, ["c2"]),
        ({"search": "49 (30) 12"}, ["c2"]),
        ({"search": "+4930"}, ["c2"]),
        ({"search": "%"}, []),
        ({"search": "_"}, []),
        ({"number": "+49 30"}, ["c2"]),
        ({"number": "999"}, []),
        ({"number": "4930", "search": "hands"}, []),
        ({"end_time__gte": at(NOW_MS - HOUR_MS + 60_000)}, ["c2"]),
        ({"end_time__lt": at(NOW_MS - HOUR_MS + 60_000)}, ["c1"]),
        ({"limit": 1}, ["c2"]),
        ({"limit": 1, "offset": 1}, ["c1"]),
        ({"search": "", "number": "", "conference_name": "", "end_time": ""}, ["c2", "c1"]),
    ],
)
def test_filters(api: Api, two: Past, query: dict[str, Any], found: list[str]):
    assert listed(api, **query) == found


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ({"search": ZERO_WIDTH}, "search: has only invisible characters"),
        ({"conference_name": f" {ZERO_WIDTH}"}, "conference_name: has only invisible characters"),
        ({"number": ZERO_WIDTH}, "number: has only invisible characters"),
        ({"limit": "101"}, "limit"),
        ({"offset": "-1"}, "offset"),
        ({"format": "xml"}, "'json' or 'csv'"),
        ({"end_time__lt": "2026"}, "expected YYYY-MM-DD HH:MM"),
    ],
)
def test_parameters_that_are_not_allowed(api: Api, query: dict[str, str], error: str):
    for form in ({}, {"format": "csv"}):
        response = api.get(f"ConferenceHistory/?{urlencode(form | query)}")
        assert response.status == 400 and error in response.json["error"]


def test_one_conference_has_its_members_on_a_timeline(api: Api, two: Past):
    found = api.get("ConferenceHistory/c2/").json
    assert (found["conference_name"], found["duration_ms"], found["peak_member_count"]) == ("standup", 600_000, 2)
    ann, zoe, third = found["members"]
    assert [(m["join_ms"], m["exit_ms"]) for m in found["members"]] == [
        (0, 600_000),
        (10_000, 300_000),
        (300_000, 600_000),
    ]
    assert (ann["talk"], ann["talk_duration_ms"]) == ([], None)
    assert ann["quality"] == {
        "mos": 4.3,
        "worst_mos": 2.0,
        "loss_in": 0.2,
        "loss_out": None,
        "jitter_in_ms": None,
        "jitter_out_ms": None,
        "round_trip_ms": None,
        "measured_s": 590,
        "bad": True,
    }
    assert zoe["talk"] == [{"start_ms": 20_000, "end_ms": 22_500}, {"start_ms": 30_000, "end_ms": 32_500}]
    assert (zoe["member_id"], zoe["from"], zoe["exit_reason"], zoe["quality"]) == ("2", "4930123456", "kick", None)
    assert third["caller_name"] == "=HYPERLINK(1)", "JSON has what the caller chose"
    (recording,) = found["recordings"]
    assert (recording["recording_id"], recording["start_ms"], recording["duration_ms"]) == ("r1", 60_000, 30_000)
    assert [one["text"] for one in found["problems"]] == ["problem p1"]
    assert sorted(one["state"] for one in found["deliveries"]) == ["dead", "delivered", "delivered"]
    delivery = found["deliveries"][0]
    assert (delivery["event"], delivery["url"], delivery["attempts"]) == (
        "ConferenceEnter",
        "http://***@example.com/events",
        1,
    )


def test_a_conference_without_members_in_common_time(api: Api, past: Past):
    """A member who leaves when another joins was not there at the same time."""
    past.conference("c1", members=3)
    for member in range(3):
        past.member("c1", member, member * 10, member * 10 + 10)
    assert api.get("ConferenceHistory/").json["objects"][0]["peak_member_count"] == 1


def test_the_list_as_csv(api: Api, two: Past):
    two.conference("c3", name="=cmd|' /C calc'!A0", ended_ms=NOW_MS)
    asked = [
        api.get("ConferenceHistory/?format=csv"),
        api.get("ConferenceHistory/", Accept="text/csv, */*;q=0.1"),
        api.get("ConferenceHistory/?format=csv&limit=1"),
    ]
    for response in asked:
        assert response.status == 200
        assert response.headers["Content-Type"] == "text/csv; charset=utf-8"
        assert response.headers["Content-Disposition"] == "attachment; filename*=UTF-8''conferences.csv"
        assert "Link" not in response.headers
        found = rows(response.text)
        assert [one["conference_uuid"] for one in found] == ["c3", "c2", "c1"]
        assert found[0]["conference_name"] == "'=cmd|' /C calc'!A0"
        assert (found[1]["peak_member_count"], found[1]["callbacks_dead"], found[1]["started"]) == ("2", "1", "true")
    filtered = rows(api.get("ConferenceHistory/?format=csv&search=hands").text)
    assert [one["conference_name"] for one in filtered] == ["all hands"]


def test_the_members_as_csv(api: Api, two: Past):
    response = api.get("ConferenceHistory/c2/?format=csv")
    assert response.headers["Content-Disposition"] == "attachment; filename*=UTF-8''standup.csv"
    ann, zoe, third = rows(response.text)
    assert (ann["mos"], ann["bad_line"], ann["talk_duration"]) == ("4.3", "true", "")
    assert (zoe["from"], zoe["caller_name"], zoe["exit_reason"], zoe["talk_duration"]) == (
        "4930123456",
        "Zoë",
        "kick",
        "5",
    )
    assert (third["caller_name"], third["mos"], third["bad_line"]) == ("'=HYPERLINK(1)", "", "")


def test_a_long_list_comes_in_files_of_limited_size(api: Api, past: Past, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(csv_response, "MAX_ROWS", 6)
    monkeypatch.setattr(csv_response, "BATCH_ROWS", 3)
    for number in range(8):
        past.conference(f"c{number}", ended_ms=NOW_MS - number)
    first = api.get("ConferenceHistory/?format=csv&search=stand")
    assert [one["conference_uuid"] for one in rows(first.text)] == [f"c{number}" for number in range(6)]
    place, _, relation = first.headers["Link"].partition(";")
    assert relation == ' rel="next"'
    second = api.get(place.strip("<>"))
    assert [one["conference_uuid"] for one in rows(second.text)] == ["c6", "c7"]
    assert "Link" not in second.headers


def test_what_does_not_exist(api: Api, two: Past):
    two.conference("of-B", auth_id="B")
    for name in ("unknown", "of-B", "x" * 5000, "%00"):
        for form in ("", "?format=csv"):
            response = api.get(f"ConferenceHistory/{name}/{form}")
            assert response.status == 404 and "conference not found" in response.json["error"]


def test_an_account_sees_its_own(api: Api, served: Served, two: Past):
    """Also if the ids of another account's rows were the same, its numbers are not counted."""
    two.conference("of-B", auth_id="B", name="of-B")
    two.recording("r2", "c2", auth_id="B")
    two.callback("k9", "c2", "dead", auth_id="B")
    two.problem("p9", "call-1", auth_id="B")
    assert listed(api) == ["c2", "c1"]
    own = api.get("ConferenceHistory/").json["objects"][0]
    assert (own["recording_count"], own["callbacks"]["dead"], own["problem_count"]) == (1, 1, 1)
    assert len(api.get("ConferenceHistory/c2/").json["problems"]) == 1
    assert b"of-B" not in api.get("ConferenceHistory/?format=csv").text
    other = account(served, "B")
    assert listed(other) == ["of-B"]
    assert other.get("ConferenceHistory/c2/").status == 404


def test_the_result_is_sent_to_a_callback_url(api: Api, two: Past):
    response = api.get("ConferenceHistory/?callback_url=http://127.0.0.1:1/")
    assert response.status == 202 and response.json.keys() == {"api_id"}


def test_more_than_are_counted(api: Api, past: Past, monkeypatch: pytest.MonkeyPatch):
    """A client that follows `next` gets all of them."""
    for module in (conference_queries, queries):
        monkeypatch.setattr(module, "MAX_COUNTED", 3)
    for number in range(5):
        past.conference(f"c{number}", ended_ms=NOW_MS - number)
    path, found = "ConferenceHistory/?limit=2", list[str]()
    while path:
        response = api.get(path).json
        found += [one["conference_uuid"] for one in response["objects"]]
        path = response["meta"]["next"]
    assert found == [f"c{number}" for number in range(5)]

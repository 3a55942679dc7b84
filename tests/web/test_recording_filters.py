"""Tests of the filters that Plivo's SDK offers for lists of recordings."""

from __future__ import annotations

import re

import pytest
from pydantic import ValidationError

from ari_conf.store.accounts import DAY_MS
from ari_conf.web.routes.recording_filters import TIME_SCHEMA, Filters

NOW_MS = 1_795_000_000_000


def meant(**given: object) -> list[float]:
    """Return the ages, in ms, of the recordings that match."""
    first, last = Filters.model_validate(given).start_range(NOW_MS / 1000)
    return [age for age in AGES if first <= NOW_MS - age <= last]


AGES = [0, DAY_MS - 1, DAY_MS, 2 * DAY_MS - 1, 2 * DAY_MS, 3 * DAY_MS - 1, 3 * DAY_MS]


@pytest.mark.parametrize(
    ("given", "ages"),
    [
        ({}, AGES),
        ({"recording_storage_duration": 1}, AGES[2:4]),
        ({"recording_storage_duration": "0"}, AGES[:2]),
        ({"recording_storage_duration__gt": 1}, AGES[4:]),
        ({"recording_storage_duration__gte": 1}, AGES[2:]),
        ({"recording_storage_duration__lt": 1}, AGES[:2]),
        ({"recording_storage_duration__lte": 1}, AGES[:4]),
        ({"recording_storage_duration__gt": 0, "recording_storage_duration__lt": 2}, AGES[2:4]),
    ],
)
def test_for_how_many_whole_days_they_have_been_kept(given: dict[str, object], ages: list[float]) -> None:
    assert meant(**given) == ages


def test_when_they_were_made() -> None:
    filters = Filters.model_validate({"add_time__gt": "2026-11-22 10:00", "add_time__lte": "2026-11-22 10:00:01.5"})
    first, last = filters.start_range(NOW_MS / 1000)
    assert (last - first, first % 60_000) == (1499, 1)


@pytest.mark.parametrize("day", ["01-01", "01-31", "02-20", "02-28", "04-30", "10-10", "12-10", "12-31"])
@pytest.mark.parametrize("time", ["00:00", "09:59:59", "19:45:07.5", "23:10:30.123456"])
def test_described_times_are_accepted(day: str, time: str) -> None:
    text = f"2026-{day} {time}"
    assert re.search(TIME_SCHEMA["pattern"], text)
    assert Filters.model_validate({"add_time": text}).add_time is not None


@pytest.mark.parametrize("text", ["\u200b", " ", " \u2060\u00ad", "\u202e"])
def test_a_name_that_nobody_can_see_does_not_list_everything(text: str) -> None:
    with pytest.raises(ValidationError, match="has only invisible characters"):
        Filters.model_validate({"conference_name": text})
    assert Filters.model_validate({"conference_name": f"a{text}b"}).index_terms["name"] != ""
    assert Filters.model_validate({"conference_name": ""}).index_terms == {}


@pytest.mark.parametrize("text", ["2026-02-30 10:00", "2026-13-01 10:00", "2026-04-31 10:00", "2026-01-01 24:00"])
def test_times_that_do_not_exist_are_not_described(text: str) -> None:
    assert not re.search(TIME_SCHEMA["pattern"], text)
    with pytest.raises(ValidationError):
        Filters.model_validate({"add_time": text})


@pytest.mark.parametrize(
    ("name", "response"),
    [
        ("mpc_name", "use conference_name"),
        ("mpc_uuid", "use conference_uuid"),
        ("subaccount", "subaccounts are not offered"),
        ("cursor", "limit and offset"),
        ("recording_storage_duration", "valid integer"),
        ("add_time__gt", "YYYY-MM-DD"),
    ],
)
def test_unsupported_filter_is_refused(name: str, response: str) -> None:
    assert Filters.model_validate({name: ""}).index_terms == {}
    with pytest.raises(ValidationError, match=response):
        Filters.model_validate({name: "x"})

"""Plivo's Python SDK reads ended calls: unmodified, except for the addresses that it has."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import plivo
import pytest
from plivo.exceptions import ResourceNotFoundError, ValidationError
from plivo.resources import lookup
from plivo.rest import base_client, client, phlo_client

from tests.web.conftest import Served, account
from tests.web.past import NOW_MS, Past
from tests.web.test_call_history import TYPES, at

AUTH_ID = "MAXXXXXXXXXXXXXXXXXX"
MODULES = (client, base_client, phlo_client, lookup)


@pytest.fixture
def past(served: Served) -> Past:
    return Past(served.settings)


@pytest.fixture
def sdk(served: Served) -> Iterator[plivo.RestClient]:
    """Yield a client, set up as docs/guide/sdks.md says."""
    before = [dict(vars(module)) for module in MODULES]
    for module in MODULES:
        for name, value in list(vars(module).items()):
            if isinstance(value, str) and value.startswith("https://") and "plivo.com" in value:
                setattr(module, name, f"http://127.0.0.1:{served.port}{urlsplit(value).path}")
    yield plivo.RestClient(AUTH_ID, account(served, AUTH_ID).token)
    for module, values in zip(MODULES, before, strict=True):
        vars(module).update(values)


def test_list_with_every_filter(sdk: plivo.RestClient, past: Past):
    past.call("u1", AUTH_ID, parent_call_uuid="p", direction="outbound")
    past.call("u2", AUTH_ID, from_number="442071838750", ended_ms=NOW_MS - 5000)
    found = sdk.calls.list()
    assert [one.call_uuid for one in found] == ["u2", "u1"]
    assert found.meta.total_count == 2 and len(found) == 2
    assert set(TYPES) <= set(vars(found[0]))
    found = sdk.calls.list(
        call_direction="outbound",
        from_number="14155550100",
        to_number="14155550199",
        bill_duration=70,
        end_time__gt=at(NOW_MS - 60_000),
        end_time__gte=at(NOW_MS - 60_000),
        end_time__lt=at(NOW_MS + 60_000),
        end_time__lte=at(NOW_MS + 60_000),
        parent_call_uuid="p",
        hangup_cause_code=4000,
        hangup_source="Caller",
        limit=5,
        offset=0,
    )
    assert [one.call_uuid for one in found] == ["u1"]


def test_one_call(sdk: plivo.RestClient, past: Past):
    past.call("u1", AUTH_ID)
    found = sdk.calls.get("u1")
    assert (found.call_uuid, found.bill_duration, found.total_amount) == ("u1", 70, "0.00000")
    with pytest.raises(ResourceNotFoundError, match="use status=live"):
        sdk.calls.get("unknown")


def test_all_pages(sdk: plivo.RestClient, past: Past):
    """The SDK's own walk through all pages follows `meta.next`."""
    for number in range(45):
        past.call(f"u{number}", AUTH_ID, ended_ms=NOW_MS - number)
    assert [one.call_uuid for one in sdk.calls] == [f"u{number}" for number in range(45)]


def test_a_parameter_that_is_not_allowed(sdk: plivo.RestClient):
    with pytest.raises(ValidationError, match="expected YYYY-MM-DD HH:MM"):
        sdk.calls.list(end_time="yesterday")
    with pytest.raises(ValidationError, match="subaccounts are not offered"):
        sdk.calls.list(subaccount="SA" + "X" * 18)

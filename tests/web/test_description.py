"""The OpenAPI description is served and is true, and what it lists keeps accounts apart."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.web.conftest import Api, Owner, Served, account

BODIES = {"Play": {"url": "https://example.com/a.mp3"}, "Speak": {"text": "hello"}, "Announce": {"text": "hello"}}


def calls(description: dict[str, Any]) -> list[tuple[str, str]]:
    return [(method.upper(), path) for path, found in description["paths"].items() for method in found]


def test_it_is_openapi_3_1_and_names_every_call(api: Api):
    told = api.get("/openapi.json", Authorization="")
    assert told.status == 200
    assert told.json["openapi"].startswith("3.1.")
    found = calls(told.json)
    assert len(found) >= 24
    place = "/v1/Account/{auth_id}/Conference/{name}/"
    for call in (("GET", place), ("DELETE", place), ("POST", place + "Member/{member_id}/Kick/")):
        assert call in found
    for method, path in found:
        described = told.json["paths"][path][method.lower()]
        assert described["security"] == [{"Basic": []}]
        assert "422" not in described["responses"]
        assert {"400", "401", "404", "429", "503"} <= described["responses"].keys()


def _body(path: str) -> dict[str, Any]:
    return BODIES.get(path.rstrip("/").rpartition("/")[2], {})


def _filled(path: str, auth_id: str) -> str:
    """Of another account's: its conference, all of its members, its dead letter."""
    values = {"auth_id": auth_id, "name": "standup", "member_id": "all", "id": "1-1", "recording_id": "r1"}
    for name, value in values.items():
        path = path.replace(f"{{{name}}}", value)
    assert "{" not in path, f"{path}: say here what another account has of that"
    return path


def test_no_call_reaches_another_account(api: Api, served: Served, owner: Owner):
    """Enumerated from the description: a call that is new is tested without being named here."""
    other = account(served, "B")
    for name in ("ann", "bob"):
        owner.joins(name, "standup", auth="B")
    before = other.get("Conference/standup/").json["members"]
    for method, path in calls(api.get("/openapi.json").json):
        told = api.send(method, _filled(path, "B"), _body(path))
        assert (told.status, told.json["error"]) == (404, "not found"), (method, path)
        if "{name}" in path or "{id}" in path:
            told = api.send(method, _filled(path, "A"), _body(path))
            assert told.status == 404, (method, path)
        told = api.send(method, _filled(path, "B"), _body(path), Authorization="")
        assert told.status == 401, (method, path)
    assert not owner.commands
    after = other.get("Conference/standup/").json["members"]
    assert [m | {"join_time": ""} for m in after] == [m | {"join_time": ""} for m in before]
    # They would have been done, had they been the account's own.
    assert other.post("Conference/standup/Member/all/Mute/").status == 202


CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.mark.parametrize("there", [True, False], ids=["a conference", "none"])
def test_it_is_true(api: Api, owner: Owner, there: bool):
    """Calls made up from the description are answered as it says, whether or not there is a conference."""
    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{api.port}/openapi.json")
    # A stream of events has no end: test_events looks at it.
    schema = schema.exclude(path_regex="/Events/$")
    for result in schema.get_all_operations():
        operation = result.ok()

        @settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        @given(case=operation.as_strategy())
        def holds(case: schemathesis.Case) -> None:
            case.path_parameters["auth_id"] = "A"
            if there and "name" in case.path_parameters:
                if owner.stage.conference() is None:
                    owner.joins(f"ann{len(owner.commands)}")
                case.path_parameters["name"] = "standup"
            if "member_id" in case.path_parameters and there:
                case.path_parameters["member_id"] = "all"
            case.call_and_validate(auth=("A", api.token), checks=CHECKS)

        holds()

"""Tests of the OpenAPI description: it is served and correct, and the calls that it lists keep accounts apart."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from ari_conf.core.effects import PostCallback
from ari_conf.core.elements import Wait
from ari_conf.core.problem_kinds import ProblemKind
from ari_conf.queues import outbox, partitioned_queue
from ari_conf.recordings import index, jobs
from ari_conf.store.problems import Problem, problems_key
from tests.web.conftest import Api, Owner, Served, account
from tests.web.past import Past
from tests.web.test_dashboard_page import Browser
from tests.web.test_dead_letters import dies

SOUND = "https://example.com/a.mp3"
BODIES = {
    "Play": {"url": SOUND, "urls": SOUND},
    "Speak": {"text": "hello"},
    "Announce": {"text": "hello"},
    "{call_uuid}": {"aleg_url": "https://example.com/document"},
    "DTMF": {"digits": "1"},
}


def calls(description: dict[str, Any]) -> list[tuple[str, str]]:
    return [(method.upper(), path) for path, found in description["paths"].items() for method in found]


def security(description: dict[str, Any], method: str, path: str) -> list[Any]:
    return list(description["paths"][path][method.lower()]["security"])


def test_it_is_openapi_3_1_and_names_every_call(api: Api):
    response = api.get("/openapi.json", Authorization="")
    assert response.status == 200
    assert response.json["openapi"].startswith("3.1.")
    found = calls(response.json)
    assert len(found) >= 24
    place = "/v1/Account/{auth_id}/Conference/{name}/"
    for call in (("GET", place), ("DELETE", place), ("POST", place + "Member/{member_id}/Kick/")):
        assert call in found
    for method, path in found:
        described = response.json["paths"][path][method.lower()]
        assert described["security"] in ([{"Basic": []}], [{"Administrator": []}])
        assert "422" not in described["responses"]
        assert {"400", "401", "404", "429", "503"} <= described["responses"].keys()


def _body(path: str) -> dict[str, Any]:
    return BODIES.get(path.rstrip("/").rpartition("/")[2], {})


class Others:
    """Another account, with a conference of two members, a recording, a dead letter, a callback and a problem."""

    def __init__(self, served: Served, owner: Owner) -> None:
        self.api = account(served, "B")
        for name in ("ann", "bob"):
            owner.joins(name, "standup", auth="B")
        self.letter = dies(owner, "B", "http://example.com/of-B")
        callback = PostCallback("c1", "B", "http://example.com/of-B", "POST", (("Event", "ConferenceEnter"),))
        partitioned_queue.enqueue(owner.redis, [outbox.enqueue_item(callback, 1)])
        problem = Problem(1, "u1", ProblemKind.DOCUMENT_WARNING, "of-B")
        owner.redis.lpush(problems_key("B"), msgspec.json.encode(problem))
        kept = index.StoredRecording(
            recording_id="r1",
            auth_id="B",
            conference_id="c1",
            conference_name="of-B",
            call_uuid="u1",
            file_format="mp3",
            key="recordings/B/2026/01/01/r1.mp3",
            size=1,
            duration_ms=1,
            start_ms=1,
            end_ms=2,
            stored_ms=3,
            record_url="http://127.0.0.1/of-B",
        )
        jobs.add(owner.redis, kept, [], None)
        past = Past(served.settings)
        past.call("u1", auth_id="B", caller_name="of-B", from_number="sip:of-B@example.com")
        past.conference("c1", auth_id="B", name="of-B")

    def filled(self, path: str, auth_id: str) -> str:
        values = {"auth_id": auth_id, "name": "standup", "member_id": "all", "id": self.letter, "recording_id": "r1"}
        values |= {"call_uuid": "call-ann", "conference_uuid": "c1"}
        for name, value in values.items():
            path = path.replace(f"{{{name}}}", value)
        assert "{" not in path, f"{path}: add the value that another account has for it"
        return path


def test_no_call_reaches_another_account(api: Api, served: Served, owner: Owner):
    """The calls come from the description, so that none is missing; each is tried with Basic and with the cookie."""
    others = Others(served, owner)
    browser = Browser(api)
    before = others.api.get("Conference/standup/").json["members"]
    described = api.get("/openapi.json").json
    # tests/web/test_accounts.py and test_trunks.py test those of administrators.
    found = [one for one in calls(described) if security(described, *one) == [{"Basic": []}]]
    assert len(calls(described)) - len(found) == 12
    for method, path in found:
        whole, body = others.filled(path, "B"), _body(path)
        for response in (api.send(method, whole, body), browser.send(method, whole, body)):
            assert (response.status, response.json["error"]) == (404, "not found"), (method, path)
        # A conference that is not live in the account is created by those who are called into it.
        if path.partition("{auth_id}")[2].count("{") and not path.endswith("{name}/Member/"):
            own = others.filled(path, "A")
            for response in (api.send(method, own, body), browser.send(method, own, body)):
                assert (response.status, "not found" in response.json["error"]) == (404, True), (method, path)
        for cookie in ("", "ari_conf=" + "x" * 43):
            assert api.send(method, whole, body, Authorization="", Cookie=cookie).status == 401, (method, path)
    assert not owner.commands
    after = others.api.get("Conference/standup/").json["members"]
    assert [m | {"join_time": ""} for m in after] == [m | {"join_time": ""} for m in before]
    _is_in_no_list(api, others, [path for method, path in found if method == "GET"])
    # The commands would have succeeded on the account's own conference.
    assert others.api.post("Conference/standup/Member/all/Mute/").status == 202


def _is_in_no_list(api: Api, others: Others, paths: list[str]) -> None:
    # tests/web/test_event_stream.py and test_call_states.py test these.
    others_tested = ("/Events/", "/CallState/")
    lists = [path for path in paths if path.count("{") == 1 and not path.endswith(others_tested)]
    assert len(lists) >= 5
    for path in lists:
        assert b"of-B" not in api.get(others.filled(path, "A")).text
        response = others.api.get(others.filled(path, "B")).text
        is_by_uuid = path.endswith(("/Conference/", "/Call/"))
        assert b"of-B" in response or is_by_uuid, f"{path}: nothing in it could be seen"


def _live_call(owner: Owner) -> str:
    """Return the UUID of a live call: a transfer to a document that does not exist has ended the one before."""
    live = [call.call_uuid for call in owner.stage.engine.calls.values() if call.call_uuid.startswith("call-cal")]
    if live:
        return live[0]
    name = f"cal{len(owner.commands)}"
    owner.plays(lambda stage: stage.call(name, Wait(999), answered=True))
    return f"call-{name}"


CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.mark.parametrize("there", [True, False], ids=["a conference", "none"])
def test_it_is_true(api: Api, owner: Owner, served: Served, there: bool):
    """Calls generated from the description are answered as it says, with and without a conference."""
    past = Past(served.settings)
    if there:
        past.call("u1")
        past.conference("c1", members=1)
        past.member("c1", 1, 0, 10, call_uuid="u1", mos=4.4)
    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{api.port}/openapi.json")
    # A stream of events never ends: test_event_stream tests it.
    schema = schema.exclude(path_regex="/Events/$")
    for result in schema.get_all_operations():
        operation = result.ok()

        @settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        @given(case=operation.as_strategy())
        def holds(case: schemathesis.Case) -> None:
            if "auth_id" in case.path_parameters:
                case.path_parameters["auth_id"] = "A"
            if there and "name" in case.path_parameters:
                if owner.stage.conference() is None:
                    owner.joins(f"ann{len(owner.commands)}")
                case.path_parameters["name"] = "standup"
            if there:
                case.path_parameters |= {
                    name: value
                    for name, value in (("call_uuid", "u1"), ("conference_uuid", "c1"))
                    if name in case.path_parameters
                }
            if "member_id" in case.path_parameters and there:
                case.path_parameters["member_id"] = "all"
            if "call_uuid" in case.path_parameters and there:
                case.path_parameters["call_uuid"] = _live_call(owner)
            case.call_and_validate(auth=("A", api.token), checks=CHECKS)

        holds()

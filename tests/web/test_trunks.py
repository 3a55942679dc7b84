"""The administrator's API of trunks, and what accounts may dial, as the API has it."""

from __future__ import annotations

import asyncio
import re
import urllib.request
from typing import Any

import pytest

from ari_conf.administration import audit
from ari_conf.dialing.admission import Admitted
from ari_conf.store import accounts, problems
from ari_conf.web import dial_admission
from ari_conf.web.auth import ApiClient
from ari_conf.web.errors import ApiError
from tests.web.conftest import Answered, Api, Owner, Served

KEY = "k" * 32
ALL, ROUTE = "/v1/Trunk/", "/v1/Route/"
MAIN = {"name": "main", "dial": "PJSIP/{number}@main", "prefixes": "+49,+43"}


@pytest.fixture
def variables() -> dict[str, str]:
    listed = '[{"name": "fixed", "dial": "PJSIP/{e164}@fixed", "prefixes": ["+1"]}]'
    return {"ARI_CONF_ADMIN_KEY": KEY, "ARI_CONF_TRUNKS": listed, "ARI_CONF_DEFAULT_COUNTRY": "de"}


def send(api: Api, method: str, path: str, body: Any = None, **headers: Any) -> Answered:
    return api.send(method, path, body, **{"Authorization": f"Bearer {KEY}", **headers})


def test_a_trunk_is_created_changed_and_removed(api: Api, owner: Owner):
    made = send(api, "POST", ALL, MAIN | {"hosts": ["SIP.example.com"]})
    assert made.status == 201
    assert made.json["trunk"] == {
        "name": "main",
        "dial": "PJSIP/{number}@main",
        "prefixes": ["+49", "+43"],
        "caller_ids": [],
        "hosts": ["sip.example.com"],
        "calls": 30,
        "per_second": 5,
        "priority": 0,
        "enabled": True,
        "in_settings": False,
    }
    assert send(api, "POST", ALL, MAIN).status == 409
    changed = send(api, "PATCH", f"{ALL}main/", {"calls": 5, "hosts": "", "enabled": False})
    assert [changed.json["trunk"][name] for name in ("calls", "hosts", "enabled")] == [5, [], False]
    assert send(api, "GET", f"{ALL}main/").json["trunk"] == changed.json["trunk"]
    assert [one["name"] for one in send(api, "GET", ALL).json["objects"]] == ["fixed", "main"]
    assert send(api, "DELETE", f"{ALL}main/").status == 204
    for method in ("GET", "PATCH", "DELETE"):
        assert send(api, method, f"{ALL}main/", {"calls": 1} if method == "PATCH" else None).status == 404
    told = [(one.action, one.details) for one in audit.read(owner.redis)[1]]
    assert told[0] == ("trunk removed", {"trunk": "main"})
    changes = {"hosts": "sip.example.com → none", "calls": "30 → 5", "enabled": "true → false"}
    assert told[1] == ("trunk changed", {"trunk": "main", **changes})
    assert told[2] == (
        "trunk created",
        {"trunk": "main", "dial": MAIN["dial"], "prefixes": "+49,+43", "hosts": "sip.example.com"},
    )


def test_a_trunk_of_the_settings_cannot_be_changed(api: Api):
    assert send(api, "GET", f"{ALL}fixed/").json["trunk"]["in_settings"] is True
    for method, path, body in (
        ("PATCH", f"{ALL}fixed/", {"calls": 1}),
        ("DELETE", f"{ALL}fixed/", None),
        ("POST", ALL, MAIN | {"name": "fixed"}),
    ):
        response = send(api, method, path, body)
        assert response.status == 409 and "ARI_CONF_TRUNKS" in response.json["error"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "name is required"),
        ({"name": "a"}, "dial is required"),
        (MAIN | {"dial": "Local/{number}@ari_conf"}, "expected PJSIP/{number}@ENDPOINT"),
        (MAIN | {"name": "a b"}, "name: 'a b' is not allowed"),
        (MAIN | {"prefixes": "49x"}, "prefixes: '49x' is not allowed"),
        (MAIN | {"calls": -1}, "calls"),
        (MAIN | {"other": 1}, "there is no such parameter"),
    ],
)
def test_a_trunk_with_a_wrong_field_is_refused(api: Api, body: Any, says: str):
    response = send(api, "POST", ALL, body)
    assert response.status == 400 and says in response.json["error"]


def test_accounts_have_no_access(api: Api):
    for path in (ALL, f"{ALL}fixed/", ROUTE):
        assert api.send("GET", path).status == 404
        assert api.send("GET", path, Authorization="").status == 401


def test_what_an_account_may_dial_is_among_its_fields(api: Api, owner: Owner):
    fields = {"dial_prefixes": "de, +43", "dial_caller_ids": "+49 30 123456", "dial_calls": 2}
    changed = send(api, "PATCH", "/v1/Account/A/", fields)
    assert changed.status == 200
    shown = changed.json["account"]
    assert (shown["dial_prefixes"], shown["dial_caller_ids"], shown["dial_calls"]) == ("DE,+43", "+4930123456", 2)
    record = accounts.get(owner.redis, "A")
    assert record is not None and record.permissions().prefixes == "DE,+43"
    assert accounts.parse_exported(accounts.encode(record)) == record
    wrong = send(api, "PATCH", "/v1/Account/A/", {"dial_prefixes": "Germany"})
    assert wrong.status == 400 and "dial_prefixes: 'Germany' is not allowed; expected beginnings" in wrong.json["error"]
    assert send(api, "PATCH", "/v1/Account/A/", {"dial_prefixes": ""}).json["account"]["dial_prefixes"] == ""


def test_a_route_is_explained(api: Api):
    send(api, "POST", ALL, MAIN)
    asked = f"{ROUTE}?auth_id=A&to=030%20123456"
    refused = send(api, "GET", asked + "&from=030%20999999").json
    assert (refused["reason"], refused["dialed"], refused["category"]) == ("destination_not_allowed", [], "ordinary DE")
    send(api, "PATCH", "/v1/Account/A/", {"dial_prefixes": "DE", "dial_caller_ids": "+4930999999"})
    found = send(api, "GET", asked).json
    assert (found["destination"], found["caller_id"], found["reason"]) == ("+4930123456", "+4930999999", None)
    assert found["dialed"] == ["PJSIP/4930123456@main"]
    assert found["trunks"] == [
        {"trunk": "main", "prefix": "+49", "refusal": ""},
        {"trunk": "fixed", "prefix": "", "refusal": "none of its prefixes matches"},
    ]
    assert send(api, "GET", f"{ROUTE}?auth_id=A&to=x").json["reason"] == "destination_invalid"
    assert send(api, "GET", f"{ROUTE}?auth_id=NOBODY&to=x").status == 404


def admit(served: Served, to: str, from_: str = "+4930999999") -> Admitted:
    """Admit a call as a route of the API does."""

    async def ask() -> Admitted:
        resources = served.app.state.resources
        record = accounts.read("A", await resources.redis.hget(accounts.KEY, "A"))
        return await dial_admission.admit(ApiClient("api-id", resources, record), "call", from_, to)

    return asyncio.run_coroutine_threadsafe(ask(), served.loop).result(10)


def test_a_refusal_is_a_403_a_problem_and_a_metric(api: Api, served: Served, owner: Owner):
    send(api, "PATCH", "/v1/Account/A/", {"dial_prefixes": "US", "dial_caller_ids": "+4930999999"})
    assert [one.endpoint for one in admit(served, "+12125550100").attempts] == ["PJSIP/+12125550100@fixed"]
    for _ in range(2):
        with pytest.raises(ApiError) as refused:
            admit(served, "+4930123456")
    assert refused.value.status == 403
    assert refused.value.error.startswith("destination_not_allowed: the account may not call +4930123456")
    (problem,) = problems.read_problems(owner.redis, "A")
    assert (problem.kind, problem.text) == ("dialing_refused", refused.value.error)
    with pytest.raises(ApiError) as invalid:
        admit(served, "+12125550100&PJSIP/900@fixed")
    assert invalid.value.status == 400
    text = urllib.request.urlopen(f"http://127.0.0.1:{served.port}/metrics").read().decode()
    counts = dict(re.findall(r'ari_conf_dial_refusals_total{reason="(\w+)"} (\d)', text))
    assert {name: count for name, count in counts.items() if count != "0"} == {
        "destination_not_allowed": "2",
        "destination_invalid": "1",
    }
    assert owner.redis.zcard("ari_conf:dialing-calls:A") == 1

"""States of placed calls, as the dashboard asks for them: how far each is, and how it ended."""

from __future__ import annotations

import pytest

from ari_conf.errors import HistoryUnavailable
from ari_conf.history import queries
from tests.core.stage import stay
from tests.web.conftest import Api, Owner, Served
from tests.web.past import Past
from tests.web.test_calls import NUMBER, OTHER, PLACED, dialer

__all__ = ["dialer"]


def states(api: Api, *call_uuids: str) -> dict[str, str]:
    found = api.get(f"CallState/?call_uuid={','.join(call_uuids)}")
    assert found.status == 200, found.json
    return {one["call_uuid"]: one["state"] for one in found.json["calls"]}


def test_live_and_queued_calls(dialer: Api, owner: Owner) -> None:
    owner.stage.engine.registry.dial_pace.per_second = 1
    calling, waits = dialer.post("Call/", {**PLACED, "to": f"{NUMBER}<{OTHER}"}).json["request_uuid"]
    owner.plays(lambda stage: stage.call("bob", stay()))
    found = states(dialer, calling, waits, "call-bob", "none")
    assert found == {calling: "calling", waits: "queued", "call-bob": "answered", "none": "ended"}


def test_the_call_of_another_account_is_not_shown(dialer: Api, owner: Owner) -> None:
    owner.joins("bob", auth="B")
    assert states(dialer, "call-bob") == {"call-bob": "ended"}


@pytest.mark.parametrize("wrong", ["", ",", "a" * 65, ",".join(map(str, range(21)))])
def test_a_wrong_list_is_refused(api: Api, wrong: str) -> None:
    refused = api.get(f"CallState/?call_uuid={wrong}")
    assert refused.status == 400 and "call_uuid" in refused.json["error"]


def test_how_a_call_ended(api: Api, served: Served) -> None:
    past = Past(served.settings)
    past.call("u1", hangup_cause_code=3010, hangup_cause_name="Busy Line", answered_ms=None)
    past.call("u2", auth_id="B")
    found = api.get("CallState/?call_uuid=u1,u2").json["calls"]
    ended = {"state": "ended", "hangup_cause_code": None, "hangup_cause_name": None}
    assert found == [
        {"call_uuid": "u1", "state": "ended", "hangup_cause_code": 3010, "hangup_cause_name": "Busy Line"},
        {"call_uuid": "u2", **ended},
    ]


def test_live_states_do_not_need_the_history(dialer: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise HistoryUnavailable("away")

    monkeypatch.setattr(queries, "get_call", away)
    uuid = dialer.post("Call/", PLACED).json["request_uuid"]
    assert states(dialer, uuid, "none") == {uuid: "calling", "none": "ended"}

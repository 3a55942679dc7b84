"""Tests of the process: its answers to a load balancer."""

from __future__ import annotations

from ari_conf.common.version import VERSION
from tests.web.conftest import Api, Served


def test_it_is_there_and_ready(served: Served, api: Api):
    for path, body in (("/healthz", {"status": "ok", "version": VERSION}), ("/readyz", {"status": "ok"})):
        response = api.get(path, Authorization="")
        assert (response.status, response.json) == (200, body)
    metrics = api.get("/metrics", Authorization="").text.decode()
    assert f'ari_conf_build_info{{version="{VERSION}"}} 1.0' in metrics


def test_a_call_of_plivo_s_that_is_not_offered_says_so(api: Api):
    response = api.get("Message/?limit=5")
    error = "Plivo's Message/ is not offered here; docs/reference/compatibility.md lists what is"
    # `objects`: Plivo's Python SDK asks for the length of a list before it reports the error.
    assert (response.status, response.json) == (404, {"api_id": response.json["api_id"], "error": error, "objects": []})
    response = api.post("Message", {"src": "1", "dst": "2", "text": "hello"})
    assert (response.status, response.json) == (404, {"api_id": response.json["api_id"], "error": error})
    assert api.get("Nonsense/").json["error"] == "not found"
    assert api.get("Conference/x/Nonsense/").json["error"] == "not found"


def test_asynchronous_calls_are_finished_before_it_ends(served: Served, api: Api):
    for _ in range(5):
        assert api.get("Conference/?callback_url=https%3A%2F%2Fexample.com").status == 202
    served.__exit__()
    assert len(list(served.owner.redis.scan_iter("ari_conf:callbacks:partition:*"))) == 5

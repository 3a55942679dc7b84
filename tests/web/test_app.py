"""The process: what it tells a load balancer."""

from __future__ import annotations

from tests.web.conftest import Api, Served


def test_it_is_there_and_ready(served: Served, api: Api):
    for path in ("/healthz", "/readyz"):
        told = api.get(path, Authorization="")
        assert (told.status, told.json) == (200, {"status": "ok"})


def test_asynchronous_calls_are_finished_before_it_ends(served: Served, api: Api):
    for _ in range(5):
        assert api.get("Conference/?callback_url=https%3A%2F%2Fexample.com").status == 202
    served.__exit__()
    assert len(list(served.owner.redis.scan_iter("ari_conf:callbacks:lane:*"))) == 5

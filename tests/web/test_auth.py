"""Tests of authentication and rate limits."""

from __future__ import annotations

import time

import pytest

from ari_conf.store import accounts
from tests.web.conftest import Api, Owner, Served, account, basic


def test_without_credentials(api: Api):
    response = api.get("Conference/", Authorization="")
    assert response.status == 401
    assert response.headers["WWW-Authenticate"].startswith("Basic")
    assert set(response.json) == {"api_id", "error"}


@pytest.mark.parametrize(
    "given", ["Basic", "Basic !!!", "Basic " + "x" * 5000, "Bearer abc", basic("A", ""), basic("", ""), basic("Ä", "ö")]
)
def test_with_wrong_ones(api: Api, given: str):
    assert api.get("Conference/", Authorization=given.encode().decode("latin-1")).status == 401


def test_another_accounts_path_is_not_found(api: Api, served: Served, owner: Owner):
    account(served, "B")
    owner.joins("eve", "standup", auth="B")
    assert api.get("Conference/", account="B").status == 404
    assert api.get("Conference/", account="nobody").status == 404
    assert api.get("Conference/standup/").status == 404


def test_an_old_token_holds_as_long_as_it_signs(api: Api, owner: Owner):
    new = accounts.rotate_token(owner.redis, "A", 10**15).token
    assert api.get("Conference/").status == 200
    api.token = new
    assert api.get("Conference/").status == 200


def test_after_repeated_failures_wrong_tokens_are_refused_and_the_right_one_is_taken(api: Api, served: Served):
    other = account(served, "B")
    right, api.token = api.token, "wrong"
    answers = [api.get("Conference/") for _ in range(12)]
    assert [response.status for response in answers] == [401] * 10 + [429] * 2
    assert 0 < int(answers[-1].headers["Retry-After"]) <= 60
    assert set(answers[-1].json) == {"api_id", "error"}
    # Another user of the account's address (NAT, a platform, a proxy that is not trusted) does not lock the account
    # out.
    api.token = right
    assert api.get("Conference/").status == 200
    assert other.get("Conference/").status == 200
    api.token = "wrong"
    assert api.get("Conference/").status == 429, "a correct token in between does not reset the count"


ADDRESSES = [
    ("203.0.113.9", "203.0.113.9"),
    ("203.0.113.9:5060", "203.0.113.9"),
    ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
    ("2001:db8:1:2::ffff", "2001:db8:1:2::/64"),
    ("::ffff:203.0.113.9", "203.0.113.9"),
    ("fe80::1%" + "x" * 5000, "fe80::/64"),
    ("x" * 50_000, "unknown"),
    ("no address", "unknown"),
    ("203.0.113.9\t" + "y" * 300, "unknown"),
    ("999.0.0.1", "unknown"),
    ("10.0.0.1, " + "z" * 300, "unknown"),
]


def test_only_an_address_becomes_a_key(api: Api, owner: Owner):
    """The test's address is a trusted proxy, which may claim any client address."""
    api.token = "wrong"
    for forwarded, _ in ADDRESSES:
        assert api.get("Conference/", X_Forwarded_For=forwarded).status == 401
    keys = {key.decode() for key in owner.redis.scan_iter("ari_conf:auth-failures:*")}
    assert keys == {f"ari_conf:auth-failures:{address}:A" for _, address in ADDRESSES}


def test_accounts_that_there_are_not_are_one_key(api: Api, owner: Owner):
    answers = [api.get("Conference/", Authorization=basic(f"made-up{n}", "x")).status for n in range(30)]
    answers += [api.get("Conference/", Authorization=basic("y" * n * 1000, "x")).status for n in range(5)]
    assert answers == [401] * 10 + [429] * 25
    assert owner.redis.keys("ari_conf:auth-failures:*") == [b"ari_conf:auth-failures:127.0.0.1:-"]
    assert 0 < owner.redis.ttl("ari_conf:auth-failures:127.0.0.1:-") <= 60


class TestRate:
    @pytest.fixture
    def variables(self) -> dict[str, str]:
        return {"ARI_CONF_API_RATE": "5"}

    def test_so_many_in_a_second_and_no_more(self, api: Api, served: Served):
        answers = [api.get("Conference/") for _ in range(30)]
        refused = [response for response in answers if response.status == 429]
        assert {response.status for response in answers} == {200, 429}
        assert refused[0].headers["Retry-After"] == "1"
        assert account(served, "B").get("Conference/").status == 200

    def test_the_second_is_redis_and_ends(self, api: Api, owner: Owner):
        """This holds at every `web`, whatever its clock shows."""
        while api.get("Conference/").status == 200:
            pass
        assert owner.redis.keys("ari_conf:api-rate:*") == [b"ari_conf:api-rate:A"]
        assert 0 < owner.redis.pttl("ari_conf:api-rate:A") <= 1000
        owner.redis.delete("ari_conf:api-rate:A")  # as time does
        assert api.get("Conference/").status == 200


def test_an_old_token_ends_by_the_clock_of_redis(api: Api, owner: Owner, monkeypatch: pytest.MonkeyPatch):
    """The `web` process's own clock does not decide: it may be an hour behind that of the machine that rotated the
    token."""
    now_ms = owner.redis.time()[0] * 1000
    accounts.rotate_token(owner.redis, "A", now_ms - 10_000, 5_000)
    monkeypatch.setattr(time, "time", lambda: (now_ms - 3_600_000) / 1000)
    assert api.get("Conference/").status == 401


def test_no_redis_is_a_503(served: Served, api: Api):
    assert api.get("/readyz").status == 200
    pool = served.server.config.app.state.resources.redis.connection_pool
    kept, pool.connection_kwargs = pool.connection_kwargs, pool.connection_kwargs | {"port": 1}  # a free port
    pool.reset()
    response = api.get("Conference/")
    assert (response.status, response.headers["Retry-After"]) == (503, "1")
    assert api.get("/readyz").status == 503
    assert api.get("/healthz").status == 200
    pool.connection_kwargs = kept

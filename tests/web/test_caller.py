"""Who may call, and how often."""

from __future__ import annotations

import pytest

from ari_conf import accounts
from tests.web.conftest import Api, Owner, Served, account, basic


def test_without_credentials(api: Api):
    told = api.get("Conference/", Authorization="")
    assert told.status == 401
    assert told.headers["WWW-Authenticate"].startswith("Basic")
    assert set(told.json) == {"api_id", "error"}


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


def test_after_repeated_failures_he_must_wait(api: Api, served: Served):
    other = account(served, "B")
    right, api.token = api.token, "wrong"
    assert [api.get("Conference/").status for _ in range(11)] == [401] * 10 + [429]
    api.token = right
    told = api.get("Conference/")
    assert told.status == 429
    assert 0 < int(told.headers["Retry-After"]) <= 60
    assert set(told.json) == {"api_id", "error"}
    assert other.get("Conference/").status == 200


class TestRate:
    @pytest.fixture
    def variables(self) -> dict[str, str]:
        return {"ARI_CONF_API_RATE": "5"}

    def test_so_many_in_a_second_and_no_more(self, api: Api, served: Served):
        answers = [api.get("Conference/") for _ in range(30)]
        refused = [told for told in answers if told.status == 429]
        assert {told.status for told in answers} == {200, 429}
        assert refused[0].headers["Retry-After"] == "1"
        assert account(served, "B").get("Conference/").status == 200


def test_no_redis_is_a_503(served: Served, api: Api):
    assert api.get("/readyz").status == 200
    pool = served.server.config.app.state.parts.redis.connection_pool
    kept, pool.connection_kwargs = pool.connection_kwargs, pool.connection_kwargs | {"port": 1}  # nobody listens there
    pool.reset()
    told = api.get("Conference/")
    assert (told.status, told.headers["Retry-After"]) == (503, "1")
    assert api.get("/readyz").status == 503
    assert api.get("/healthz").status == 200
    pool.connection_kwargs = kept

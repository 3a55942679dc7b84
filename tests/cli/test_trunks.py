"""Commands `ari-conf trunk …`, on a real Redis."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from ari_conf.cli.main import app
from ari_conf.dialing import trunk_store
from ari_conf.errors import TrunkError
from ari_conf.settings import settings
from ari_conf.store import accounts
from tests.redis import RedisServer


@pytest.fixture(autouse=True)
def configured(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ARI_CONF_REDIS_URL", redis_server.url)
    monkeypatch.setenv("ARI_CONF_CONFIG", "")
    monkeypatch.setenv("ARI_CONF_DEFAULT_COUNTRY", "DE")
    settings.cache_clear()
    yield
    settings.cache_clear()


def run(*words: str) -> tuple[int, str]:
    ran = CliRunner().invoke(app, ["trunk", *words])
    if ran.exception is not None and not isinstance(ran.exception, SystemExit):
        raise ran.exception
    return ran.exit_code, " ".join(ran.output.split())


def test_a_trunk_is_added_tested_changed_and_removed(redis_server: RedisServer):
    code, shown = run("add", "main", "PJSIP/{number}@provider", "--prefixes", "+49", "--caller-ids", "+4930*")
    assert code == 0 and "dial PJSIP/{number}@provider prefixes +49 caller_ids +4930*" in shown
    accounts.add(redis_server.client, 0, "acme", dial_prefixes="DE", dial_caller_ids="+4930123456")
    code, shown = run("test", "030 123456", "--account", "acme")
    assert code == 0 and shown.endswith("main +49 can be used 1. PJSIP/4930123456@provider")
    code, shown = run("test", "112", "--account", "acme")
    assert code == 1 and "Refused, special_number: 112 is an emergency number" in shown
    assert "none of its prefixes matches" in shown
    assert run("set", "main", "--disabled", "--calls", "2")[0] == 0
    trunk, _ = trunk_store.get(redis_server.client, "main")
    assert (trunk.enabled, trunk.calls, trunk.prefixes) == (False, 2, ("+49",))
    code, shown = run("test", "030 123456", "--account", "acme")
    assert code == 1 and "it is disabled" in shown and "Refused, no_trunk" in shown
    assert "disabled" in run("list")[1]
    assert run("remove", "main") == (0, "Trunk main was removed.")
    for words in (("show", "main"), ("remove", "main"), ("set", "main", "--calls", "1")):
        with pytest.raises(TrunkError, match="does not exist"):
            run(*words)


def test_what_is_not_allowed(redis_server: RedisServer):
    with pytest.raises(TrunkError, match="expected PJSIP"):
        run("add", "main", "Local/{number}@ari_conf")
    assert trunk_store.list_all(redis_server.client) == []

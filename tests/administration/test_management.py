"""Accounts as administrators create and change them: the rule about data that is left, and the audit log."""

import json
import syslog

import pytest
from redis import Redis
from structlog.testing import capture_logs

from ari_conf.administration import audit, management
from ari_conf.administration.audit import Actor
from ari_conf.errors import AccountConflict, AccountError, AccountNotFound
from ari_conf.store import accounts, removals
from ari_conf.store.removals import Remains, Removal
from tests.redis import RedisServer

ADMIN = Actor("alice", "api")
LEFT = {
    "1 recording": lambda redis: redis.zadd("ari_conf:recording-index:acme:all:", {"r1": 1}),
    "1 dead letter": lambda redis: redis.xadd("ari_conf:callbacks:dead-letters:acme", {"partition": "x", "entry": "x"}),
    "1 delivered callback": lambda redis: redis.lpush("ari_conf:callbacks:delivered:acme", "x"),
    "1 history entry": lambda redis: redis.hset("ari_conf:history-entries", "acme", 1),
    "2 history entries": lambda redis: redis.rpush("ari_conf:history-inbox:acme", "x", "y"),
    "1 callback": lambda redis: redis.hset("ari_conf:callbacks:entries", "acme", 1),
}


@pytest.fixture
def redis(redis_server: RedisServer) -> Redis:
    return redis_server.client


def removed(redis: Redis, phase: str = "removed") -> None:
    """Leave an account as its removal does, with a problem."""
    gone = Removal(auth_id="acme", record=None, calls="end", phase=phase, began_ms=1, phase_ms=1)  # type: ignore[arg-type]
    redis.hset(removals.KEY, "acme", removals.encode(gone))
    redis.lpush("ari_conf:problems:acme", "{}")


@pytest.mark.parametrize("what", LEFT)
@pytest.mark.parametrize("way", ["create", "import"])
def test_data_of_a_removed_account_is_given_to_no_new_one(redis: Redis, what: str, way: str):
    LEFT[what](redis)
    line = accounts.encode(accounts.AccountRecord(auth_id="acme", token="x" * 40, created_ms=1))

    def make(with_its_data: bool) -> None:
        if way == "create":
            management.create(redis, ADMIN, "acme", None, {}, with_its_data=with_its_data)
        else:
            management.import_exported(redis, ADMIN, line, with_its_data=with_its_data)

    with pytest.raises(AccountConflict, match=f"^{what} of a removed account acme still exist"):
        make(False)
    assert accounts.get(redis, "acme") is None
    assert audit.read(redis) == (0, []), "a refused change is no entry"
    make(True)
    assert accounts.get(redis, "acme") is not None


def test_problems_of_a_removed_account_count_and_those_of_calls_before_the_account_do_not(redis: Redis):
    redis.lpush("ari_conf:problems:other", "{}")
    management.create(redis, ADMIN, "other", None, {})
    removed(redis)
    with pytest.raises(AccountConflict, match=r"^1 problem of a removed account acme"):
        management.create(redis, ADMIN, "acme", None, {})
    redis.delete("ari_conf:problems:acme")
    management.create(redis, ADMIN, "acme", None, {})
    assert not redis.hexists(removals.KEY, "acme")


def test_an_account_that_is_being_removed_is_not_created_again(redis: Redis):
    removed(redis, "callbacks")
    for with_its_data in (False, True):
        with pytest.raises(AccountConflict, match="account acme is being removed"):
            management.create(redis, ADMIN, "acme", None, {}, with_its_data=with_its_data)
    with pytest.raises(AccountConflict, match="was removed"):
        accounts.add(redis, 1, "acme")


def test_each_change_is_in_the_audit_log_without_secrets(redis: Redis):
    with capture_logs() as logged:
        made = management.create(redis, ADMIN, "acme", None, {"answer_url": "https://u:pw@a.example/x?key=secret"})
        management.change(redis, ADMIN, "acme", {"answer_url": "https://b.example/", "max_members": 50})
        changed = management.change(redis, ADMIN, "acme", {}, "t" * 40)
        management.change(redis, ADMIN, "acme", {"hangup_url": "https://b.example/h"}, "u" * 40)
    total, found = audit.read(redis)
    assert total == 4 and [one.action for one in found] == ["changed", "token rotated", "changed", "created"]
    assert {(one.who, one.via, one.auth_id) for one in found} == {("alice", "api", "acme")}
    assert found[3].details == {"answer_url": "https://***@a.example/x"}
    assert found[2].details == {
        "answer_url": "https://***@a.example/x → https://b.example/",
        "max_members": "20 → 50",
    }
    assert found[1].details == {"auth_token": "replaced"}
    assert found[0].details == {"hangup_url": "none → https://b.example/h", "auth_token": "replaced"}
    kept = json.dumps(logged) + repr(redis.xrange(audit.KEY)) + repr(made) + repr(changed)
    assert not [secret for secret in (made.token, "t" * 40, "u" * 40, "pw@", "secret") if secret in kept]
    assert [entry["changed"] for entry in logged][:2] == ["answer_url", "answer_url, max_members"]
    assert audit.read(redis, "other") == (0, []) and audit.read(redis, "acme", 1, 3) == (4, [found[3]])


def test_a_refused_change_is_no_entry(redis: Redis):
    management.create(redis, ADMIN, "acme", None, {})
    with pytest.raises(AccountError, match="max_members"):
        management.change(redis, ADMIN, "acme", {"max_members": 0})
    with pytest.raises(AccountError, match="token is not allowed"):
        management.change(redis, ADMIN, "acme", {}, "short")
    with pytest.raises(AccountNotFound):
        management.change(redis, ADMIN, "other", {"max_members": 5})
    with pytest.raises(AccountConflict, match="already exists"):
        management.create(redis, ADMIN, "acme", None, {})
    assert audit.read(redis)[0] == 1


def test_the_audit_log_is_bounded(redis: Redis, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(audit, "MAX_ENTRIES", 200)
    entry = audit.entry(redis, ADMIN, "changed", "acme", {"answer_url": "x" * 1000})
    assert len(entry.details["answer_url"]) == audit.MAX_VALUE_LENGTH
    for _ in range(1000):
        audit.add(redis, entry)
    assert 200 <= redis.xlen(audit.KEY) < 500


def test_a_command_s_entry_is_in_syslog_and_names_the_user_behind_sudo(redis: Redis, monkeypatch: pytest.MonkeyPatch):
    written: list[str] = []
    monkeypatch.setattr(syslog, "syslog", lambda _, text: written.append(text))
    monkeypatch.setenv("SUDO_USER", "bob")
    user = audit.command_user()
    assert user.name.startswith("bob@") and user.via == "cli"
    with capture_logs() as logged:
        management.create(redis, user, "acme", "s" * 40, {})
    assert not logged and json.loads(written[0])["auth_id"] == "acme" and "s" * 40 not in written[0]


def test_accounts_are_listed_by_auth_id_with_those_that_are_being_removed(redis: Redis):
    for auth_id in ("b1", "a2", "c3"):
        management.create(redis, ADMIN, auth_id, None, {})
    removed(redis)
    redis.hset(accounts.KEY, "broken", b"{")
    total, found = management.list_page(redis, "", 3, 0)
    assert total == 5 and [one.auth_id for one in found] == ["a2", "acme", "b1"]
    assert found[1].removal is not None and found[1].record is None
    total, rest = management.list_page(redis, "", 3, 3)
    assert total == 5 and [one.auth_id for one in rest] == ["broken", "c3"] and rest[0].record is None
    assert [one.auth_id for one in management.list_page(redis, "B", 9, 0)[1]] == ["b1", "broken"]
    assert management.get(redis, "nobody") is None


def test_what_is_left_is_described_in_words():
    assert Remains(calls=1, dead_letters=2).described() == "1 call, 2 dead letters"
    assert Remains(recording_jobs=1).described() == "1 recording job"
    assert Remains().described() == ""

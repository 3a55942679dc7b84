import time

import pytest

from ari_conf.errors import AccountError
from ari_conf.store import accounts
from ari_conf.store.accounts import DAY_MS
from tests.redis import RedisServer

NOW = 1_790_000_000_000


def test_a_new_account_gets_an_id_and_a_token_like_plivos(redis_server: RedisServer):
    record = accounts.add(redis_server.client, NOW, answer_url="https://example.com/answer", answer_method="GET")
    assert len(record.auth_id) == 20
    assert record.auth_id.startswith("MA")
    assert len(record.token) == 40
    assert accounts.get(redis_server.client, record.auth_id) == record
    core = record.account()
    assert (core.auth_id, core.answer_url, core.answer_method) == (record.auth_id, "https://example.com/answer", "GET")


def test_an_auth_id_is_given_once(redis_server: RedisServer):
    accounts.add(redis_server.client, NOW, "MA1")
    with pytest.raises(AccountError, match="account MA1 already exists"):
        accounts.add(redis_server.client, NOW, "MA1")


@pytest.mark.parametrize("auth_id", ["", "MA 1", "MA:1", "../x", "ä", "M" * 41])
def test_an_auth_id_is_letters_and_digits(redis_server: RedisServer, auth_id: str):
    with pytest.raises(AccountError, match="letters and digits"):
        accounts.add(redis_server.client, NOW, auth_id)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("answer_url", "example.com/answer"),
        ("hangup_url", "ftp://example.com"),
        ("answer_method", "PUT"),
        ("transcription_rate", "cheap"),
        ("transcription_rate", "-1"),
        ("transcription_rate", "NaN"),
        ("transcription_language", "german"),
        ("max_members", 0),
        ("max_members", 1001),
        ("auth_id", "MA2"),
    ],
)
def test_invalid_field_of_an_account_is_named(redis_server: RedisServer, field: str, value: str):
    accounts.add(redis_server.client, NOW, "MA1")
    with pytest.raises((AccountError, TypeError), match=field):
        accounts.update(redis_server.client, "MA1", **{field: value})
    assert accounts.get(redis_server.client, "MA1").answer_url is None


def test_an_update_changes_what_it_names(redis_server: RedisServer):
    accounts.add(redis_server.client, NOW, "MA1", answer_url="https://example.com/a", transcription_rate="0.0095")
    accounts.update(redis_server.client, "MA1", fallback_url="https://example.com/f")
    accounts.update(redis_server.client, "MA1", answer_url=None)
    record = accounts.get(redis_server.client, "MA1")
    assert (record.answer_url, record.fallback_url) == (None, "https://example.com/f")
    assert (record.transcription_rate, record.transcription_language) == ("0.0095", "en")
    assert accounts.update(redis_server.client, "MA1", transcription_language="pt-BR").transcription_language == "pt"


def test_after_a_rotation_both_tokens_sign_for_a_day(redis_server: RedisServer):
    old = accounts.add(redis_server.client, NOW, "MA1").token
    record = accounts.rotate_token(redis_server.client, "MA1", NOW)
    assert record.token != old
    assert record.signing_tokens(NOW + DAY_MS - 1) == [record.token, old]
    assert record.signing_tokens(NOW + DAY_MS) == [record.token]


@pytest.mark.parametrize("ahead_s", [-10 * 24 * 3600, 10 * 24 * 3600])
def test_for_how_long_redis_clock_says(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, ahead_s: int):
    """The clocks of the machine that rotates and of those that sign may be wrong by days."""
    there = time.time
    monkeypatch.setattr(time, "time", lambda: there() + ahead_s)
    monkeypatch.setattr(time, "time_ns", lambda: int(time.time() * 1e9))
    old = accounts.add(redis_server.client, NOW, "MA1").token
    new = accounts.rotate_token(redis_server.client, "MA1").token
    assert accounts.get(redis_server.client, "MA1").signing_tokens() == [new, old]
    third = accounts.rotate_token(redis_server.client, "MA1", keep_ms=1).token
    seconds = redis_server.client.time()[0]
    while redis_server.client.time()[0] <= seconds + 1:  # it counts in whole seconds
        time.sleep(0.05)
    assert accounts.get(redis_server.client, "MA1").signing_tokens() == [third, old]


def test_rotations_that_follow_each_other_keep_the_newest_first(redis_server: RedisServer):
    first = accounts.add(redis_server.client, NOW, "MA1").token
    second = accounts.rotate_token(redis_server.client, "MA1").token
    third = accounts.rotate_token(redis_server.client, "MA1").token
    assert accounts.get(redis_server.client, "MA1").signing_tokens() == [third, second, first]
    for _ in range(accounts.MAX_OLD_TOKENS + 1):
        accounts.rotate_token(redis_server.client, "MA1")
    tokens = accounts.get(redis_server.client, "MA1").signing_tokens()
    assert third not in tokens, "each additional token makes all requests longer"


def test_a_stolen_token_can_be_ended_at_once(redis_server: RedisServer):
    accounts.add(redis_server.client, NOW, "MA1")
    accounts.rotate_token(redis_server.client, "MA1")
    record = accounts.rotate_token(redis_server.client, "MA1", keep_ms=0)
    assert record.signing_tokens() == accounts.get(redis_server.client, "MA1").signing_tokens() == [record.token]


def test_accounts_are_listed(redis_server: RedisServer):
    for auth_id in ("MB", "MA"):
        accounts.add(redis_server.client, NOW, auth_id)
    assert [record.auth_id for record in accounts.list_all(redis_server.client)] == ["MA", "MB"]
    redis_server.client.hset(accounts.KEY, mapping={"MC": b"{", "MD": b'{"auth_id":5}'})
    assert [record.auth_id for record in accounts.list_all(redis_server.client)] == ["MA", "MB"]
    with pytest.raises(AccountError, match="account MX does not exist"):
        accounts.update(redis_server.client, "MX")


def test_fields_and_token_change_together_or_not_at_all(redis_server: RedisServer):
    old = accounts.add(redis_server.client, NOW, "MA1").token
    with pytest.raises(AccountError, match="16 to 100"):
        accounts.change(redis_server.client, "MA1", {"max_members": 50}, "short")
    assert accounts.get(redis_server.client, "MA1").max_members == 20
    accounts.change(redis_server.client, "MA1", {"max_members": 50}, "n" * 40)
    record = accounts.get(redis_server.client, "MA1")
    assert (record.max_members, record.signing_tokens()) == (50, ["n" * 40, old])


def test_a_token_is_not_in_what_a_log_shows(redis_server: RedisServer):
    record = accounts.add(redis_server.client, NOW, "MA1")
    assert record.token not in f"{record!r} {record}"

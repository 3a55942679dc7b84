from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network

import pytest

from ari_conf.http_client import connect_sync, deliver, dns_lookup
from ari_conf.http_client.retry_policy import AttemptOutcome
from ari_conf.http_client.url_guard import Networks
from tests.http_client.conftest import LOOPBACK, PATIENT, Names
from tests.http_client.misbehaving import Receiver


@pytest.fixture(autouse=True)
def _nothing_kept_alive() -> Iterator[None]:
    connect_sync.thread_state.pools.clear()
    yield
    connect_sync.thread_state.pools.clear()


def post(url: str, networks: Networks = LOOPBACK, remaining_ms: int = 20_000) -> AttemptOutcome:
    return deliver.attempt(
        "POST",
        url,
        [("Event", "ConferenceEnter")],
        tokens=["token"],
        policy=PATIENT,
        allowed_networks=networks,
        remaining_ms=remaining_ms,
    )


def test_connections_are_kept_alive_without_a_look_up(receiver: Receiver, names: Names) -> None:
    names.answers = {"answer.test": [["127.0.0.1"]]}
    for _ in range(5):
        assert post(receiver.url("/ok", "answer.test")).ok
    assert len({seen.connection for seen in receiver.seen}) == 1
    assert names.asked == ["answer.test"]


def test_a_failed_status_keeps_the_connection(receiver: Receiver) -> None:
    assert post(receiver.url("/status/500")).status == 500
    assert post(receiver.url("/ok")).ok
    assert len({seen.connection for seen in receiver.seen}) == 1


def test_a_long_idle_connection_is_replaced_and_its_address_checked_again(
    receiver: Receiver, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    names.answers = {"answer.test": [["127.0.0.1"], ["127.0.0.2"]]}
    only = (ip_network("127.0.0.1/32"),)
    assert post(receiver.url("/ok", "answer.test"), only).ok
    monkeypatch.setattr(connect_sync, "KEEP_ALIVE_S", 0.0)
    assert post(receiver.url("/ok", "answer.test"), only).failure == "refused"
    assert len(receiver.seen) == 1


def test_a_connection_allowed_to_one_is_not_lent_to_another(receiver: Receiver, names: Names) -> None:
    names.answers = {"answer.test": [["127.0.0.1"]]}
    assert post(receiver.url("/ok", "answer.test")).ok
    assert post(receiver.url("/ok", "answer.test"), networks=()).failure == "refused"
    assert len(receiver.seen) == 1


def test_a_connection_is_not_reused_for_another_name_of_the_same_address(receiver: Receiver, names: Names) -> None:
    names.answers = {"one.test": [["127.0.0.1"]], "two.test": [["127.0.0.1"]]}
    assert post(receiver.url("/ok", "one.test")).ok
    assert post(receiver.url("/ok", "two.test")).ok
    assert len({seen.connection for seen in receiver.seen}) == 2


@pytest.mark.parametrize("path", ["/endless", "/stall", "/truncated", "/late"])
def test_a_connection_that_misbehaved_is_not_reused(receiver: Receiver, path: str) -> None:
    post(receiver.url(path), remaining_ms=200)
    assert post(receiver.url("/ok")).ok
    assert len({seen.connection for seen in receiver.seen}) == 2


def test_a_body_is_read_up_to_100_kb(receiver: Receiver) -> None:
    assert post(receiver.url(f"/large/{100 * 1024}")).ok
    assert post(receiver.url("/ok")).ok
    assert post(receiver.url(f"/large/{200 * 1024}")).ok
    assert post(receiver.url("/ok")).ok
    first, second, third, fourth = (seen.connection for seen in receiver.seen)
    assert first == second == third != fourth


def test_a_body_that_is_compressed_is_not_expanded(receiver: Receiver) -> None:
    """Expanded, it would be too long to be read to its end, and the connection would be closed."""
    assert post(receiver.url("/bomb")).ok
    assert post(receiver.url("/ok")).ok
    assert len({seen.connection for seen in receiver.seen}) == 1


def test_a_body_of_small_chunks_is_read_to_its_end(receiver: Receiver) -> None:
    """It has 100 KB, and as many bytes of framing."""
    assert post(receiver.url("/small-chunks/20000")).ok
    assert post(receiver.url("/ok")).ok
    assert len({seen.connection for seen in receiver.seen}) == 1


@pytest.mark.parametrize("path", ["/single-bytes/60000", "/endless-trailers", "/endless-extension"])
def test_a_body_with_too_much_framing_is_read_no_further(receiver: Receiver, path: str) -> None:
    post(receiver.url(path))
    assert post(receiver.url("/ok")).ok
    assert len({seen.connection for seen in receiver.seen}) == 2


def test_few_hosts_are_kept_alive(receiver: Receiver, names: Names) -> None:
    hosts = [f"host{number}.test" for number in range(connect_sync.MAX_HOSTS_KEPT_ALIVE + 5)]
    names.answers = {host: [["127.0.0.1"]] for host in hosts}
    for host in hosts:
        assert post(receiver.url("/ok", host)).ok
    assert len(connect_sync.thread_state.pools[LOOPBACK].pools) == connect_sync.MAX_HOSTS_KEPT_ALIVE


def test_names_are_looked_up_for_the_account(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """An account whose names hang uses only its own share of the threads."""
    asked: list[str] = []

    def look_up(account: str, *_: object) -> dns_lookup.Addresses:
        asked.append(account)
        raise TimeoutError

    monkeypatch.setattr(connect_sync.lookups, "look_up", look_up)
    for account in ("acme", "other"):
        outcome = deliver.attempt(
            "POST",
            "http://hangs.test/",
            (),
            tokens=["token"],
            policy=PATIENT,
            allowed_networks=LOOPBACK,
            remaining_ms=5000,
            account=account,
        )
        assert outcome.failure == "connect" and "its name was not resolved in time" in outcome.reason
    assert asked == ["acme", "other"]


def test_redirects_are_counted_whatever_they_lead_to(receiver: Receiver) -> None:
    assert post(receiver.url("/ok")).redirects == 0
    assert post(receiver.url("/hops/3")).redirects == 3
    assert post(receiver.url("/loop")).redirects == 5
    assert post(receiver.url("/redirect/302//status/500")).redirects == 1
    assert post(receiver.url("/redirect/302/http://10.0.0.1/")).redirects == 1


def test_no_time_left_is_a_try_that_failed(receiver: Receiver) -> None:
    outcome = post(receiver.url("/ok"), remaining_ms=0)
    assert (outcome.failure, outcome.reason) == ("read", "it did not respond in time")
    assert receiver.seen == []

"""Tests of the table of `retry_policy` through `deliver` and through `fetch`: both must give the same outcomes."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ari_conf.http_client import connect_async, connect_sync
from ari_conf.http_client.retry_policy import RETRIED_AS, AttemptOutcome, Failure, RetryPolicy
from tests.http_client.conftest import Attempt, Names
from tests.http_client.misbehaving import Receiver, full, receiving, refusing, silent
from tests.lateness import lasted

HASTY = RetryPolicy(connect_ms=400, read_ms=1000, total_ms=4000)


def took(outcome: AttemptOutcome, least_ms: int, below_ms: int) -> None:
    lasted(outcome.at_ms, outcome.at_ms + outcome.ms, least_ms, below_ms)


@pytest.mark.parametrize(
    ("path", "failure"),
    [
        ("/late", "read"),
        ("/stall", "read"),
        ("/closed", "broken"),
        ("/truncated", "broken"),
        ("/truncated-chunk", "broken"),
        ("/garbage", "broken"),
        ("/loop", "redirects"),
        ("/redirect/302/http://10.0.0.1/", "refused"),
    ],
)
async def test_failures(attempt: Attempt, receiver: Receiver, path: str, failure: Failure) -> None:
    outcome = await attempt(receiver.url(path), policy=HASTY)
    assert (outcome.failure, outcome.status) == (failure, 0)
    assert outcome.description
    # rt ended the wait, and not tt.
    took(outcome, 0, 3500)


@pytest.mark.parametrize(
    ("path", "failures"),
    [
        ("/endless-interim", {"body"}),
        ("/slow-interim", {"body"}),
        ("/interim/17", {"body"}),
        ("/headers/80", {"body"}),
        ("/endless-headers", {"body"}),
        # These may exceed limits of the libraries first.
        ("/endless-interim-headers", {"body", "broken"}),
        ("/endless-header", {"body", "broken"}),
    ],
)
async def test_a_head_has_an_end(attempt: Attempt, receiver: Receiver, path: str, failures: set[str]) -> None:
    outcome = await attempt(receiver.url(path), policy=RetryPolicy(connect_ms=5000, read_ms=20_000, total_ms=20_000))
    assert outcome.failure in failures
    # Neither rt nor tt ended the wait.
    assert outcome.ms < 15_000


@pytest.mark.parametrize("path", ["/interim/16", "/headers/50", "/single-bytes/3000"])
async def test_unusual_answer_is_accepted(attempt: Attempt, receiver: Receiver, path: str) -> None:
    assert (await attempt(receiver.url(path))).ok


@pytest.mark.parametrize("path", ["/endless-trailers", "/endless-extension", "/single-bytes/60000"])
async def test_bytes_around_a_body_are_bounded(attempt: Attempt, receiver: Receiver, path: str) -> None:
    """As with an endless body, the application does not have the body, and the status of a callback is known."""
    outcome = await attempt(receiver.url(path), policy=RetryPolicy(connect_ms=5000, read_ms=20_000, total_ms=20_000))
    if attempt.way == "fetch":  # type: ignore[attr-defined]
        assert outcome.failure in ("body", "broken")
    else:
        assert outcome.ok or outcome.failure == "broken"
    assert outcome.ms < 15_000


async def test_a_second_response_is_ignored(attempt: Attempt, receiver: Receiver) -> None:
    assert (await attempt(receiver.url("/endless-answers"))).status == 204


@pytest.mark.parametrize("path", ["/slow-headers", "/slow-body"])
async def test_an_endless_drip_ends_with_tt(attempt: Attempt, receiver: Receiver, path: str) -> None:
    # Each byte arrives well within rt.
    outcome = await attempt(receiver.url(path), policy=RetryPolicy(read_ms=2000, total_ms=300))
    assert outcome.failure == "read"
    took(outcome, 290, 1500)


async def test_redirects_do_not_restart_tt(attempt: Attempt, receiver: Receiver) -> None:
    outcome = await attempt(receiver.url("/redirect/302//slow-body"), policy=RetryPolicy(read_ms=2000, total_ms=300))
    assert outcome.failure == "read"
    took(outcome, 0, 1500)


@pytest.mark.parametrize("status", [200, 201, 204, 206, 299])
async def test_2xx_is_success(attempt: Attempt, receiver: Receiver, status: int) -> None:
    outcome = await attempt(receiver.url(f"/status/{status}"))
    assert outcome.ok
    assert outcome.status == status


@pytest.mark.parametrize("status", [300, 304, 400, 401, 404, 429, 500, 502, 599])
async def test_other_statuses_are_reported_as_they_are(attempt: Attempt, receiver: Receiver, status: int) -> None:
    outcome = await attempt(receiver.url(f"/status/{status}"))
    assert not outcome.ok
    assert (outcome.status, outcome.failure) == (status, None)
    assert str(status) in outcome.description


async def test_a_redirect_without_a_location_is_a_status(attempt: Attempt, receiver: Receiver) -> None:
    assert (await attempt(receiver.url("/status/302"))).status == 302


async def test_retry_after_is_read(attempt: Attempt, receiver: Receiver) -> None:
    outcome = await attempt(receiver.url("/retry-after/7"))
    assert (outcome.status, outcome.retry_after_ms) == (503, 7000)


async def test_an_endless_body_is_cut_and_never_retried(attempt: Attempt, receiver: Receiver) -> None:
    """A fetch that needs the body fails. A callback's body is discarded; its status said that the callback arrived."""
    outcome = await attempt(receiver.url("/endless"))
    if attempt.way == "deliver":  # type: ignore[attr-defined]
        assert outcome.ok
    else:
        assert outcome.failure == "body"
        assert outcome.failure not in RETRIED_AS


async def test_nobody_listens(attempt: Attempt) -> None:
    with refusing() as port:
        outcome = await attempt(f"http://127.0.0.1:{port}/cb", policy=HASTY)
    assert outcome.failure == "connect"
    assert "refused" in outcome.description


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_ct_bounds_the_connection(attempt: Attempt, scheme: str) -> None:
    with full() as port:
        outcome = await attempt(f"{scheme}://127.0.0.1:{port}/cb", policy=HASTY)
    assert outcome.failure == "connect"
    took(outcome, 390, 3500)


async def test_ct_bounds_the_tls_handshake(attempt: Attempt) -> None:
    with silent() as port:
        outcome = await attempt(f"https://127.0.0.1:{port}/cb", policy=HASTY)
    assert outcome.failure == "connect"
    took(outcome, 390, 3500)


async def test_rt_bounds_the_wait_for_an_answer(attempt: Attempt) -> None:
    with silent() as port:
        outcome = await attempt(f"http://127.0.0.1:{port}/cb", policy=HASTY)
    assert outcome.failure == "read"
    took(outcome, 390, 3500)


async def test_tt_bounds_what_ct_would_allow(attempt: Attempt) -> None:
    with full() as port:
        outcome = await attempt(f"http://127.0.0.1:{port}/cb", policy=RetryPolicy(connect_ms=10_000, total_ms=200))
    assert outcome.failure in ("connect", "read")
    took(outcome, 0, 1500)


async def test_no_such_name(attempt: Attempt, names: Names) -> None:
    outcome = await attempt("http://nowhere.test/cb")
    assert outcome.failure == "dns"
    assert "nowhere.test" in outcome.description
    assert names.asked == ["nowhere.test"]


async def test_ct_bounds_the_look_up(attempt: Attempt, monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: over.wait(10) and [])
    try:
        outcome = await attempt("http://slow.test/cb", policy=HASTY)
    finally:
        over.set()
    assert outcome.failure == "connect"
    took(outcome, 390, 3500)


async def test_the_second_address_is_tried_where_the_first_refuses(
    attempt: Attempt, receiver: Receiver, names: Names
) -> None:
    # No process listens on that port of 127.0.0.77.
    names.answers = {"answer.test": [["127.0.0.77", "127.0.0.1"]]}
    assert (await attempt(receiver.url("/ok", "answer.test"))).ok


async def test_tls_with_what_speaks_no_tls(attempt: Attempt, receiver: Receiver) -> None:
    outcome = await attempt(receiver.url("/ok").replace("http:", "https:"))
    assert outcome.failure == "tls"


@contextmanager
def trusting(certificate: Path, monkeypatch: pytest.MonkeyPatch, trusted: bool) -> Iterator[Receiver]:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate)
    client = ssl.create_default_context(cafile=str(certificate) if trusted else None)
    for module in (connect_sync, connect_async):
        monkeypatch.setattr(module, "tls_context", lambda: client)
    with receiving(server) as receiver:
        yield receiver


async def test_https_to_the_certificate_s_name(
    attempt: Attempt, certificate: Path, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    names.answers = {"answer.test": [["127.0.0.1"]]}
    with trusting(certificate, monkeypatch, trusted=True) as receiver:
        assert (await attempt(receiver.url("/ok", "answer.test"))).ok


@pytest.mark.parametrize(("host", "trusted"), [("answer.test", False), ("other.test", True), ("127.0.0.1", True)])
async def test_https_with_a_certificate_that_is_not_valid(
    attempt: Attempt, certificate: Path, names: Names, monkeypatch: pytest.MonkeyPatch, host: str, trusted: bool
) -> None:
    names.answers = {"answer.test": [["127.0.0.1"]], "other.test": [["127.0.0.1"]]}
    with trusting(certificate, monkeypatch, trusted) as receiver:
        assert (await attempt(receiver.url("/ok", host))).failure == "tls"
        assert receiver.seen == []


async def test_rt_bounds_tls_as_well(
    attempt: Attempt, certificate: Path, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    names.answers = {"answer.test": [["127.0.0.1"]]}
    with trusting(certificate, monkeypatch, trusted=True) as receiver:
        outcome = await attempt(receiver.url("/stall", "answer.test"), policy=RetryPolicy(read_ms=200))
        assert outcome.failure == "read"
        outcome = await attempt(receiver.url("/slow-body", "answer.test"), policy=RetryPolicy(total_ms=400))
        assert outcome.failure == "read"
        took(outcome, 0, 2000)


async def test_a_try_knows_when_it_began(attempt: Attempt, receiver: Receiver) -> None:
    before = time.time_ns() // 1_000_000
    outcome = await attempt(receiver.url("/ok"))
    assert before <= outcome.at_ms <= outcome.at_ms + outcome.ms <= time.time_ns() // 1_000_000 + 1

"""Tests of the HTTP policy: one table of cases through both clients, and the policy alone, without I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from urllib.parse import quote, unquote

import pytest

import ari_conf.http_client
from ari_conf.errors import RequestRefused
from ari_conf.http_client import policy
from ari_conf.http_client.policy import AttemptFailed, BodyLimit, Exchange, ResponseMeter, ResponseTooLong
from ari_conf.http_client.retry_policy import AttemptOutcome, RetryPolicy
from tests.http_client.conftest import PATIENT, Attempt, Names
from tests.http_client.misbehaving import Receiver, Seen, refusing
from tests.test_architecture import NOT_PURE, imported

ALLOWED = (ip_network("127.0.0.1/32"),)
ANSWERS = {
    "other.test": [["127.0.0.1"]],
    "inside.test": [["127.0.0.3"]],
    "mixed.test": [["127.0.0.1", "127.0.0.3"]],
}
PARAMS = [("a", "1")]
POLICY_HEAD = "its response begins with more than 65536 bytes of headers or 16 interim responses"
REFUSED_ADDRESS = "it points to a private, loopback or reserved network"


def redirect(status: int, location: str) -> str:
    """Return the path of a redirect. {port} stands for the receiver's port, {closed} for one that refuses."""
    return f"/redirect/{status}/{quote(location, safe='{}')}"


@dataclass(frozen=True)
class Case:
    """A request to the receiver, the requests that follow it, and the outcome."""

    path: str
    then: tuple[str, ...] = ()
    """Requests after the first: method, host, target, and for a POST the body; "+login" if a login is sent."""
    status: int = 0
    failure: str | None = None
    reason: str = ""
    """The beginning of the reason."""
    method: str = "POST"
    login: str = ""
    retry_after_ms: int | None = None
    refused_hops: int = 0
    """Redirects that are followed, and end before a request arrives."""
    body_unused: int = 0
    """Status of the outcome if the client does not use the body; 0: the outcome is the same."""
    policy: RetryPolicy = PATIENT


CASES = {
    "no redirect": Case("/ok", status=200),
    "a failed status": Case("/status/404", status=404),
    "Retry-After": Case("/retry-after/7", status=503, retry_after_ms=7000),
    # Methods and parameters.
    **{
        f"{status} turns a POST into a GET": Case(redirect(status, "/next"), ("GET 127.0.0.1 /next",), 200)
        for status in (301, 302, 303)
    },
    **{
        f"{status} repeats a POST": Case(redirect(status, "/next"), ("POST 127.0.0.1 /next a=1",), 200)
        for status in (307, 308)
    },
    **{
        f"{status} of a GET": Case(redirect(status, "/next"), ("GET 127.0.0.1 /next",), 200, method="GET")
        for status in (301, 302, 303, 307, 308)
    },
    "a GET stays a GET": Case(
        redirect(302, redirect(307, "/next")),
        (f"GET 127.0.0.1 {redirect(307, '/next')}", "GET 127.0.0.1 /next"),
        200,
    ),
    "a POST is repeated twice": Case(
        redirect(307, redirect(308, "/next")),
        (f"POST 127.0.0.1 {redirect(308, '/next')} a=1", "POST 127.0.0.1 /next a=1"),
        200,
    ),
    # Which redirects are followed.
    "five redirects": Case(
        "/hops/5", tuple(f"GET 127.0.0.1 /{to}" for to in ("hops/4", "hops/3", "hops/2", "hops/1", "ok")), 200
    ),
    "six redirects": Case(
        "/hops/6",
        tuple(f"GET 127.0.0.1 /hops/{n}" for n in (5, 4, 3, 2, 1)),
        failure="redirects",
        reason="it redirects more than 5 times",
    ),
    "a loop": Case("/loop", ("GET 127.0.0.1 /loop",) * 5, failure="redirects", reason="it redirects more than 5 times"),
    "without a Location": Case("/status/302", status=302),
    "with an empty Location": Case(redirect(302, ""), status=302),
    **{f"{status} is not followed": Case(redirect(status, "/next"), status=status) for status in (300, 304, 305, 306)},
    "a redirect to a failed status": Case(redirect(302, "/status/500"), ("GET 127.0.0.1 /status/500",), 500),
    "a relative Location": Case(redirect(302, "../../next?x=1"), ("GET 127.0.0.1 /next?x=1",), 200),
    "the fragment of a Location": Case(redirect(302, "/next#rc=5"), ("GET 127.0.0.1 /next",), 200),
    "another host": Case(redirect(307, "http://other.test:{port}/next"), ("POST other.test /next a=1",), 200),
    # Credentials.
    "a login stays at its server": Case(
        redirect(307, "/next"), ("POST 127.0.0.1 /next a=1 +login",), 200, login="me:secret@"
    ),
    "a login is not sent to another host": Case(
        redirect(307, "http://other.test:{port}/next"), ("POST other.test /next a=1",), 200, login="me:secret@"
    ),
    "a login does not come back": Case(
        redirect(302, "http://other.test:{port}" + redirect(302, "http://127.0.0.1:{port}/next")),
        (f"GET other.test {redirect(302, 'http://127.0.0.1:{port}/next')}", "GET 127.0.0.1 /next"),
        200,
        login="me:secret@",
    ),
    "a Location with a login": Case(
        redirect(302, "http://me:secret@127.0.0.1:{port}/next"),
        failure="refused",
        reason="it redirects to a URL with a user name or password",
    ),
    # The guard, at the second hop.
    **{
        f"a redirect to {url}": Case(redirect(302, url), failure="refused", reason=reason)
        for url, reason in {
            "file:///etc/passwd": "a URL must begin with http",
            "http://[": "it redirects to an invalid URL",
            "http://127.0.0.1:0/": "a URL's port must be 1 to 65535",
            "http://127.0.0.1:65536/": "the URL is not valid: Port out of range",
            "http://127.0.0.1:http/": "the URL is not valid: Port could not be cast",
            "http://2130706433/": "2130706433 is not an IPv4 address",
            "http://127.0.0.1.:{port}/": "a URL's host must not end in a dot",
            f"http://{'a' * 300}/": "aaaa",
        }.items()
    },
    **{
        f"a redirect to {host}": Case(
            redirect(302, f"http://{host}:{{port}}/next"), failure="refused", reason=REFUSED_ADDRESS, refused_hops=1
        )
        for host in (
            "127.0.0.3",
            "10.0.0.1",
            "169.254.169.254",
            "[::1]",
            "[::ffff:127.0.0.3]",
            "inside.test",
            "mixed.test",
        )
    },
    # Connections, at the second hop.
    "a redirect to a name without an address": Case(
        redirect(302, "http://nowhere.test:{port}/next"),
        failure="dns",
        reason="the name nowhere.test has no address: Name or service not known",
        refused_hops=1,
    ),
    "a redirect to a closed port": Case(
        redirect(302, "http://127.0.0.1:{closed}/next"),
        failure="connect",
        reason="no connection to 127.0.0.1: connection refused",
        refused_hops=1,
    ),
    "a redirect to a server without TLS": Case(
        redirect(302, "https://127.0.0.1:{port}/next"), failure="tls", reason="no TLS connection: ", refused_hops=1
    ),
    # Bodies.
    "a long body": Case(
        "/large/102401", failure="body", reason="its response is longer than the 102400 bytes", body_unused=200
    ),
    "a body of the maximum size": Case("/large/102400", status=200),
    "a long body after a redirect": Case(
        redirect(302, "/large/102401"),
        ("GET 127.0.0.1 /large/102401",),
        failure="body",
        reason="its response is longer than the 102400 bytes",
        body_unused=200,
    ),
    "an endless body": Case(
        "/endless", failure="body", reason="its response is longer than the 102400 bytes", body_unused=200
    ),
    "a compressed bomb": Case(
        "/bomb",
        failure="body",
        reason="it responded with Content-Encoding gzip, which was not requested",
        body_unused=200,
    ),
    "a body of tiny chunks": Case(
        "/single-bytes/60000",
        failure="body",
        reason="its response has more framing around the body than body",
        body_unused=200,
    ),
    "a body of small chunks": Case("/small-chunks/20000", status=200),
    # Heads.
    "a long head": Case("/headers/80", failure="body", reason=POLICY_HEAD),
    "many interim responses": Case("/interim/17", failure="body", reason=POLICY_HEAD),
    "few interim responses": Case("/interim/16", status=200),
    # Broken responses.
    "not HTTP": Case("/garbage", failure="broken", reason="its response was cut off or is not HTTP ("),
    "a cut-off body": Case("/truncated", failure="broken", reason="its response was cut off or is not HTTP ("),
    "a closed connection": Case("/closed", failure="broken", reason="its response was cut off or is not HTTP ("),
    "no response": Case(
        "/late", failure="read", reason="it did not respond in time", policy=RetryPolicy(5000, 300, 20_000)
    ),
    "no time for all hops": Case(
        redirect(302, "/late"),
        ("GET 127.0.0.1 /late",),
        failure="read",
        reason="it did not respond in time",
        policy=RetryPolicy(5000, 20_000, 1500),
    ),
}


@pytest.fixture(scope="module")
def closed_port() -> Iterator[int]:
    with refusing() as port:
        yield port


def described(seen: Seen) -> str:
    login = " +login" if "authorization" in seen.headers else ""
    host = seen.headers["host"].rpartition(":")[0]
    return f"{seen.method} {host} {seen.target} {seen.body}".rstrip() + login


@pytest.mark.parametrize("name", CASES)
async def test_both_clients_follow_the_policy(
    attempt: Attempt, receiver: Receiver, names: Names, closed_port: int, name: str
) -> None:
    case, names.answers = CASES[name], dict(ANSWERS)

    def filled(text: str) -> str:
        return text.replace("{port}", str(receiver.port)).replace("{closed}", str(closed_port))

    url = receiver.url(filled(case.path)).replace("://", f"://{case.login}", 1)
    outcome = await attempt(url, PARAMS, method=case.method, networks=ALLOWED, policy=case.policy)

    first, *further = receiver.seen
    assert first.method == case.method
    assert ("authorization" in first.headers) == bool(case.login)
    assert [unquote(described(seen)) for seen in further] == [unquote(filled(text)) for text in case.then]
    assert all(seen.headers["accept-encoding"] == "identity" for seen in receiver.seen)
    assert outcome.redirects == len(case.then) + case.refused_hops
    if case.body_unused and attempt.way == "deliver":  # type: ignore[attr-defined]
        assert (outcome.status, outcome.failure) == (case.body_unused, None)
        return
    assert (outcome.status, outcome.failure) == (case.status, case.failure)
    assert outcome.reason.startswith(case.reason) and bool(outcome.reason) == bool(case.reason)
    assert outcome.retry_after_ms == case.retry_after_ms


# The policy alone.


def exchange(url: str = "http://answer.test/cb", method: str = "POST", **given: object) -> Exchange:
    settings: dict[str, object] = {
        "tokens": ["token"],
        "policy": RetryPolicy(),
        "remaining_ms": 5000,
        "at_ms": 1_700_000_000_000,
        "now": 100.0,
        **given,
    }
    return Exchange(method, url, PARAMS, **settings)  # type: ignore[arg-type]


def outcome_of(attempted: Exchange, *responses: tuple[int, Mapping[str, str]]) -> AttemptOutcome:
    """Drive an exchange as a client does, a second for each response."""
    now, waiting = 100.0, list(responses)
    try:
        while attempted.next_request() is not None:
            now += 1
            attempted.receive_head(*waiting.pop(0))
    except policy.FAILURES as error:
        attempted.fail(error)
    assert not waiting, "not all responses were needed"
    return attempted.outcome(now)


def test_the_policy_does_no_io() -> None:
    file = Path(ari_conf.http_client.__path__[0]) / "policy.py"
    assert not {name.partition(".")[0] for name in imported(file)} & (NOT_PURE | {"aiohttp", "urllib3"})


@pytest.mark.parametrize(
    ("location", "kept"),
    [
        ("/next", True),
        ("http://answer.test/next", True),
        ("http://ANSWER.test:80/next", True),
        ("//answer.test/next", True),
        ("https://answer.test/next", False),
        ("https://answer.test:80/next", False),
        ("http://answer.test:8080/next", False),
        ("http://www.answer.test/next", False),
        ("http://answer.test.evil.test/next", False),
    ],
)
def test_a_login_is_sent_to_its_origin_only(location: str, kept: bool) -> None:
    attempted = exchange("http://me:secret@answer.test/cb")
    first = attempted.next_request()
    attempted.receive_head(307, {"Location": location})
    second = attempted.next_request()
    assert first is not None and second is not None
    assert "Authorization" in first.headers
    assert ("Authorization" in second.headers) == kept


def test_the_fragment_of_a_location_does_not_count() -> None:
    assert outcome_of(exchange(), (302, {"Location": "/next#" + "x" * 9000}), (200, {})).ok


def test_an_outcome_has_the_times_of_all_hops() -> None:
    found = outcome_of(exchange(), (302, {"Location": "/a"}), (307, {"Location": "/b"}), (503, {"Retry-After": "7"}))
    assert found == AttemptOutcome(1_700_000_000_000, 3000, 503, retry_after_ms=7000, redirects=2)


def test_a_failure_counts_the_redirects_before_it() -> None:
    found = outcome_of(exchange(), (302, {"Location": "/a"}), (302, {"Location": "ftp://b.test/"}))
    assert (found.failure, found.status, found.redirects, found.ms) == ("refused", 0, 1, 2000)
    found = outcome_of(exchange(), *[(302, {"Location": "/a"})] * 6)
    assert (found.failure, found.status, found.redirects) == ("redirects", 0, 5)


@pytest.mark.parametrize(
    ("error", "failure", "reason"),
    [
        (TimeoutError(), "read", "it did not respond in time"),
        (RequestRefused("not there"), "refused", "not there"),
        (AttemptFailed("tls", "no TLS"), "tls", "no TLS"),
        (ResponseTooLong("too long"), "body", "too long"),
    ],
)
def test_each_failure_is_an_outcome(
    error: AttemptFailed | RequestRefused | TimeoutError, failure: str, reason: str
) -> None:
    attempted = exchange()
    attempted.next_request()
    attempted.fail(error)
    found = attempted.outcome(100.5)
    assert (found.failure, found.reason, found.ms, found.status) == (failure, reason, 500, 0)


def test_no_hop_has_more_time_than_is_left() -> None:
    attempted = exchange(remaining_ms=5000, policy=RetryPolicy(connect_ms=2000, read_ms=9000))
    assert (attempted.connect_s, attempted.read_s, attempted.deadline) == (2.0, 9.0, 105.0)
    assert attempted.time_left(100.0, attempted.connect_s) == 2.0
    assert attempted.time_left(100.0, attempted.read_s) == 5.0
    assert attempted.time_left(104.5, attempted.connect_s) == 0.5
    with pytest.raises(AttemptFailed, match="did not respond in time"):
        attempted.time_left(105.0, attempted.connect_s)


@pytest.mark.parametrize(
    ("status", "conditions", "accepted"),
    [
        (200, None, True),
        (299, {"If-None-Match": "1"}, True),
        (304, {"If-None-Match": "1"}, True),
        (304, None, False),
        (199, None, False),
        (302, None, False),
        (404, {"If-None-Match": "1"}, False),
    ],
)
def test_a_304_is_accepted_if_it_was_requested(status: int, conditions: dict[str, str] | None, accepted: bool) -> None:
    attempted = exchange(method="GET", conditions=conditions)
    attempted.next_request()
    attempted.receive_head(status, {})
    assert attempted.is_accepted == accepted


def test_conditions_are_sent_with_each_hop() -> None:
    attempted = exchange(method="GET", conditions={"If-None-Match": "1"})
    for _ in range(2):
        request = attempted.next_request()
        assert request is not None and request.headers["If-None-Match"] == "1"
        attempted.receive_head(302, {"Location": "/next"})


def test_a_meter_bounds_the_head() -> None:
    meter = ResponseMeter()
    for _ in range(policy.MAX_INTERIM_RESPONSES):
        meter.receive_interim_head()
    meter.received_bytes = policy.MAX_HEAD_BYTES - 1
    meter.check()
    with pytest.raises(ResponseTooLong, match="16 interim responses"):
        meter.receive_interim_head()
    meter.received_bytes += 1
    with pytest.raises(ResponseTooLong, match="65536 bytes of headers"):
        meter.check()
    meter.receive_final_head()
    meter.check()
    with pytest.raises(ResponseTooLong, match="more than one response"):
        meter.receive_final_head()


def test_a_meter_bounds_the_framing() -> None:
    meter = ResponseMeter()
    meter.receive_final_head()
    for body_bytes in (0, 1, 1_000_000):
        meter.body_bytes = body_bytes
        meter.received_bytes = 2 * policy.MAX_HEAD_BYTES + policy.MAX_FRAMING_RATIO * body_bytes
        meter.check()
        meter.received_bytes += 1
        with pytest.raises(ResponseTooLong, match="more framing"):
            meter.check()


def test_a_body_has_a_limit() -> None:
    limit = BodyLimit(100)
    limit.check_head({"Content-Encoding": "Identity"}, 100)
    limit.check_head({}, None)
    limit.receive(60)
    assert limit.bytes_left == 40
    limit.receive(40)
    with pytest.raises(ResponseTooLong, match="longer than the 100 bytes"):
        limit.receive(1)


@pytest.mark.parametrize(
    ("headers", "announced", "reason"),
    [
        ({}, 101, "longer than the 100 bytes"),
        ({"Content-Encoding": "gzip"}, 10, "Content-Encoding gzip"),
        ({"Content-Encoding": "x" * 500}, None, f"Content-Encoding {'x' * 40}, which"),
    ],
)
def test_a_head_tells_that_a_body_is_not_usable(headers: dict[str, str], announced: int | None, reason: str) -> None:
    with pytest.raises(AttemptFailed, match=reason) as failed:
        BodyLimit(100).check_head(headers, announced)
    assert failed.value.failure == "body"

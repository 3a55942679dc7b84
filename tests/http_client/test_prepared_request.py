"""Tests of the sent request: the receiver verifies it with the SDK, from the received request alone."""

from __future__ import annotations

from base64 import b64encode
from urllib.parse import parse_qsl

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plivo.utils import validate_signature, validate_v3_signature

from ari_conf.common.version import VERSION
from ari_conf.errors import RequestRefused
from ari_conf.http_client.url_guard import check_url
from tests.http_client.conftest import Attempt, Names
from tests.http_client.misbehaving import Receiver, Seen

TOKEN = "my_auth_token"
PARAMS = [("CallUUID", "abc"), ("Event", "ConferenceEnter"), ("CallerName", "Zoë & Söhne +1"), ("Digits", "")]


def validates(seen: Seen, port: int, token: str = TOKEN) -> bool:
    """Validate the signature with the URL that a framework rebuilds from the Host header and the request target."""
    url = f"http://{seen.headers['host']}{seen.target}"
    nonce = seen.headers["x-plivo-signature-v3-nonce"]
    assert len(nonce) == 20
    assert nonce.isdigit()
    form: dict[str, list[str]] = {}
    for key, value in parse_qsl(seen.body, keep_blank_values=True):
        form.setdefault(key, []).append(value)
    v3 = [
        validate_v3_signature(seen.method, url, nonce, token, seen.headers[name], dict(form))
        for name in ("x-plivo-signature-v3", "x-plivo-signature-ma-v3")
    ]
    v2 = validate_signature(
        url, seen.headers["x-plivo-signature-v2-nonce"], seen.headers["x-plivo-signature-v2"], token
    )
    return all(v3) and v2


async def test_a_post_carries_a_form_and_its_signature(attempt: Attempt, receiver: Receiver) -> None:
    await attempt(receiver.url("/cb?b=2&a=1"), PARAMS)
    seen = receiver.seen[0]
    assert (seen.method, seen.target) == ("POST", "/cb?b=2&a=1")
    assert seen.headers["content-type"] == "application/x-www-form-urlencoded"
    assert parse_qsl(seen.body, keep_blank_values=True) == PARAMS
    assert validates(seen, receiver.port)


async def test_a_get_carries_a_query_and_its_signature(attempt: Attempt, receiver: Receiver) -> None:
    await attempt(receiver.url("/cb?b=2&a=1"), [("From", "1415"), ("Digits", ""), ("To", "a b&c")], method="GET")
    seen = receiver.seen[0]
    assert (seen.method, seen.target, seen.body) == ("GET", "/cb?b=2&a=1&From=1415&Digits=&To=a+b%26c", "")
    assert "content-type" not in seen.headers
    assert validates(seen, receiver.port)


async def test_nothing_of_ours_goes_along(
    attempt: Attempt, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("NETRC", "/dev/null")
    await attempt(receiver.url("/redirect/307//ok"), PARAMS)
    for seen in receiver.seen:
        assert seen.headers["user-agent"] == f"ari_conf/{VERSION}"
        assert {name for name in seen.headers if not name.startswith("x-plivo-")} <= {
            *("host", "user-agent", "accept", "accept-encoding", "content-type", "content-length", "connection")
        }
    assert len(receiver.seen) == 2


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=8),
    query=st.text(st.characters(max_codepoint=0x7E, min_codepoint=0x20), max_size=12),
    params=st.lists(st.tuples(st.sampled_from(["a", "b"]), st.text(max_size=5)), max_size=3),
    method=st.sampled_from(["GET", "POST"]),
)
async def test_signature_covers_the_request_that_arrives(
    attempt: Attempt, receiver: Receiver, path: str, query: str, params: list[tuple[str, str]], method: str
) -> None:
    if method == "GET":  # the SDK cannot check a query beyond ASCII
        params = [(key, value.encode("ascii", "ignore").decode()) for key, value in params]
    receiver.seen.clear()
    url = receiver.url(f"/cb/{path}?{query}".partition("#")[0])
    await attempt(url, params, method=method)
    seen = receiver.seen[0]
    if method == "POST":
        assert f"http://{seen.headers['host']}{seen.target}" == check_url(url).url
    # A query such as %ff decodes to non-ASCII text, which the SDK cannot check.
    if all(
        value.isascii() for pair in parse_qsl(seen.target.partition("?")[2], keep_blank_values=True) for value in pair
    ):
        assert validates(seen, receiver.port)


async def test_every_request_has_a_nonce_of_its_own(attempt: Attempt, receiver: Receiver) -> None:
    await attempt(receiver.url("/hops/3"))
    await attempt(receiver.url("/ok"))
    assert len({seen.headers["x-plivo-signature-v3-nonce"] for seen in receiver.seen}) == 5


async def test_a_login_in_a_url_is_sent_as_basic_authentication(attempt: Attempt, receiver: Receiver) -> None:
    url = receiver.url("/redirect/307//ok").replace("://", "://me:p%40ss%C3%A9@")
    assert (await attempt(url, PARAMS)).ok
    # The login also goes to the target of the server's own redirect; the signed URL has no login, as the receiver sees
    # it.
    for seen in receiver.seen:
        assert seen.headers["authorization"] == "Basic " + b64encode("me:p@ssé".encode()).decode()
        assert validates(seen, receiver.port)
    await attempt(receiver.url("/ok"))
    assert "authorization" not in receiver.seen[-1].headers


async def test_a_login_is_sent_to_no_other_server(attempt: Attempt, receiver: Receiver, names: Names) -> None:
    names.answers = {"other.test": [["127.0.0.1"]]}
    other = receiver.url("/ok", "other.test")
    assert (await attempt(receiver.url(f"/redirect/307/{other}").replace("://", "://me:s3cret@", 1))).ok
    first, second = receiver.seen
    assert "authorization" in first.headers and "authorization" not in second.headers


@pytest.mark.parametrize("status", [301, 302, 303])
async def test_a_redirected_post_becomes_a_get_without_parameters(
    attempt: Attempt, receiver: Receiver, status: int
) -> None:
    await attempt(receiver.url(f"/redirect/{status}/%2Fok%3Fseen=1"), PARAMS)
    first, second = receiver.seen
    assert (first.method, second.method, second.target, second.body) == ("POST", "GET", "/ok?seen=1", "")
    assert validates(second, receiver.port)


@pytest.mark.parametrize("status", [307, 308])
async def test_307_and_308_repeat_the_post_signed_again(attempt: Attempt, receiver: Receiver, status: int) -> None:
    await attempt(receiver.url(f"/redirect/{status}//ok"), PARAMS)
    first, second = receiver.seen
    assert (second.method, second.target, second.body) == ("POST", "/ok", first.body)
    assert validates(first, receiver.port)
    assert validates(second, receiver.port)


@pytest.mark.parametrize("status", [302, 307])
async def test_a_redirected_get_goes_where_the_location_says(attempt: Attempt, receiver: Receiver, status: int) -> None:
    await attempt(receiver.url(f"/redirect/{status}//ok"), PARAMS[:2], method="GET")
    assert (receiver.seen[1].method, receiver.seen[1].target) == ("GET", "/ok")


async def test_five_redirects_are_followed_and_no_sixth(attempt: Attempt, receiver: Receiver) -> None:
    assert (await attempt(receiver.url("/hops/5"))).ok
    assert (await attempt(receiver.url("/hops/6"))).failure == "redirects"
    assert len(receiver.seen) == 6 + 6


async def test_the_fragment_of_a_location_is_not_sent(attempt: Attempt, receiver: Receiver) -> None:
    await attempt(receiver.url("/redirect/302//ok%23rc=5"))
    assert receiver.seen[1].target == "/ok"


async def test_the_host_is_spelled_once(attempt: Attempt, receiver: Receiver, names: Names) -> None:
    names.answers = {"xn--bcher-kva.test": [["127.0.0.1"]]}
    await attempt(receiver.url("/ok", "Bücher.TEST"), PARAMS)
    assert receiver.seen[0].headers["host"] == f"xn--bcher-kva.test:{receiver.port}"
    assert validates(receiver.seen[0], receiver.port)


async def test_without_a_token_nothing_is_signed(attempt: Attempt, receiver: Receiver) -> None:
    await attempt(receiver.url("/ok"), PARAMS, tokens=())
    assert not [name for name in receiver.seen[0].headers if name.startswith("x-plivo-")]


def test_a_user_name_that_could_be_a_host_is_refused() -> None:
    with pytest.raises(RequestRefused, match="user name"):
        check_url("https://user@example.com@evil.example/")

"""Tests of arbitrary bytes: each request gets an answer of the API or of HTTP, and the next client is served."""

from __future__ import annotations

import json
import os
import socket

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.web.conftest import Api, Owner, Served, basic

LONG = os.environ.get("ARI_CONF_SIMULATION") == "long"
PROFILE = settings(
    max_examples=5000 if LONG else 120,
    deadline=None,
    derandomize=not LONG,
    suppress_health_check=list(HealthCheck),
)
PATIENCE_S = 8.0

METHODS = st.sampled_from(["GET", "POST", "DELETE", "PUT", "HEAD", "OPTIONS", "BREW", "get"])
PIECES = st.one_of(
    st.sampled_from(
        ["Conference", "standup", "Member", "all", "1", "Mute", "Play", "Speak", "Hold", "Kick", "Record", "Recording",
         "Problem", "DeadLetter", "..", ".", "", "%2F", "%00", "%ff", "%", "%E2%98%83", "Lock", "1,2", "9" * 400]
    ),
    st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="?#"), max_size=20),
)  # fmt: skip
PATHS = st.one_of(
    st.lists(PIECES, max_size=6).map(lambda parts: "/v1/Account/A/" + "/".join(parts)),
    st.lists(PIECES, max_size=4).map(lambda parts: "/" + "/".join(parts)),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=30),
              st.sampled_from(["http://127.0.0.1/a", "hello", "MAN", "en-US", "\ud800", "9" * 500, 10**30])),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=6,
)  # fmt: skip
NAMES = st.sampled_from(["text", "url", "voice", "language", "length", "callback_url", "callback_method", "time_limit",
                         "file_format", "transcription_type", "transcription_url", "transcription_language", "limit",
                         "x"])  # fmt: skip
BODIES = st.one_of(
    st.binary(max_size=200),
    st.dictionaries(NAMES, VALUES, max_size=5).map(lambda body: json.dumps(body).encode()),
    st.dictionaries(NAMES, st.text(max_size=20), max_size=5).map(
        lambda form: "&".join(f"{name}={value}" for name, value in form.items()).encode()
    ),
)
KINDS = st.sampled_from(["application/json", "application/x-www-form-urlencoded", "text/plain", "",
                         "multipart/form-data", "application/json; charset=\xff", "a" * 300])  # fmt: skip
HEADERS = st.lists(
    st.tuples(
        st.sampled_from(["Authorization", "X-Forwarded-For", "Host", "Accept", "Expect", "Range"]),
        st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=40),
    ),
    max_size=2,
)


@pytest.fixture(autouse=True)
def two(owner: Owner) -> None:
    owner.joins("ann")
    owner.joins("bob")


def ask(port: int, wire: bytes, ends: bool = False) -> bytes:
    """Return all bytes until the connection is closed, as the request asks for. `ends`: the client closes its
    direction."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
        connection.sendall(wire)
        if ends:
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            while chunk := connection.recv(65536):
                answer += chunk
        except ConnectionResetError:
            pass
        return answer


def is_answered(answer: bytes, method: str = "") -> None:
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split()[1])
    assert status < 500, answer
    if status >= 400 and b"application/json" in head and method != "HEAD":
        assert {"api_id", "error"} <= set(json.loads(body)), answer


def is_served(api: Api) -> None:
    assert api.get("Conference/").status == 200


def test_any_request_is_answered_and_the_next_one_is_served(api: Api, served: Served) -> None:
    @PROFILE
    @given(METHODS, PATHS, KINDS, BODIES, HEADERS)
    def holds(method: str, path: str, kind: str, body: bytes, more: list[tuple[str, str]]) -> None:
        lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Authorization: {basic('A', api.token)}", "Connection: close"]
        lines += [f"Content-Type: {kind}", f"Content-Length: {len(body)}", *(f"{n}: {v}" for n, v in more)]
        wire = "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n" + body
        answer = ask(served.port, wire)
        assert answer, wire
        is_answered(answer, method)

    holds()
    is_served(api)


def test_anything_but_http_is_answered_or_hung_up_on(api: Api, served: Served) -> None:
    @PROFILE
    @given(st.one_of(st.binary(max_size=400), st.binary(max_size=100).map(lambda b: b"POST /v1/ HTTP/1.1\r\n" + b)))
    def holds(wire: bytes) -> None:
        answer = ask(served.port, wire, ends=True)
        if answer:
            is_answered(answer)

    holds()
    is_served(api)

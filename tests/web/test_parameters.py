"""Tests of the allowed parameters of a request, and of the errors for others."""

from __future__ import annotations

import socket
import time

import pytest

from ari_conf.web import parameters as body_module
from tests.web.conftest import Api, Owner, basic

SPEAK = "Conference/standup/Member/all/Speak/"
PLAY = "Conference/standup/Member/all/Play/"
MUTE = "Conference/standup/Member/all/Mute/"


@pytest.fixture(autouse=True)
def two(owner: Owner) -> None:
    owner.joins("ann")
    owner.joins("bob")


@pytest.mark.parametrize(
    ("path", "given", "named", "allowed"),
    [
        (SPEAK, {}, "text", "required"),
        (SPEAK, {"text": ""}, "text", "at least 1"),
        (SPEAK, {"text": " "}, "text", "some text"),
        (SPEAK, {"text": "a\u0000b"}, "text", "without control characters"),
        (SPEAK, {"text": "x" * 3001}, "text", "3000"),
        (SPEAK, {"text": 5}, "text", "string"),
        (SPEAK, {"text": ["a"]}, "text", "string"),
        (SPEAK, {"text": "a", "voice": "DOG"}, "voice", "WOMAN, MAN or Polly.Name"),
        (SPEAK, {"text": "a", "language": "x"}, "language", "a language code such as en-US"),
        (PLAY, {}, "url", "required"),
        (PLAY, {"url": "ftp://example.com/a.mp3"}, "url", "an absolute http or https URL"),
        (PLAY, {"url": "hello.mp3"}, "url", "an absolute http or https URL"),
        (PLAY, {"url": ""}, "url", "an absolute http or https URL"),
        (MUTE, {"callback_url": "example.com"}, "callback_url", "an absolute http or https URL"),
        (MUTE, {"callback_url": "http://example.com", "callback_method": "PUT"}, "callback_method", "'GET' or 'POST'"),
    ],
)
def test_a_bad_parameter_is_named_with_what_is_allowed(api: Api, path: str, given: dict, named: str, allowed: str):
    response = api.post(path, given)
    assert (response.status, set(response.json)) == (400, {"api_id", "error"})
    assert response.json["error"].startswith(named)
    assert allowed in response.json["error"]


def test_a_url_is_read_as_in_a_document(api: Api, owner: Owner):
    assert api.post(PLAY, {"url": " https://me:s3cret@example.com/hold music.mp3"}).status == 202
    assert "https://me:s3cret@example.com/hold%20music.mp3" in str(owner.commands[-1])
    response = api.post(PLAY, {"url": "ftp://me:s3cret@example.com/"})
    assert response.status == 400 and "s3cret" not in response.json["error"]


@pytest.mark.parametrize("ids", ["", "x", "1,", "1;2", "-1", "1.5", "ALL", "%20", "1,,2", "9" * 10, "1," * 900 + "1"])
def test_bad_member_ids(api: Api, ids: str):
    response = api.post(f"Conference/standup/Member/{ids}/Mute/")
    assert response.status in ((404, 405) if not ids else (400,))
    assert set(response.json) == {"api_id", "error"}


@pytest.mark.parametrize(
    "raw",
    [
        b"{",
        b"[]",
        b"null",
        b"5",
        b'"text"',
        b"\xff\xfe",
        b'{"text": "\xff"}',
        b"[" * 30_000,
        b'{"a":' * 8000,
        b"text=hello",
    ],
)
def test_malformed_json(api: Api, raw: bytes):
    response = api.post(SPEAK, raw=raw)
    assert (response.status, set(response.json)) == (400, {"api_id", "error"})


def test_a_lone_surrogate_is_no_text(api: Api):
    assert api.post(SPEAK, raw=rb'{"text": "\ud800"}').status == 400


def test_malformed_forms(api: Api):
    form = "application/x-www-form-urlencoded"
    assert api.post(SPEAK, raw=b"text=%ff", Content_Type=form).status == 400
    assert api.post(SPEAK, raw=b"a=1&" * 2000, Content_Type=form).status == 400
    assert api.post(SPEAK, raw=b"--x", Content_Type="multipart/form-data; boundary=x").status == 400


@pytest.mark.parametrize("raw", [b"", b" \n"])
def test_an_empty_body_is_fine(api: Api, raw: bytes):
    assert api.post(MUTE, raw=raw).status == 202
    assert api.post(MUTE, raw=raw, Content_Type="text/plain").status == 202


def test_omitted_parameter_may_be_empty_or_null(api: Api):
    given = {"text": "hello", "voice": "", "language": None, "callback_url": "", "callback_method": None, "more": [1]}
    assert api.post(SPEAK, given).status == 202


def test_too_large(api: Api):
    response = api.post(SPEAK, {"text": "x" * 70_000})
    assert (response.status, set(response.json)) == (413, {"api_id", "error"})


def test_too_large_without_saying_so(api: Api):
    with socket.create_connection(("127.0.0.1", api.port)) as wire:
        head = f"POST /v1/Account/A/{SPEAK} HTTP/1.1\r\nHost: x\r\nAuthorization: {basic('A', api.token)}\r\n"
        wire.sendall((head + "Transfer-Encoding: chunked\r\n\r\n").encode())
        chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        wire.sendall(chunk + chunk)
        assert b" 413 " in wire.recv(100)


def test_a_slow_client_is_not_waited_for(api: Api, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(body_module, "BODY_TIMEOUT_S", 0.3)
    with socket.create_connection(("127.0.0.1", api.port), timeout=20) as wire:
        head = f"POST /v1/Account/A/{SPEAK} HTTP/1.1\r\nHost: x\r\nAuthorization: {basic('A', api.token)}\r\n"
        wire.sendall((head + "Content-Length: 100\r\n\r\n{").encode())
        began = time.monotonic()
        assert b" 408 " in wire.recv(1000)
        assert time.monotonic() - began < 15


def test_a_wrong_method_says_which_are_allowed(api: Api):
    response = api.send("PUT", MUTE)
    assert (response.status, set(response.json)) == (405, {"api_id", "error"})
    assert response.headers["Allow"] == "DELETE, POST"
    assert api.send("PATCH", "Conference/standup/").headers["Allow"] == "DELETE, GET"


@pytest.mark.parametrize("path", ["/v1/", "/v1/Account/A/Nothing/", "/v2/Account/A/Conference/", "/docs"])
def test_elsewhere_is_nothing(api: Api, path: str):
    response = api.get(path)
    assert (response.status, set(response.json)) == (404, {"api_id", "error"})

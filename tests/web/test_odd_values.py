"""Tests of values of another type than the parameter's: they are refused, and not taken for the default."""

from __future__ import annotations

from typing import Any

import pytest

from tests.web.conftest import Api, Owner
from tests.web.test_calls import PLACED, dialer

__all__ = ["dialer"]

MEMBER = {"from": PLACED["from"], "to": PLACED["to"]}
ODD: list[Any] = [0, -1, 1.5, True, False, [], [1], {}, {"a": 1}, 10**30]
CALLED = "Conference/standup/Member/"


def test_digits_match_is_text(dialer: Api) -> None:
    for value in (1.5, True, False, [], [1], {}, {"a": 1}):
        response = dialer.post(CALLED, {**MEMBER, "digits_match": value})
        assert (response.status, response.json["error"]) == (400, "digits_match: expected text")


def test_digits_may_be_numbers_in_json_and_0_is_a_digit(dialer: Api, owner: Owner) -> None:
    assert dialer.post(CALLED, {**MEMBER, "digits_match": 12, "send_digits": 0}).status == 201
    assert "digits_match=('12',)" in str(owner.commands[-1]) and "send_digits='0'" in str(owner.commands[-1])


@pytest.mark.parametrize(
    ("path", "given", "name"),
    [
        ("Call/", PLACED, "answer_method"),
        ("Call/", PLACED, "sip_headers"),
        (CALLED, MEMBER, "record_file_format"),
        ("Call/some/", {"aleg_url": "https://example.com/"}, "legs"),
        ("Call/some/Speak/", {"text": "a"}, "type"),
        ("Call/some/Speak/", {"text": "a"}, "language"),
        ("Call/some/DTMF/", {"digits": "1"}, "leg"),
        ("Call/some/Record/", {}, "record_channel_type"),
    ],
)
def test_only_an_empty_value_is_one_that_was_not_given(
    dialer: Api, path: str, given: dict[str, Any], name: str
) -> None:
    for value in ODD:
        if name == "sip_headers" and isinstance(value, dict):
            # An object of headers.
            continue
        response = dialer.post(path, {**given, name: value})
        assert response.status == 400 and response.json["error"].startswith(f"{name}: "), (value, response.json)


@pytest.mark.parametrize(("path", "given"), [("Call/", PLACED), (CALLED, MEMBER)])
def test_digits_are_not_quoted(dialer: Api, path: str, given: dict[str, Any]) -> None:
    response = dialer.post(path, {**given, "send_digits": "4711x"})
    assert response.status == 400 and response.json["error"].startswith("send_digits: expected")
    assert "4711" not in response.json["error"]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("from", "", "from is required"),
        ("answer_url", None, "answer_url is required"),
        ("from", "1" * 300, "from: at most 200 characters are allowed"),
        ("send_on_preanswer", "perhaps", "send_on_preanswer: expected true or false"),
        ("send_on_preanswer", [1], "send_on_preanswer: expected true or false"),
    ],
)
def test_the_sentence_is_plain(dialer: Api, name: str, value: Any, expected: str) -> None:
    response = dialer.post("Call/", {**PLACED, name: value})
    assert (response.status, response.json["error"]) == (400, expected)


def test_a_caller_id_is_no_uri(dialer: Api) -> None:
    error = dialer.post("Call/", {**PLACED, "from": "sip:ann@example.com"}).json["error"]
    assert "+4930123456" in error and "sip:USER" not in error

"""Name, default and allowed values of each attribute: a second copy of the specification's table."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from ari_conf.core import elements as el

CONFERENCE = {
    "muted": False, "enterSound": None, "exitSound": None, "startConferenceOnEnter": True,
    "endConferenceOnExit": False, "stayAlone": True, "waitSound": None, "maxMembers": None, "record": False,
    "recordFileFormat": "mp3", "timeLimit": None, "hangupOnStar": False, "action": None, "method": "POST",
    "redirect": True, "callbackUrl": None, "callbackMethod": "POST", "digitsMatch": (), "relayDTMF": True,
    "floorEvent": False, "transcriptionType": None, "transcriptionUrl": None, "transcriptionMethod": "POST",
    "transcriptionLanguage": None, "sendDigits": "",
}  # fmt: skip
GET_DIGITS = {
    "action": None, "method": "POST", "timeout": 5, "digitTimeout": 2, "finishOnKey": "#", "numDigits": 99,
    "retries": 1, "redirect": True, "playBeep": False, "validDigits": "1234567890*#", "invalidDigitsSound": None,
    "log": True,
}  # fmt: skip


@pytest.mark.parametrize(
    ("element", "defaults"),
    [
        (el.Conference, CONFERENCE),
        (el.GetDigits, GET_DIGITS),
        (el.Play, {"loop": 1}),
        (el.Speak, {"voice": "WOMAN", "language": "en-US", "loop": 1}),
        (el.Wait, {"length": 1, "silence": False, "minSilence": 2000, "beep": False}),
        (el.Hangup, {"reason": None, "schedule": None}),
        (el.Redirect, {"method": "POST"}),
        (el.PreAnswer, {}),
    ],
)
def test_names_and_defaults(element: type, defaults: dict[str, Any]) -> None:
    assert {name: field.default for name, (field, _) in el.attribute_fields(element).items()} == defaults


def read(name: str, text: str, element: type = el.Conference) -> Any:
    return el.attribute_fields(element)[name][1].read(text)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("muted", "true", True), ("muted", "false", False), ("muted", "True", True), ("muted", " YES ", True),
        ("muted", "1", True), ("muted", "0", False), ("muted", "No", False), ("relayDTMF", "None", False),
        ("enterSound", "", el.NOT_GIVEN), ("muted", " ", el.NOT_GIVEN), ("maxMembers", "", el.NOT_GIVEN),
        ("maxMembers", "none", el.NOT_GIVEN), ("callbackUrl", " NONE ", el.NOT_GIVEN), ("method", "none", el.NOT_GIVEN),
        ("maxMembers", " 5\n", 5), ("method", "post", "POST"), ("transcriptionType", "Auto", "auto"),
        ("enterSound", "beep:1", "beep:1"), ("exitSound", "beep:2", "beep:2"),
        ("enterSound", "https://a.example/x", "https://a.example/x"),
        ("maxMembers", "1", 1), ("maxMembers", "20", 20), ("timeLimit", "0", 0), ("timeLimit", "86400", 86400),
        ("recordFileFormat", "wav", "wav"), ("method", "GET", "GET"),
        ("digitsMatch", "1, 12 ,*#", ("1", "12", "*#")), ("digitsMatch", "", el.NOT_GIVEN),
        ("digitsMatch", "1,1", ("1",)),
        ("transcriptionType", "auto", "auto"), ("transcriptionType", "hybrid", "hybrid"),
        ("transcriptionType", "manual", "manual"), ("waitSound", " http://a.example ", "http://a.example"),
        ("transcriptionLanguage", " de-AT ", "de"), ("transcriptionLanguage", "AUTO", "auto"),
        ("transcriptionLanguage", "yue", "yue"), ("sendDigits", "1w2W#", "1w2W#"),
    ],
)  # fmt: skip
def test_allowed_values(name: str, text: str, value: Any) -> None:
    assert read(name, text) == value


ALLOWED = {
    "muted": "true or false",
    "enterSound": "beep:1, beep:2, an absolute http or https URL, or empty",
    "maxMembers": "a whole number, 1 or more",
    "timeLimit": "a whole number, 0 or more",
    "recordFileFormat": "mp3 or wav",
    "method": "GET or POST",
    "digitsMatch": "patterns of the digits 0-9 * #, separated by commas",
    "transcriptionType": "auto or hybrid or manual",
    "transcriptionLanguage": "a language code such as de or en-US, or auto",
    "sendDigits": "digits 0-9 * #, w (0.5 s) and W (1 s), at most 100",
}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("muted", "on"), ("muted", "2"), ("muted", "truee"),
        ("enterSound", "beep:3"), ("enterSound", "ftp://a.example"), ("enterSound", "/relative"),
        ("maxMembers", "0"), ("maxMembers", "-1"), ("maxMembers", "+5"), ("maxMembers", "1_0"), ("maxMembers", "٣"),
        ("timeLimit", "-1"), ("timeLimit", "1.5"), ("recordFileFormat", "ogg"), ("method", "PUT"),
        ("digitsMatch", "1,,2"), ("digitsMatch", "1a"), ("transcriptionType", "automatic"), ("sendDigits", "1 2"),
        ("transcriptionLanguage", "german"), ("transcriptionLanguage", "d"), ("transcriptionLanguage", "d3"),
        ("sendDigits", "1" * 101), ("digitsMatch", "1" * 101),
    ],
)  # fmt: skip
def test_refusal_names_the_allowed_values(name: str, text: str) -> None:
    with pytest.raises(el.InvalidValue) as caught:
        read(name, text)
    assert str(caught.value) == ALLOWED[name]


@pytest.mark.parametrize("element", get_args(el.Element))
def test_each_attribute_says_what_it_allows_and_refuses_what_is_not(element: type) -> None:
    for name, (_, kind) in el.attribute_fields(element).items():
        with pytest.raises(el.InvalidValue) as caught:
            read(name, "\x00", element)
        assert str(caught.value) == kind.allowed


def test_patterns_are_bounded() -> None:
    assert len(read("digitsMatch", ",".join(map(str, range(1000))))) == 1000
    assert read("digitsMatch", "1," * 5000 + "1") == ("1",)
    with pytest.raises(el.InvalidValue, match=r"^at most 1000 patterns$"):
        read("digitsMatch", ",".join(map(str, range(1001))))


@pytest.mark.parametrize("name", ["action", "callbackUrl", "waitSound", "transcriptionUrl"])
@pytest.mark.parametrize(
    "text", ["ftp://a.example/", "/a", "a.example", "http://", "http://a b/", "http://a.example:0/"]
)
def test_a_url_that_is_not_absolute_http(name: str, text: str) -> None:
    """ "in an attribute it is a bad attribute value" """
    with pytest.raises(el.InvalidValue, match=r"^an absolute http or https URL$"):
        read(name, text)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://a.example/hold music.mp3", "https://a.example/hold%20music.mp3"),
        ("\n https://a.example/a\n b\t ", "https://a.example/a%0A%20b"),
        ("http://a.example?room=big room#rc=3 4", "http://a.example?room=big%20room#rc=3%204"),
        ("https://a.example/größe/会?ü", "https://a.example/gr%C3%B6%C3%9Fe/%E4%BC%9A?%C3%BC"),
        ("HTTPS://a.example/a%20b", "HTTPS://a.example/a%20b"),
        ("http://bücher.example:8080/", "http://bücher.example:8080/"),
        ("https://me:secret@a.example/a b", "https://me:secret@a.example/a%20b"),
    ],
)
def test_url_is_percent_encoded(text: str, url: str) -> None:
    assert el.url(text) == url


def test_a_url_is_no_longer_than_allowed_once_it_is_encoded() -> None:
    assert len(el.url("http://a/" + "ü" * 339 + "abcde") or "") == 2048
    with pytest.raises(el.InvalidValue, match=r"2048 characters, percent-encoded$"):
        el.url("http://a/" + "ü" * 339 + "abcdef")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:secret@a.example/x", "https://***@a.example/x"),
        ("see http://a@b@c/ and http://d/?mail=e@f", "see http://***@c/ and http://d/?mail=e@f"),
        ("http://user:p/w@a.example", "http://user:p/w@a.example"),
    ],
)
def test_a_url_is_shown_without_its_password(text: str, shown: str) -> None:
    """If a URL's host begins after a /, no password precedes it."""
    assert el.without_login(text) == shown


def test_loop_none_is_for_ever() -> None:
    assert read("loop", "none", el.Play) == read("loop", "None ", el.Speak) == 0


@pytest.mark.parametrize(("text", "keys"), [("#", "#"), ("", el.NOT_GIVEN), ("none", ""), ("*#", "*#"), ("*, #", "*#")])
def test_finish_on_key(text: str, keys: object) -> None:
    assert read("finishOnKey", text, el.GetDigits) == keys

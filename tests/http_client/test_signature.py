from __future__ import annotations

from urllib.parse import parse_qs, quote, quote_plus, urlencode, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plivo.utils import validate_signature, validate_v3_signature

from ari_conf.http_client import signature
from ari_conf.http_client.retry_policy import parse
from ari_conf.http_client.signature import headers
from ari_conf.http_client.url_guard import check_url

TOKEN, NONCE = "my_auth_token", "12345"


# The specification's table of vectors.
@pytest.mark.parametrize(
    ("method", "url", "params", "expected"),
    [
        ("POST", "https://answer.url/cb", [], "VcX7GVgiJ4PEp3XoZuY3/lQXiXwZyaU8GIlHndAVxYw="),
        (
            "POST",
            "https://answer.url/cb",
            [("CallUUID", "abc"), ("Event", "ConferenceEnter"), ("From", "14155550100")],
            "3u11e+2HWypS97RdjxUr2K4UeqS3gyN+zCed48iyp8E=",
        ),
        (
            "POST",
            "https://answer.url/cb/?b=2&a=1",
            [("CallUUID", "abc"), ("Event", "ConferenceEnter")],
            "NXzp4doUpGBiTeUyQOHsJAhXz3M8gy1h397wDNux9QQ=",
        ),
        ("POST", "https://answer.url/cb/?b=2&a=1", [], "gB+fp6Q++fRAiWPB6c09evgstKdXhZNTV7emdN5KtZc="),
        (
            "GET",
            "https://answer.url/cb/?b=2&a=1",
            [("CallUUID", "abc"), ("Event", "ConferenceEnter")],
            "XEOt/1OXz3pyqXg62m7k4loza66lYiNyVCz2ZryzlIU=",
        ),
        (
            "POST",
            "https://answer.url/cb#ct=2000&rc=3",
            [("CallUUID", "abc")],
            "RBuaj6La5RMNSHI/eivBHukVpubeEpio+3rRrgWg9q4=",
        ),
    ],
)
def test_v3_vectors(method: str, url: str, params: list[tuple[str, str]], expected: str) -> None:
    made = headers(method, parse(url)[0], params, [TOKEN], NONCE)
    assert made["X-Plivo-Signature-V3"] == expected
    assert made["X-Plivo-Signature-Ma-V3"] == expected
    assert made["X-Plivo-Signature-V3-Nonce"] == NONCE


def test_v2_vector() -> None:
    made = headers("POST", "https://answer.url", [("CallUUID", "abc")], [TOKEN], NONCE)
    assert made["X-Plivo-Signature-V2"] == "ehV3IKhLysWBxC1sy8INm0qGoQYdYsHwuoKjsX7FsXc="
    assert made["X-Plivo-Signature-V2-Nonce"] == NONCE


def test_during_a_rotation_either_token_validates() -> None:
    url, params = "https://answer.url/cb", [("CallUUID", "abc")]
    made = headers("POST", url, params, ["old", "new"], NONCE)
    assert made["X-Plivo-Signature-V3"].count(",") == 1
    for token in ("old", "new"):
        assert validate_v3_signature("POST", url, NONCE, token, made["X-Plivo-Signature-V3"], dict(params))
    assert not validate_v3_signature("POST", url, NONCE, "other", made["X-Plivo-Signature-V3"], dict(params))
    # The SDK does not split V2: only the first token's signature can be checked alone.
    assert validate_signature(url, NONCE, made["X-Plivo-Signature-V2"], "old")


def test_without_a_token_nothing_is_signed() -> None:
    assert headers("POST", "https://answer.url/cb", [], [], NONCE) == {}


# SDKs of other languages; their ways of reading a URL were taken from their sources.


@pytest.mark.parametrize(
    ("method", "url", "params", "readings"),
    [
        ("POST", "https://h.example/cb", [("a", "1")], ["https://h.example/cb?a1"]),
        (
            "POST",
            "https://h.example:8443/cb?x=1",
            [("a", "1")],
            ["https://h.example:8443/cb?x=1.a1", "https://h.example/cb?x=1.a1"],
        ),
        (
            "GET",
            "https://h.example:8443/cb",
            [("a", "1")],
            ["https://h.example:8443/cb?a=1", "https://h.example/cb?a=1"],
        ),
        ("POST", "http://[2001:db8::1]:81/cb", [], ["http://[2001:db8::1]:81/cb", "http://[2001:db8::1]/cb"]),
        ("POST", "http://[2001:db8::1]/cb", [], ["http://[2001:db8::1]/cb"]),
        (
            "POST",
            "https://h.example/a%20b/cb;v=1",
            [("a", "1")],
            ["https://h.example/a%20b/cb?a1", "https://h.example/a%20b/cb;v=1?a1", "https://h.example/a b/cb;v=1?a1"],
        ),
        (
            "POST",
            "https://h.example/cb?r=a%20b&k=1&k=2",
            [("a", "1")],
            [
                "https://h.example/cb?k=1&k=2&r=a b.a1",
                "https://h.example/cb?k=1&r=a b.a1",
                "https://h.example/cb?k=2&r=a b.a1",
                "https://h.example/cb?k=1&k=2&r=a%20b.a1",
            ],
        ),
        (
            "POST",
            "https://h.example:81/a%20b",
            [],
            [
                "https://h.example:81/a%20b",
                "https://h.example:81/a b",
                "https://h.example/a%20b",
                "https://h.example/a b",
            ],
        ),
        (
            "POST",
            "https://h.example/cb",
            [("Name", "Zoë +1")],
            ["https://h.example/cb?NameZoë +1", "https://h.example/cb?NameZoÃ« +1"],
        ),
        (
            "GET",
            "https://h.example/cb",
            [("Time", "11-29 19:57")],
            ["https://h.example/cb?Time=11-29 19:57", "https://h.example/cb?Time=11-29+19%3A57"],
        ),
    ],
)
def test_each_reading_of_a_url_is_signed_once(
    method: str, url: str, params: list[tuple[str, str]], readings: list[str]
) -> None:
    made = headers(method, url, params, [TOKEN, "old"], NONCE)["X-Plivo-Signature-V3"]
    assert made == ",".join(signature._sign(token, f"{text}.{NONCE}") for token in (TOKEN, "old") for text in readings)


# From here on the SDK decides.

anything = st.text(max_size=12)
letters = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=12)
"""Characters of a query: the SDK raises an exception for any others (UnicodeEncodeError on Python 3.11)."""
keys = st.sampled_from(["a", "b", "A", "a b", "CallUUID", "X-PH-One", "é", "10", "9"])
ascii_keys = st.sampled_from(["a", "b", "A", "a b", "CallUUID", "X-PH-One", "%41", "10", "9"])
paths = st.lists(st.text(st.characters(codec="utf-8"), max_size=6), max_size=3).map(
    lambda parts: "".join("/" + quote(part, safe=";") for part in parts)
)
hosts = st.sampled_from(["answer.url", "answer.url:8080", "127.0.0.1:9", "[2001:db8::1]:81"])
queries = st.lists(st.tuples(ascii_keys, letters), max_size=4)


@st.composite
def urls(draw: st.DrawFn) -> str:
    url = f"{draw(st.sampled_from(['http', 'https']))}://{draw(hosts)}{draw(paths)}"
    query = urlencode(draw(queries), quote_via=draw(st.sampled_from([quote, quote_plus])))
    # As users write queries: an empty one, a key without a value, an extra &.
    return url + draw(st.sampled_from(["", "?", "?" + query, "?&" + query + "&flag", "?" + query + "&a=&a=1"]))


@given(urls(), st.dictionaries(keys, anything, max_size=4))
def test_the_sdk_validates_a_post(url: str, params: dict[str, str]) -> None:
    made = headers("POST", url, list(params.items()), [TOKEN], NONCE)
    assert validate_v3_signature("POST", url, NONCE, TOKEN, made["X-Plivo-Signature-V3"], dict(params))
    assert validate_signature(url, NONCE, made["X-Plivo-Signature-V2"], TOKEN)


@given(urls(), st.lists(st.tuples(keys, anything), max_size=5))
def test_the_sdk_validates_a_post_with_repeated_keys(url: str, params: list[tuple[str, str]]) -> None:
    lists: dict[str, list[str]] = {}
    for key, value in params:
        lists.setdefault(key, []).append(value)
    made = headers("POST", url, params, [TOKEN], NONCE)
    assert validate_v3_signature("POST", url, NONCE, TOKEN, made["X-Plivo-Signature-V3"], dict(lists))


@given(urls(), st.lists(st.tuples(ascii_keys, letters), max_size=5))
def test_the_sdk_validates_a_get_as_its_receiver_sees_it(url: str, params: list[tuple[str, str]]) -> None:
    seen = url + ("&" if "?" in url else "?") + urlencode(params) if params else url
    made = headers("GET", seen, [], [TOKEN], NONCE)
    assert validate_v3_signature("GET", seen, NONCE, TOKEN, made["X-Plivo-Signature-V3"])
    assert validate_signature(seen, NONCE, made["X-Plivo-Signature-V2"], TOKEN)
    # Frameworks also provide the query as a dictionary, which the SDK's manual passes along.
    query = parse_qs(urlsplit(seen).query, keep_blank_values=True)
    assert validate_v3_signature("GET", seen, NONCE, TOKEN, made["X-Plivo-Signature-V3"], dict(query))
    # Parameters that are not in the URL yet are signed as if they were.
    assert headers("GET", url, params, [TOKEN], NONCE) == made


@given(urls(), st.dictionaries(keys, anything, min_size=1, max_size=4))
def test_the_sdk_refuses_what_was_tampered_with(url: str, params: dict[str, str]) -> None:
    signature = headers("POST", url, list(params.items()), [TOKEN], NONCE)["X-Plivo-Signature-V3"]
    assert not validate_v3_signature("POST", url, NONCE, TOKEN, signature, {**params, "Extra": "1"})
    assert not validate_v3_signature("POST", url, NONCE + "6", TOKEN, signature, dict(params))
    assert not validate_v3_signature("POST", url, NONCE, TOKEN + "x", signature, dict(params))


@given(urls(), st.dictionaries(keys, anything, max_size=3))
def test_the_spelling_that_is_sent_validates_too(url: str, params: dict[str, str]) -> None:
    sent = check_url(url).url
    made = headers("POST", sent, list(params.items()), [TOKEN], NONCE)
    assert validate_v3_signature("POST", sent, NONCE, TOKEN, made["X-Plivo-Signature-V3"], dict(params))


def test_a_query_beyond_ascii_is_signed_as_the_decoded_text() -> None:
    """The SDK raises an exception for it (3.11), so the specification's "decoded query" decides."""
    plain = headers("POST", "https://answer.url/cb", [("name", "Zoë")], [TOKEN], NONCE)
    asked = headers("GET", "https://answer.url/cb?name=Zo%C3%AB", [], [TOKEN], NONCE)
    given_ = headers("GET", "https://answer.url/cb", [("name", "Zoë")], [TOKEN], NONCE)
    assert asked == given_ != plain


def test_a_name_that_is_not_unicode_is_signed_as_it_is_sent() -> None:
    broken, sent = [("CallerName", "Zo\udceb")], [("CallerName", "Zo?")]
    assert headers("POST", "https://a.url/", broken, [TOKEN], NONCE) == headers(
        "POST", "https://a.url/", sent, [TOKEN], NONCE
    )

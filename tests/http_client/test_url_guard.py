from __future__ import annotations

import socket
from dataclasses import replace
from ipaddress import IPv4Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_conf.errors import RequestRefused
from ari_conf.http_client.url_guard import check_address, check_url, resolve
from tests.http_client.conftest import LOOPBACK, Attempt, Names
from tests.http_client.misbehaving import Receiver

FORBIDDEN_URLS = [
    # Other schemes, or not a URL.
    *("ftp://example.com/", "file:///etc/passwd", "gopher://example.com/", "javascript:alert(1)", "//example.com/", ""),
    *("http:", "http://", "http:///cb", "http://?x", "http:example.com", "https://:443/", "example.com/cb"),
    *("http://example.com:0/", "http://example.com:65536/", "http://example.com:http/", "http://[::1", "http://::1/"),
    # Line breaks that some parsers drop, and others send.
    *(
        "http://example.com/\r\nX-Evil: 1",
        "http://exam\tple.com/",
        "http://example.com/\x00",
        "\x01http://example.com/",
    ),
    # User names and passwords that look like the host.
    *("http://a@b@example.com/", "http://[::1]@example.com/", "http://a b@example.com/", "http://example.com@/"),
    *("http://example.com\\@127.0.0.1/", "http://127.0.0.1\\.example.com/", "http://example.com%40127.0.0.1/"),
    # 127.0.0.1 and 169.254.169.254 as decimal, octal, hexadecimal and short numbers.
    *("http://2130706433/", "http://017700000001/", "http://0x7f000001/", "http://0177.0.0.1/", "http://0x7f.0.0.1/"),
    *("http://127.1/", "http://127.0.1/", "http://0/", "http://0x7f.1/", "http://127.0.0.01/", "http://0x/"),
    *("http://2852039166/", "http://0xa9fea9fe/", "http://0251.0376.0251.0376/", "http://169.254.43518/"),
    *("http://999.999.999.999/", "http://1.2.3.4.5/", "http://example.1/", "http://4294967297/"),
    # Dots.
    *(
        "http://example.com./",
        "http://127.0.0.1./",
        "http://localhost./",
        "http://example..com/",
        "http://.example.com/",
    ),
    *("http://./", "http://../"),
    # Not a host name.
    *("http://exa mple.com/", "http://example.com|evil/", "http://%6cocalhost/", "http://*/", "http://a{b}/"),
    *(f"http://{'a' * 64}.com/", f"http://{'a.' * 127}com/", "http://xn--a\N{LATIN SMALL LETTER E WITH ACUTE}/"),
    "http://\N{FULLWIDTH DIGIT ONE}\N{FULLWIDTH DIGIT TWO}7.1/",
    "http://exa\N{FULLWIDTH SOLIDUS}mple.com/",
    *("http://[fe80::1%25eth0]/", "http://[::1]evil/", "http://[127.0.0.1]/", "http://[v1.x]/"),
    "http://example.com/" + "x" * 8192,
]


@pytest.mark.parametrize("url", FORBIDDEN_URLS)
def test_a_url_that_hides_where_it_goes_is_refused(url: str) -> None:
    with pytest.raises(RequestRefused):
        check_url(url)


@pytest.mark.parametrize(
    ("url", "spelled"),
    [
        ("https://answer.url", "https://answer.url/"),
        ("HTTPS://Answer.URL:443/Cb", "https://answer.url/Cb"),
        ("http://answer.url:80?a=1", "http://answer.url/?a=1"),
        ("http://answer.url:8080/?", "http://answer.url:8080/"),
        ("http://answer.url/cb#rc=3", "http://answer.url/cb"),
        ("http://answer.url/%c3%a9/%7E?%c3=%zz", "http://answer.url/%C3%A9/%7E?%C3=%25zz"),
        ("http://answer.url/Zoë und/?q=Zoë x", "http://answer.url/Zo%C3%AB%20und/?q=Zo%C3%AB%20x"),
        ("http://answer.url//a/../b;c?d/e?f", "http://answer.url//a/../b;c?d/e?f"),
        ("http://bücher.example/", "http://xn--bcher-kva.example/"),
        ("http://my_host/", "http://my_host/"),
        ("http://[2001:DB8:0::1]:81/", "http://[2001:db8::1]:81/"),
        ("http://198.51.100.7/", "http://198.51.100.7/"),
        ("http://\N{FULLWIDTH DIGIT EIGHT}.8.8.8/", "http://8.8.8.8/"),
    ],
)
def test_a_url_has_one_spelling(url: str, spelled: str) -> None:
    assert check_url(url).url == spelled
    assert check_url(spelled).url == spelled


@pytest.mark.parametrize(
    ("url", "login", "host"),
    [
        ("https://me:s3cret@answer.url:8443/cb", "me:s3cret", "answer.url"),
        ("http://example.com@127.0.0.1/", "example.com", "127.0.0.1"),
        ("http://me:p%40ss@[2001:db8::1]/", "me:p%40ss", "2001:db8::1"),
        ("http://@answer.url/", "", "answer.url"),
    ],
)
def test_a_login_stands_beside_the_url(url: str, login: str, host: str) -> None:
    """The judged address is that of the host after the @."""
    target = check_url(url)
    assert (target.login, target.host) == (login, host)
    assert "@" not in target.url and "s3cret" not in repr(target)


@given(st.text(max_size=30), st.text(max_size=10), st.text(max_size=20))
def test_any_text_is_spelled_or_refused(text: str, host: str, path: str) -> None:
    for url in (text, f"http://{text}", f"http://{host}/{path}", f"http://a.test/{path}?{text}"):
        try:
            target = check_url(url)
        except RequestRefused:
            continue
        assert target.url.isascii()
        assert check_url(target.url) == replace(target, login="")


FORBIDDEN = [
    *("127.0.0.1", "127.255.255.255", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1"),
    *("169.254.169.254", "169.254.0.1", "100.64.0.1", "100.100.100.200", "100.127.255.255", "192.0.0.192", "192.0.2.1"),
    *("198.18.0.1", "198.51.100.1", "203.0.113.1", "192.88.99.1", "224.0.0.1", "239.255.255.255", "240.0.0.1"),
    *("255.255.255.255", "168.63.129.16"),
    *("::1", "::", "fe80::1", "febf::1", "fec0::1", "fc00::1", "fd00:ec2::254", "ff02::1", "100::1", "5f00::1"),
    *("2001:db8::1", "3fff::1", "2001::1", "2001:2::1", "2001:20::1", "4000::1", "fe80::1%eth0"),
    # IPv4 inside IPv6: mapped, compatible, translated, NAT64 (both prefixes), 6to4, Teredo.
    *(
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "::127.0.0.1",
        "::8.8.8.8",
        "::ffff:0:127.0.0.1",
    ),
    *("64:ff9b::127.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b:1::127.0.0.1", "64:ff9b:1::8.8.8.8"),
    *("2002:7f00:1::", "2002:0a00:1::1", "2002:808:808::", "2001:0:4136:e378:8000:63bf:80ff:fffe"),
]


@pytest.mark.parametrize("address", FORBIDDEN)
def test_an_address_that_is_not_on_the_public_internet_is_refused(address: str) -> None:
    with pytest.raises(RequestRefused):
        check_address(ip_address(address), ())


@pytest.mark.parametrize(
    "address",
    [
        *(
            "8.8.8.8",
            "1.1.1.1",
            "100.63.255.255",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "198.20.0.1",
            "223.255.255.1",
        ),
        *("2606:4700::1111", "2a00:1450::1", "2001:4860:4860::8888", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"),
    ],
)
def test_a_public_address_is_not(address: str) -> None:
    check_address(ip_address(address), ())


@given(st.ip_addresses(v=4))
def test_ipv4_is_judged_at_least_as_python_does(address: IPv4Address) -> None:
    try:
        check_address(address, ())
    except RequestRefused:
        return
    assert address.is_global
    assert not address.is_multicast


def test_the_operator_allows_a_network_and_no_more() -> None:
    allowed = (ip_network("10.1.0.0/16"), ip_network("fd00:1::/32"))
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "fd00:1::5"):
        check_address(ip_address(address), allowed)
    for address in ("10.2.0.1", "::ffff:10.2.0.1", "127.0.0.1", "fd00:2::5", "::10.1.2.3", "64:ff9b::10.1.2.3"):
        with pytest.raises(RequestRefused):
            check_address(ip_address(address), allowed)


def test_a_refusal_does_not_tell_what_a_name_stands_for(names: Names) -> None:
    names.answers = {"inside.test": [["10.11.12.13"]]}
    with pytest.raises(RequestRefused) as refused:
        resolve("inside.test", 80, ())
    assert "10.11.12.13" not in str(refused.value)
    assert "ARI_CONF_ALLOWED_NETWORKS" in str(refused.value)


@pytest.mark.parametrize("addresses", [["8.8.8.8", "127.0.0.1"], ["127.0.0.1", "8.8.8.8"], ["8.8.8.8", "::1"]])
def test_a_name_with_one_forbidden_address_is_refused_entirely(names: Names, addresses: list[str]) -> None:
    names.answers = {"mixed.test": [addresses]}
    with pytest.raises(RequestRefused):
        resolve("mixed.test", 80, ())


def test_a_mixed_name_is_taken_where_its_inner_address_is_allowed(names: Names) -> None:
    names.answers = {"mixed.test": [["8.8.8.8", "127.0.0.1"]]}
    assert [address[0] for _, address in resolve("mixed.test", 80, LOOPBACK)] == ["8.8.8.8", "127.0.0.1"]


def test_a_name_without_an_address_is_no_refusal(names: Names) -> None:
    with pytest.raises(socket.gaierror):
        resolve("nowhere.test", 80, ())


# At the connection, both clients apply the same rules.


async def test_a_name_is_looked_up_once_and_the_connection_goes_there(
    attempt: Attempt, receiver: Receiver, names: Names
) -> None:
    # If the name were looked up again for the connection, the request would go to 127.0.0.2, where no process listens.
    names.answers = {"answer.test": [["127.0.0.1"], ["127.0.0.2"]]}
    outcome = await attempt(receiver.url("/ok", "answer.test"), networks=(ip_network("127.0.0.1/32"),))
    assert outcome.ok
    assert names.asked == ["answer.test"]
    assert receiver.seen[0].headers["host"] == f"answer.test:{receiver.port}"


async def test_a_name_that_answers_differently_the_next_time_is_judged_again(
    attempt: Attempt, receiver: Receiver, names: Names
) -> None:
    names.answers = {"answer.test": [["127.0.0.1"], ["127.0.0.2"]]}
    only = (ip_network("127.0.0.1/32"),)
    assert (await attempt(receiver.url("/ok", "answer.test"), networks=only)).ok
    assert (await attempt(receiver.url("/ok", "answer.test"), networks=only)).failure == "refused"
    assert len(receiver.seen) == 1


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "inside.test", "mixed.test", "2130706433", "0177.0.0.1", "127.1"],
)
async def test_no_request_arrives_at_a_forbidden_address(
    attempt: Attempt, receiver: Receiver, names: Names, host: str
) -> None:
    names.answers = {"inside.test": [["127.0.0.1"]], "mixed.test": [["127.0.0.1", "8.8.8.8"]]}
    outcome = await attempt(receiver.url("/ok", host), networks=())
    assert outcome.failure == "refused"
    assert receiver.seen == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "location", ["http://127.0.0.2:{port}/ok", "//inside.test:{port}/ok", "http://user@127.0.0.1:{port}/ok"]
)
async def test_a_redirect_is_judged_like_the_first_request(
    attempt: Attempt, receiver: Receiver, names: Names, status: int, location: str
) -> None:
    names.answers = {"inside.test": [["127.0.0.3"]]}
    url = receiver.url(f"/redirect/{status}/" + location.format(port=receiver.port))
    outcome = await attempt(url, networks=(ip_network("127.0.0.1/32"),))
    assert outcome.failure == "refused"
    assert len(receiver.seen) == 1


@pytest.mark.parametrize(
    ("location", "why"),
    [
        ("file:///etc/passwd", "must begin with http"),
        ("ftp://127.0.0.1/", "must begin with http"),
        ("javascript:alert(1)", "must begin with http"),
        ("http://[", "redirects to an invalid URL"),
        ("http://127.0.0.1:0/", "port must be 1 to 65535"),
        (f"http://{'a' * 300}/", "more than 253 characters"),
    ],
)
async def test_a_redirect_to_what_is_no_web_address_is_refused(
    attempt: Attempt, receiver: Receiver, location: str, why: str
) -> None:
    outcome = await attempt(receiver.url(f"/redirect/302/{location}"))
    assert outcome.failure == "refused" and why in outcome.reason
    assert len(outcome.reason) < 400
    assert len(receiver.seen) == 1


@pytest.mark.parametrize(
    ("location", "target"),
    [("http:///x", "/x"), ("\\\\127.0.0.2/ok", "/redirect/302/%5C%5C127.0.0.2/%5C%5C127.0.0.2/ok")],
)
async def test_a_redirect_that_names_no_host_stays_where_it_is(
    attempt: Attempt, receiver: Receiver, location: str, target: str
) -> None:
    """A browser would follow the second one to 127.0.0.2. The client does not reinterpret malformed locations."""
    await attempt(receiver.url(f"/redirect/302/{location}"))
    assert receiver.seen[1].target == target
    assert {seen.headers["host"] for seen in receiver.seen} == {f"127.0.0.1:{receiver.port}"}

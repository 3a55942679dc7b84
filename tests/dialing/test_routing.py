"""Trunks and routing: templates, the longest prefix, and what a dial string can be."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_conf.dialing import numbers, routing, trunks
from ari_conf.dialing.numbers import InvalidDestination, Number
from ari_conf.dialing.trunks import Trunk
from ari_conf.errors import TrunkError

CALLER = Number("4930123456")


def trunk(name: str, prefixes: str = "+", **fields: Any) -> Trunk:
    return trunks.make(name, {"dial": f"PJSIP/{{number}}@{name}", "prefixes": prefixes, **fields})


def names(found: list[Trunk]) -> list[str]:
    return [one.name for one in found]


def test_the_longest_prefix_is_first_then_priority_then_the_name():
    all_ = [
        trunk("world"),
        trunk("de", "+49"),
        trunk("berlin", "+4930,+1"),
        trunk("b", "+49", priority=1),
        trunk("us", "+1"),
    ]
    to = numbers.parse_number("+4930123456")
    assert names(routing.route(all_, to, CALLER)) == ["berlin", "de", "b", "world"]
    assert names(routing.route(reversed(all_), to, CALLER)) == ["berlin", "de", "b", "world"]
    assert names(routing.route([trunk("off", enabled=False), trunk("on")], to, CALLER)) == ["on"]
    assert routing.route([trunk("us", "+1")], to, CALLER) == []
    assert len(routing.route([trunk(f"t{n}") for n in range(9)], to, CALLER)) == routing.MAX_ATTEMPTS


def test_a_trunk_shows_only_its_caller_ids():
    shows = [trunk("a", caller_ids="+4930999"), trunk("b", caller_ids="+4930123*"), trunk("c")]
    to = numbers.parse_number("+4930123456")
    assert names(routing.route(shows, to, CALLER)) == ["b", "c"]


def test_short_numbers_have_prefixes_of_their_own():
    to = numbers.parse_number("112", "DE")
    assert names(routing.route([trunk("world"), trunk("pbx", "1"), trunk("emergency", "112")], to, CALLER)) == [
        *("emergency", "pbx")
    ]


def test_sip_uris_go_to_listed_hosts_alone():
    to = numbers.parse_destination("sip:anna@sip.example.com")
    listed = [trunk("world"), trunk("a", "", hosts="SIP.example.com"), trunk("b", "", hosts="sip.example.com:5060")]
    assert names(routing.route(listed, to, CALLER)) == ["a"]
    assert routing.attempt(listed[1], to).endpoint == "PJSIP/a/sip:anna@sip.example.com"
    for evil in ("sip:anna@sip.example.com.evil", "sip:anna@evil-sip.example.com", "sip:anna@example.com"):
        assert routing.route(listed, numbers.parse_destination(evil), CALLER) == []


@pytest.mark.parametrize(
    ("dial", "dialed"),
    [
        ("PJSIP/{number}@provider", "PJSIP/4930123456@provider"),
        ("PJSIP/{e164}@my.provider-1", "PJSIP/+4930123456@my.provider-1"),
        ("PJSIP/{national}@provider", "PJSIP/030123456@provider"),
        ("PJSIP/*9{number}@provider", "PJSIP/*94930123456@provider"),
    ],
)
def test_templates(dial: str, dialed: str):
    made = trunks.make("t", {"dial": dial})
    assert made.dial_string(numbers.parse_number("+4930123456")) == dialed


@pytest.mark.parametrize(
    "dial",
    [
        "",
        "PJSIP/provider",
        "PJSIP/123@provider",
        "Local/{number}@ari_conf",
        "Local/{number}@ari_conf/n",
        "SIP/{number}@provider",
        "IAX2/{number}@provider",
        "DAHDI/g1/{number}",
        "pjsip/{number}@provider",
        "PJSIP/{number}@provider&PJSIP/{number}@other",
        "PJSIP/{number}@provider,30",
        "PJSIP/{number}@provider/extra",
        "PJSIP/{number}@${PROVIDER}",
        "PJSIP/{number}{number}@provider",
        "PJSIP/{other}@provider",
        "PJSIP/{number!r}@provider",
        "PJSIP/{number.__class__}@provider",
        "PJSIP/{number}@provider\n",
        "PJSIP/{number}@pro vider",
    ],
)
def test_templates_that_are_not_allowed(dial: str):
    with pytest.raises(TrunkError, match=r"dial: .* is not allowed; expected PJSIP/"):
        trunks.make("t", {"dial": dial})


@given(
    st.one_of(st.text(max_size=30), st.from_regex(r"\+?[0-9]{2,15}", fullmatch=True)),
    st.sampled_from(["", "DE", "US"]),
    st.sampled_from(["PJSIP/{number}@p", "PJSIP/{e164}@p", "PJSIP/0{national}@p"]),
)
def test_a_dial_string_has_digits_and_the_template(text: str, country: str, dial: str):
    try:
        to = numbers.parse_destination(text, country)
    except InvalidDestination:
        return
    dialed = trunks.make("t", {"dial": dial}).dial_string(to)
    assert re.fullmatch(r"PJSIP/\+?[0-9]{2,21}@p|PJSIP/p/sip:[A-Za-z0-9_.+-]+@[a-z0-9.:\[\]-]+", dialed)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"prefixes": "49,x"}, "prefixes: '49,x' is not allowed"),
        ({"prefixes": ["+49 30"]}, "prefixes"),
        ({"prefixes": 49}, "a list, or a text with commas"),
        ({"prefixes": ["+1"] + [f"+{n}" for n in range(2000)]}, "at most 1000 entries"),
        ({"caller_ids": "*"}, "caller_ids"),
        ({"caller_ids": "anonymous"}, "caller_ids"),
        ({"hosts": "sip.example.com."}, "hosts"),
        ({"hosts": "sip:a@sip.example.com"}, "hosts"),
        ({"calls": -1}, "calls"),
        ({"calls": True}, "calls"),
        ({"per_second": "many"}, "per_second"),
        ({"priority": 1001}, "priority"),
        ({"enabled": "perhaps"}, "enabled"),
        ({"secret": "x"}, "trunks have no such field"),
    ],
)
def test_fields_that_are_not_allowed_are_named(fields: dict[str, Any], says: str):
    with pytest.raises(TrunkError) as refused:
        trunks.make("t", {"dial": "PJSIP/{number}@p", **fields})
    assert says in str(refused.value)


@pytest.mark.parametrize("name", ["", "a b", "a:b", "ä", "../x", "t" * 41])
def test_names_that_are_not_allowed(name: str):
    with pytest.raises(TrunkError, match="name"):
        trunks.make(name, {"dial": "PJSIP/{number}@p"})


def test_trunks_of_the_settings():
    text = '[{"name": "a", "dial": "PJSIP/{number}@a", "prefixes": ["+49"], "calls": 2}'
    text += ', {"name": "b", "dial": "PJSIP/{e164}@b"}]'
    assert [(one.name, one.prefixes, one.calls) for one in trunks.from_settings(text)] == [
        ("a", ("+49",), 2),
        ("b", (), 30),
    ]
    assert trunks.from_settings("") == ()
    for wrong, says in (
        ("{", "not valid JSON"),
        ('{"name": "a"}', "expected a list"),
        ('[{"name": "a", "dial": "Local/{number}@x"}]', "dial"),
        ('[{"dial": "PJSIP/{number}@x"}]', "name"),
        (text.replace('"b"', '"a"', 1), "there twice"),
    ):
        with pytest.raises(TrunkError, match=says):
            trunks.from_settings(wrong)


@pytest.mark.parametrize("prefixes", ["+", "+49,+33", "+4", "+1,+", "+49,+420"])
def test_national_numbers_are_of_one_country(prefixes: str):
    """+33 900... is an ordinary number, but dialed as 0900... it is a premium one in Germany."""
    fields = {"dial": "PJSIP/{national}@p", "prefixes": prefixes}
    with pytest.raises(TrunkError, match="all prefixes must begin with the same one"):
        trunks.make("p", fields)
    trunk = trunks.make("p", {**fields, "dial": "PJSIP/{number}@p"})
    with pytest.raises(TrunkError, match="the same one"):
        trunks.changed(trunk, {"dial": fields["dial"]})


@pytest.mark.parametrize("prefixes", ["+49", "+49,+4930,112", "+1212,+1", "112", "", "+420"])
def test_national_numbers_of_one_country(prefixes: str):
    assert trunks.make("p", {"dial": "PJSIP/{national}@p", "prefixes": prefixes}).dial

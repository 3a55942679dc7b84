"""Permissions of an account: what a stolen token can dial and show."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_conf.dialing import numbers, permissions
from ari_conf.dialing.numbers import InvalidDestination
from ari_conf.dialing.permissions import Permissions, Reason

CALLER = numbers.parse_number("+4930123456")


def reason(to: str, caller: str = "+4930123456", country: str = "", **given: str) -> Reason | None:
    allowed = Permissions(**{"caller_ids": "+4930123456", **given})
    denial = allowed.check(numbers.parse_destination(to, country), numbers.parse_number(caller))
    return denial.reason if denial is not None else None


@given(st.from_regex(r"\+[1-9][0-9]{6,14}", fullmatch=True))
def test_a_new_account_may_dial_nothing(text: str):
    try:
        to = numbers.parse_destination(text)
    except InvalidDestination:
        return
    assert permissions.NOTHING.check(to, CALLER) is not None


@pytest.mark.parametrize(
    ("prefixes", "to", "allowed"),
    [
        ("+", "+12125550100", True),
        ("+49", "+4930123456", True),
        ("+49", "+436641234567", False),
        ("+4930", "+4989123456", False),
        ("DE", "+4930123456", True),
        ("US", "+12125550100", True),
        ("US", "+18762345678", False),
        ("US", "+16042345678", False),
        ("+1", "+18762345678", True),
        ("+1,!JM", "+18762345678", False),
        ("DE,!+49171", "+491711234567", False),
        ("DE,!+49171,+491711234567", "+491711234567", True),
        ("+,!+49,+4930", "+4930123456", True),
        ("+,!+49,+4930", "+4989123456", False),
        ("+49,!+49", "+4930123456", False),
        ("!+1", "+4930123456", False),
        ("sip:sip.example.com", "+4930123456", False),
    ],
)
def test_the_longest_entry_decides(prefixes: str, to: str, allowed: bool):
    assert reason(to, prefixes=prefixes) is (None if allowed else Reason.DESTINATION_NOT_ALLOWED)


@pytest.mark.parametrize(
    "to", ["+499001234567", "+881612345678", "+18761234567", "1000", "112", "911", "+447012345678"]
)
def test_special_numbers_need_an_entry_of_their_own(to: str):
    assert reason(to, prefixes="+") is Reason.SPECIAL_NUMBER
    assert reason(to, prefixes="", special=to) is None


def test_ranges_of_short_numbers_have_no_emergency_numbers():
    assert reason("1000", special="1*") is None
    assert reason("112", special="1*") is Reason.SPECIAL_NUMBER
    assert reason("911", special="9*,+1") is Reason.SPECIAL_NUMBER


def test_sip_hosts():
    assert reason("sip:anna@a.example", prefixes="+,sip:b.example") is Reason.DESTINATION_NOT_ALLOWED
    assert reason("sip:anna@a.example:5060", prefixes="sip:a.example") is Reason.DESTINATION_NOT_ALLOWED
    assert reason("sip:anna@A.example", prefixes="sip:a.example") is None


@pytest.mark.parametrize(
    ("shown", "allowed"),
    [("+4930123456", True), ("4930123456", True), ("+4930123457", False), ("+49301234567", False), ("110", False)],
)
def test_caller_ids(shown: str, allowed: bool):
    assert reason("+4930123456", shown, prefixes="+49") is (None if allowed else Reason.CALLER_ID_NOT_ALLOWED)


def test_a_block_of_caller_ids():
    assert reason("+4930123456", "+4930123499", prefixes="+", caller_ids="+4930123*") is None
    assert reason("+4930123456", "+4930124499", prefixes="+", caller_ids="+4930123*") is Reason.CALLER_ID_NOT_ALLOWED
    assert reason("+4930123456", "+4930123499", prefixes="+", caller_ids="") is Reason.CALLER_ID_NOT_ALLOWED


def test_fields_in_their_canonical_form():
    assert (
        permissions.parse_prefixes(" de , +49,+49,sip:A.Example:5060, !+49900") == "DE,+49,sip:a.example:5060,!+49900"
    )
    assert permissions.parse_special("112, +49900 ,10*") == "112,+49900,10*"
    assert permissions.parse_caller_ids("+49 (30) 123-456, 1000") == "+4930123456,1000"
    for parse in (permissions.parse_prefixes, permissions.parse_special, permissions.parse_caller_ids):
        assert parse("") == ""


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        *(
            (permissions.parse_prefixes, text)
            for text in ("49", "XX", "DEU", "*", "!", "sip:", "sip:a@b", "+49*", "!!+49")
        ),
        *((permissions.parse_special, text) for text in ("+", "*", "900x", "DE")),
        *((permissions.parse_caller_ids, text) for text in ("*", "+*", "anonymous", "+49\n30")),
    ],
)
def test_fields_that_are_not_allowed(parse, text: str):
    with pytest.raises(InvalidDestination):
        parse(text)

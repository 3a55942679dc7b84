"""Numbers and SIP URIs: their canonical forms, and everything that is none."""

import re

import phonenumbers
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ari_conf.dialing import numbers
from ari_conf.dialing.numbers import Category, InvalidDestination, Number, SipUri

COUNTRIES = st.sampled_from(["", "DE", "US", "GB", "IT", "AT", "FR", "BR", "AU", "FO", "MX", "AR", "RU", "JP"])
TEXTS = st.one_of(
    st.text(max_size=60),
    st.text(alphabet="0123456789+ ().-", max_size=45),
    st.from_regex(r"\+?[0-9]{1,18}", fullmatch=True),
    st.sampled_from(["sip:", "SIP:", "sips:", "tel:"]).flatmap(lambda begin: st.text(max_size=40).map(begin.__add__)),
)
E164 = st.sampled_from(sorted(phonenumbers.SUPPORTED_REGIONS)).flatmap(
    lambda region: st.sampled_from(
        [
            phonenumbers.format_number(found, phonenumbers.PhoneNumberFormat.E164)
            for kind in (0, 1, 2, 3, 4)
            if (found := phonenumbers.example_number_for_type(region, kind)) is not None
        ]
    )
)


@pytest.mark.parametrize(
    ("text", "country", "canonical"),
    [
        ("+49 30 123456", "", "+4930123456"),
        ("+49 (0)30/123456".replace("/", "-"), "", "+4930123456"),
        ("4930123456", "", "+4930123456"),
        ("004930123456", "", "+4930123456"),
        ("004930123456", "DE", "+4930123456"),
        ("011 49 30 123456", "US", "+4930123456"),
        ("030 123456", "DE", "+4930123456"),
        ("(212) 555-0100", "US", "+12125550100"),
        ("14155551234", "DE", "+14155551234"),
        ("4155551234", "US", "+14155551234"),
        ("41445551234", "", "+41445551234"),
        ("0612345678", "IT", "+390612345678"),
        ("112", "DE", "112"),
        ("911", "US", "911"),
        ("1000", "", "1000"),
        ("201234", "FO", "+298201234"),
    ],
)
def test_a_number_in_its_canonical_form(text: str, country: str, canonical: str):
    assert str(numbers.parse_number(text, country)) == canonical


@given(E164)
def test_every_countrys_numbers_are_what_they_are(text: str):
    assert str(numbers.parse_number(text)) == text
    assert str(numbers.parse_number(text.removeprefix("+"))) in (text, text.removeprefix("+"))


@given(TEXTS, COUNTRIES)
@example("+49(0)30123456", "DE")
@example("ſip:a@b", "")
@example("٠٣٠١٢٣٤٥٦", "DE")
@example("-", "DE")
def test_a_destination_is_digits_or_a_plain_uri_and_stays_the_same(text: str, country: str):
    try:
        found = numbers.parse_destination(text, country)
    except InvalidDestination:
        return
    if isinstance(found, Number):
        assert re.fullmatch(r"[0-9]{7,15}|[0-9]{2,6}" if found.is_short else r"[0-9]{7,15}|[0-9]{5,6}", found.digits)
        assert numbers.category_of(found) in Category
    else:
        assert re.fullmatch(r"[A-Za-z0-9_.+-]{1,64}", found.user)
        assert re.fullmatch(r"[a-z0-9.-]+(:[0-9]+)?|\[[0-9a-f:.]+\](:[0-9]+)?", found.host)
    if not isinstance(found, Number) or not found.is_short:
        assert numbers.parse_destination(str(found), country) == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "+",
        "1",
        "+0123456789",
        "+49301234567890123",
        "+4930123456&PJSIP/900@other",
        "+4930123456/900",
        "+4930123456,30,tT",
        "+4930123456@other",
        "+4930123456^x",
        "+4930123456|x",
        "+4930123456;ext=5",
        "+4930123456 ext 5",
        "+4930123456x5",
        "+4930123456#",
        "*21*4930123456#",
        "${EXTEN}",
        "Local/900@ari_conf",
        "PJSIP/900@other",
        "tel:+4930123456",
        "+49\r\n30123456",
        "+4930123456\n",
        "+4930123456\x00",
        "+49\u200b30123456",
        "＋4930123456",
        "+49３０123456",
        "1-800-FLOWERS",
        "anonymous",
        "+4930123456<+4930123457",
        "9" * 41,
        "9" * 100_000,
    ],
)
def test_what_is_no_number(text: str):
    for country in ("", "DE", "US"):
        with pytest.raises(InvalidDestination):
            numbers.parse_number(text, country)


@pytest.mark.parametrize(
    ("text", "uri"),
    [
        ("sip:anna@sip.example.com", SipUri("anna", "sip.example.com")),
        ("SIP:Anna@SIP.Example.COM:5060", SipUri("Anna", "sip.example.com:5060")),
        ("sip:+4930123456@10.0.0.5", SipUri("+4930123456", "10.0.0.5")),
        ("sip:a@[2001:DB8:0::1]:5070", SipUri("a", "[2001:db8::1]:5070")),
    ],
)
def test_a_sip_uri_in_its_canonical_form(text: str, uri: SipUri):
    assert numbers.parse_destination(text) == uri


@pytest.mark.parametrize(
    "text",
    [
        "sip:sip.example.com",
        "sip:@sip.example.com",
        "sip:anna:password@sip.example.com",
        "sip:anna@sip.example.com;transport=tcp",
        "sip:anna@sip.example.com?Replaces=x",
        "sip:anna;isub=1@sip.example.com",
        "sip:anna@sip.example.com.",
        "sip:anna@.example.com",
        "sip:anna@sip..example.com",
        "sip:anna@-a.example.com",
        "sip:anna@evil.example@sip.example.com",
        "sip:anna@sip.example.com/evil",
        "sip:anna@sip.example.com&PJSIP/900@other",
        "sip:anna@sip.example.com,30",
        "sip:anna@sip.example.com:0",
        "sip:anna@sip.example.com:65536",
        "sip:anna@sip.example.com:50600000",
        "sip:anna@sip.example.com:",
        "sip:anna@sip_example.com",
        "sip:anna@[fe80::1%25eth0]",
        "sip:anna@[::g]",
        "sip:anna@sip.exämple.com",
        "sip:anna@sip.example.com\r\nVia: x",
        "sip:an na@sip.example.com",
        "sip:%61nna@sip.example.com",
        "sip:${CHANNEL}@sip.example.com",
        "sips:anna@sip.example.com",
        "ſip:anna@sip.example.com",
        '"x" <sip:anna@sip.example.com>',
        f"sip:anna@{'a' * 64}.example",
        f"sip:anna@{'a.' * 127}example",
        f"sip:{'a' * 65}@sip.example.com",
    ],
)
def test_what_is_no_sip_uri(text: str):
    with pytest.raises(InvalidDestination):
        numbers.parse_destination(text)


@pytest.mark.parametrize(
    ("text", "country", "category"),
    [
        ("+4930123456", "DE", Category.ORDINARY),
        ("+491711234567", "DE", Category.ORDINARY),
        ("+18002345678", "", Category.ORDINARY),
        ("+80012345678", "", Category.ORDINARY),
        ("+499001234567", "", Category.PREMIUM),
        ("+447012345678", "", Category.PREMIUM),
        ("+19002345678", "", Category.PREMIUM),
        ("+870773111632", "", Category.PREMIUM),
        ("+881612345678", "", Category.PREMIUM),
        ("+882161234567", "", Category.PREMIUM),
        ("+979123456789", "", Category.PREMIUM),
        ("+18761234567", "", Category.UNASSIGNED),
        ("1000", "", Category.SHORT),
        ("112", "DE", Category.EMERGENCY),
        ("911", "", Category.EMERGENCY),
        ("000", "", Category.EMERGENCY),
    ],
)
def test_categories(text: str, country: str, category: Category):
    assert numbers.category_of(numbers.parse_number(text, country)) is category


def test_countries():
    found = {text: numbers.country_of(numbers.parse_number(text)) for text in ("+4930123456", "+18762345678", "112")}
    assert found == {"+4930123456": "DE", "+18762345678": "JM", "112": ""}
    assert numbers.parse_country(" de ") == "DE"
    for wrong in ("XX", "DEU", "49"):
        with pytest.raises(ValueError, match="two letters"):
            numbers.parse_country(wrong)

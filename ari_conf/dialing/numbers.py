"""Numbers and SIP URIs: what a request may name as the destination or caller ID of a call, in one canonical form.

Only ASCII digits and the separators of `_NUMBER` are accepted, so that nothing of a request can be an operator of
Asterisk's dial string (`&`, `/`, `,`, `@`, `^`, `|`, `$`), a parameter of a SIP URI, or a line break. Letters,
extensions, digits of other scripts, `*` and `#` are not allowed either.
"""

from __future__ import annotations

import re
from enum import StrEnum
from functools import lru_cache
from ipaddress import AddressValueError, IPv6Address
from typing import NamedTuple

import phonenumbers
from phonenumbers import NumberParseException, PhoneNumber, PhoneNumberFormat, PhoneNumberType, ValidationResult

MAX_TEXT_LENGTH = 320
"""Maximum characters of a destination: a SIP URI with the longest host."""
MAX_NUMBER_LENGTH = 40
"""Maximum characters of a number with its separators."""
MAX_E164_DIGITS = 15
"""Maximum digits of a number with its country code. The library accepts longer ones for some countries."""
MAX_SHORT_DIGITS = 6
"""Maximum digits of a short number: an emergency, service or extension number, which has no country code."""
MAX_HOST_LENGTH = 253

_NUMBER = re.compile(r"\+?[0-9(][0-9 ().-]*")
_SEPARATORS = re.compile(r"[ ().-]")
_SIP_URI = re.compile(r"sip:([A-Za-z0-9_.+-]{1,64})@([^@]+)", re.IGNORECASE)
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"({_LABEL}(?:\.{_LABEL})*|\[[0-9a-f:.]{{2,45}}\])(?::([0-9]{{1,5}}))?")
_COUNTRY = re.compile(r"[A-Z]{2}")


class InvalidDestination(ValueError):
    """Text that is no number, prefix, host or SIP URI, or no list of them. Its message says what is expected."""


class Number(NamedTuple):
    """Phone number: in E.164, or a short number, which only exists within a country, a provider or a PBX."""

    digits: str
    """Digits of the E.164 number without the plus, or of the short number."""
    is_short: bool = False

    def __str__(self) -> str:
        return self.digits if self.is_short else f"+{self.digits}"


class SipUri(NamedTuple):
    user: str
    host: str
    """Host in lower case; with `:port` if the URI has one."""

    def __str__(self) -> str:
        return f"sip:{self.user}@{self.host}"


Destination = Number | SipUri


class Category(StrEnum):
    """Category of a number. Numbers that are not ordinary are dialed only for accounts that are allowed to."""

    ORDINARY = "ordinary"
    """Fixed, mobile, Internet or free number that is in an assigned range."""
    PREMIUM = "premium"
    """Number with a price of its own: premium rate, shared cost, personal, pager, voicemail or company number, or
    that of a satellite or of an international service."""
    UNASSIGNED = "unassigned"
    """Number in a range that its country has not assigned: revenue-share fraud calls such ranges."""
    SHORT = "short"
    EMERGENCY = "emergency"


_ORDINARY_TYPES = {
    PhoneNumberType.FIXED_LINE,
    PhoneNumberType.MOBILE,
    PhoneNumberType.FIXED_LINE_OR_MOBILE,
    PhoneNumberType.TOLL_FREE,
    PhoneNumberType.VOIP,
}
NO_COUNTRY = "001"
"""Region of the numbers that belong to no country, such as satellite phones."""


def parse_destination(text: str, default_country: str = "") -> Destination:
    """Return the destination in its canonical form. Raises InvalidDestination."""
    if len(text) <= MAX_TEXT_LENGTH and text[:4].lower() == "sip:":
        return parse_sip_uri(text)
    if not _NUMBER.fullmatch(text.strip(" ")):
        raise InvalidDestination("a phone number of digits, such as +4930123456, or sip:USER@HOST")
    return parse_number(text, default_country)


def parse_number(text: str, default_country: str = "") -> Number:
    """Return a number in its canonical form. Raises InvalidDestination.

    A number with a plus is international. Without one it is read as a number of the default country if there is such a
    number, otherwise as an international number, as Plivo's applications write it. Without a default country it is
    always international. Up to MAX_SHORT_DIGITS digits that are neither are a short number.
    """
    given = text.strip(" ")
    if len(given) > MAX_NUMBER_LENGTH or not _NUMBER.fullmatch(given):
        raise InvalidDestination("a phone number of digits, such as +4930123456")
    compact = _SEPARATORS.sub("", given)
    found = _find_number(compact, default_country)
    if found is None or (not found.is_short and _international(f"+{found.digits}") != found.digits):
        raise InvalidDestination("a complete phone number, with + and the country code, such as +4930123456")
    return found


def _find_number(compact: str, country: str) -> Number | None:
    if compact.startswith("+"):
        return _as_number(_international(compact))
    if country and 0 < len(compact) <= MAX_SHORT_DIGITS and _is_short_in(compact, country):
        return Number(compact, is_short=True)
    if not country and len(compact) > MAX_SHORT_DIGITS:
        return _as_number(_international("+" + compact.removeprefix("00")))
    national = _parsed(compact, country) if country else None
    if national is not None and phonenumbers.is_valid_number(national):
        return _as_number(_e164(national))
    international = _parsed(f"+{compact}", None) if len(compact) > MAX_SHORT_DIGITS else None
    if international is not None and phonenumbers.is_valid_number(international):
        return _as_number(_e164(international))
    if 2 <= len(compact) <= MAX_SHORT_DIGITS:
        return Number(compact, is_short=True)
    return _as_number(_e164(national) if national is not None else None)


def _as_number(digits: str | None) -> Number | None:
    return Number(digits) if digits is not None else None


def _international(text: str) -> str | None:
    """Return the digits of a number that begins with a plus; None if no number has such a length."""
    found = _parsed(text, None)
    return _e164(found) if found is not None else None


def _parsed(text: str, country: str | None) -> PhoneNumber | None:
    try:
        found = phonenumbers.parse(text, country)
    except NumberParseException:
        return None
    is_possible = phonenumbers.is_possible_number_with_reason(found) == ValidationResult.IS_POSSIBLE
    fits = is_possible and not found.extension and len(_e164(found)) <= MAX_E164_DIGITS
    return found if fits else None


def _e164(number: PhoneNumber) -> str:
    return phonenumbers.format_number(number, PhoneNumberFormat.E164).removeprefix("+")


def _is_short_in(digits: str, country: str) -> bool:
    return phonenumbers.connects_to_emergency_number(digits, country) or phonenumbers.is_valid_short_number_for_region(
        PhoneNumber(_country_code(country), int(digits)), country
    )


def _country_code(country: str) -> int:
    return phonenumbers.country_code_for_region(country)


def parse_sip_uri(text: str) -> SipUri:
    """Return a SIP URI in its canonical form. Raises InvalidDestination: it has a user, a host, and nothing else."""
    found = _SIP_URI.fullmatch(text) if text.isascii() else None
    try:
        if found is not None:
            return SipUri(found[1], parse_host(found[2]))
    except InvalidDestination:
        pass
    raise InvalidDestination(
        "sip:USER@HOST or sip:USER@HOST:PORT, without password, parameters and headers; USER has letters, digits and "
        "_ . + -"
    )


def parse_host(text: str) -> str:
    """Return a host, with `:port` if it has one, in the form in which hosts are compared. Raises InvalidDestination."""
    found = _HOST.fullmatch(text.lower()) if text.isascii() and len(text) <= MAX_HOST_LENGTH + 6 else None
    host, port = (found[1], found[2]) if found is not None else ("", None)
    if host.startswith("["):
        try:
            host = f"[{IPv6Address(host[1:-1])}]"
        except AddressValueError:
            host = ""
    if not host or len(host) > MAX_HOST_LENGTH or (port is not None and not 0 < int(port) < 65536):
        raise InvalidDestination("a host name or address, or host:port, such as sip.example.com or 198.51.100.7:5070")
    return host if port is None else f"{host}:{int(port)}"


def parse_country(text: str) -> str:
    """Return a country's code of two letters, such as DE, or "". Raises ValueError."""
    country = text.strip().upper()
    if country and not (_COUNTRY.fullmatch(country) and country in phonenumbers.SUPPORTED_REGIONS):
        raise ValueError("must be a country's code of two letters, such as DE, or empty")
    return country


def category_of(number: Number) -> Category:
    if number.is_short:
        return Category.EMERGENCY if is_emergency(number.digits) else Category.SHORT
    found = phonenumbers.parse(str(number), None)
    if phonenumbers.region_code_for_country_code(found.country_code or 0) == NO_COUNTRY:
        is_free = phonenumbers.number_type(found) == PhoneNumberType.TOLL_FREE
        return Category.ORDINARY if is_free else Category.PREMIUM
    if not phonenumbers.is_valid_number(found):
        return Category.UNASSIGNED
    return Category.ORDINARY if phonenumbers.number_type(found) in _ORDINARY_TYPES else Category.PREMIUM


@lru_cache(1024)
def is_emergency(digits: str) -> bool:
    """Return whether a short number calls the emergency service of any country: the phone's own place is unknown."""
    return any(phonenumbers.is_emergency_number(digits, region) for region in phonenumbers.SUPPORTED_REGIONS)


def country_of(number: Number) -> str:
    """Return the country of an E.164 number, such as DE; "" if it belongs to none."""
    if number.is_short:
        return ""
    found = phonenumbers.region_code_for_number(phonenumbers.parse(str(number), None))
    return found if found is not None and found != NO_COUNTRY else ""


def country_code_of(prefix: str) -> str:
    """Return the country code with which a prefix such as +4930 begins; "" if it may be that of several."""
    digits = prefix.removeprefix("+")
    found = [digits[:length] for length in (1, 2, 3) if len(digits) >= length]
    return next((code for code in found if int(code) in phonenumbers.COUNTRY_CODE_TO_REGION_CODE), "")


def national_digits(number: Number) -> str:
    """Return the digits by which a number is dialed within its country, such as 030123456."""
    if number.is_short:
        return number.digits
    found = phonenumbers.parse(str(number), None)
    return re.sub(r"[^0-9]", "", phonenumbers.format_number(found, PhoneNumberFormat.NATIONAL))

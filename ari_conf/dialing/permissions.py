"""Permissions of an account: which destinations it may call, which caller IDs it may show, and how much. Pure.

Nothing is allowed by default: an account without prefixes dials nothing.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import NamedTuple

import phonenumbers

from ari_conf.dialing import numbers, trunks
from ari_conf.dialing.numbers import Category, Destination, InvalidDestination, Number, SipUri

MAX_CALLS = 100_000
MAX_MINUTES = 1_000_000

_RULE = re.compile(r"!?(\+[0-9]{0,15}|[A-Z]{2})")
_SPECIAL = re.compile(r"\+[0-9]{1,15}|[0-9]{2,6}|[0-9]{1,5}\*")


class Reason(StrEnum):
    """Reason why a call is not placed: the label of the metric, and the beginning of the problem."""

    DESTINATION_INVALID = "destination_invalid"
    """The destination is neither a number nor a SIP URI."""
    CALLER_ID_INVALID = "caller_id_invalid"
    """The caller ID is not a number."""
    NO_TRUNK = "no_trunk"
    """No trunk is configured, or none is for this destination and caller ID."""
    DESTINATION_NOT_ALLOWED = "destination_not_allowed"
    """None of the account's prefixes, countries and hosts allows the destination."""
    SPECIAL_NUMBER = "special_number"
    """A premium, unassigned, short or emergency number that the account is not explicitly allowed to call."""
    CALLER_ID_NOT_ALLOWED = "caller_id_not_allowed"
    """The account may not show this caller ID."""
    TOO_MANY_CALLS = "too_many_calls"
    """The account has as many placed calls at the same time as it may have."""
    TOO_MANY_PER_MINUTE = "too_many_per_minute"
    """The account has placed as many calls within a minute as it may."""
    NO_MINUTES_LEFT = "no_minutes_left"
    """The account's minutes of this day (UTC) are used up."""
    TRUNKS_FULL = "trunks_full"
    """All trunks for the destination have as many calls as they may have, or too many calls wait for one of them."""


class Denial(NamedTuple):
    reason: Reason
    text: str
    """Sentence for the account's owner."""


class Permissions(NamedTuple):
    """Permissions: the fields `dial_…` of an account, each list as a text with commas."""

    prefixes: str = ""
    special: str = ""
    caller_ids: str = ""
    calls: int = 10
    calls_per_minute: int = 30
    minutes_per_day: int = 300

    def check(self, destination: Destination, caller: Number) -> Denial | None:
        """Return why the account may not place this call, or None if it may."""
        return self._check_destination(destination) or self._check_caller(caller)

    def _check_destination(self, destination: Destination) -> Denial | None:
        if isinstance(destination, SipUri):
            return self._check_host(destination)
        if (category := numbers.category_of(destination)) is not Category.ORDINARY:
            return self._check_special(destination, category)
        if _allows(self.prefixes.split(","), destination):
            return None
        return _not_allowed(destination, "a prefix or country in its dial_prefixes")

    def _check_host(self, uri: SipUri) -> Denial | None:
        if f"sip:{uri.host}" in self.prefixes.split(","):
            return None
        return _not_allowed(uri, f"sip:{uri.host} in its dial_prefixes")

    def _check_special(self, number: Number, category: Category) -> Denial | None:
        if any(_is_special(entry, number, category) for entry in self.special.split(",")):
            return None
        article = "an" if category[0] in "aeiou" else "a"
        return Denial(
            Reason.SPECIAL_NUMBER,
            f"{number} is {article} {category} number, which the account may not call: an administrator can add it to "
            "its dial_special",
        )

    def _check_caller(self, caller: Number) -> Denial | None:
        if trunks.shows(self.caller_ids.split(","), caller):
            return None
        return Denial(
            Reason.CALLER_ID_NOT_ALLOWED,
            f"the account may not show the caller ID {caller}: an administrator can add it to its dial_caller_ids",
        )


NOTHING = Permissions()
"""Permissions of an account that has been given none."""


def _not_allowed(destination: Destination, what: str) -> Denial:
    return Denial(
        Reason.DESTINATION_NOT_ALLOWED,
        f"the account may not call {destination}: an administrator can allow it with {what}",
    )


def _allows(rules: list[str], number: Number) -> bool:
    """Return whether the longest rule that matches allows the number; of equally long ones, a denial counts."""
    country, best, is_allowed = numbers.country_of(number), -1.0, False
    for rule in rules:
        pattern = rule.removeprefix("!")
        if not pattern or pattern.startswith("sip:"):
            continue
        length = _length(pattern, number, country)
        if length is not None and (length > best or (length == best and rule.startswith("!"))):
            best, is_allowed = length, not rule.startswith("!")
    return is_allowed


def _length(pattern: str, number: Number, country: str) -> float | None:
    """Return how many digits a rule matches, or None. A country is longer than its code, which others may share."""
    if pattern.startswith("+"):
        return len(pattern) - 1 if str(number).startswith(pattern) else None
    if pattern != country:
        return None
    return len(str(phonenumbers.country_code_for_region(country))) + 0.5


def _is_special(entry: str, number: Number, category: Category) -> bool:
    if entry.endswith("*"):
        # A range of extensions must not open an emergency number.
        return category is Category.SHORT and number.digits.startswith(entry[:-1])
    if number.is_short:
        return entry == number.digits
    return entry.startswith("+") and str(number).startswith(entry)


# Parsers of an account's fields: each returns the canonical text, or raises InvalidDestination.


def parse_prefixes(text: str) -> str:
    found = trunks.entries(text)
    return ",".join(dict.fromkeys(_rule(entry) for entry in found))


def _rule(entry: str) -> str:
    if entry[:4].lower() == "sip:":
        return f"sip:{numbers.parse_host(entry[4:])}"
    rule = entry.upper()
    country = rule.removeprefix("!")
    if not _RULE.fullmatch(rule) or (country.isalpha() and country not in phonenumbers.SUPPORTED_REGIONS):
        raise InvalidDestination(
            "beginnings of numbers such as +49, + for all, countries such as DE, sip:HOST, and ! before what is denied"
        )
    return rule


def parse_special(text: str) -> str:
    found = trunks.entries(text)
    if not all(map(_SPECIAL.fullmatch, found)):
        raise InvalidDestination(
            "beginnings of premium or unassigned numbers such as +49900, short numbers such as 112, and ranges of "
            "short numbers such as 10*"
        )
    return ",".join(found)


def parse_caller_ids(text: str) -> str:
    return ",".join(trunks.caller_ids(text))

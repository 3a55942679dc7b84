"""Trunks: the ways out of this system, each to a provider, a gateway or a PBX. Only an operator can name one.

A trunk's template is the only part of a dial string that is not a checked number: see `dial_string`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from ari_conf.dialing import numbers
from ari_conf.dialing.numbers import Destination, InvalidDestination, Number, SipUri
from ari_conf.errors import TrunkError

MAX_TRUNKS = 200
MAX_ENTRIES = 1000
"""Maximum entries of one list of a trunk or an account."""
MAX_CALLS = 100_000
"""Highest limit of calls at the same time, and of calls per second."""

MAX_PRIORITY = 1000

_NAME = re.compile(r"[A-Za-z0-9_-]{1,40}")
# Nothing in it has a meaning in Asterisk's dial string, except what is written here.
_TEMPLATE = re.compile(
    r"PJSIP/(?P<before>[0-9*]{0,20})\{(?P<format>number|e164|national)\}@(?P<endpoint>[A-Za-z0-9_.-]{1,80})"
)
_PREFIX = re.compile(r"\+[0-9]{0,15}|[0-9]{1,6}")
_CALLER_ID = re.compile(r"(\+[0-9]{1,15}|[0-9]{1,6})\*?")
EVERY_NUMBER = "+"
"""Prefix of every number but the short ones."""


class Trunk(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    name: str
    dial: str
    """Template of what Asterisk dials, such as PJSIP/{number}@provider, where `provider` is an endpoint of Asterisk's.
    {number}: digits with the country code. {e164}: the same with a plus. {national}: as it is dialed in its country."""
    prefixes: tuple[str, ...] = ()
    """Beginnings of the numbers that it is for: +49; + for all; without a plus those of short numbers, such as 112."""
    caller_ids: tuple[str, ...] = ()
    """Caller IDs that may be shown over it: numbers, or beginnings of numbers with a `*`. Empty: any that the account
    may show."""
    hosts: tuple[str, ...] = ()
    """Hosts that SIP URIs may name, each with `:port` if the URI has one. Its endpoint sends the INVITE there."""
    calls: int = 30
    """Maximum number of calls at the same time. 0: no limit."""
    per_second: int = 5
    """Maximum number of calls placed per second; further ones wait. 0: no limit."""
    priority: int = 0
    """Of trunks with prefixes of the same length, that with the lowest priority is tried first."""
    enabled: bool = True

    @property
    def endpoint(self) -> str:
        """Name of the endpoint in Asterisk."""
        return _template(self.dial)["endpoint"]

    def dial_string(self, destination: Destination) -> str:
        """Return what Asterisk dials. The parts of the destination have been checked by `numbers`."""
        if isinstance(destination, SipUri):
            return f"PJSIP/{self.endpoint}/{destination}"
        template = _template(self.dial)
        return f"PJSIP/{template['before']}{_formatted(destination, template['format'])}@{template['endpoint']}"


FIELDS = tuple(name for name in Trunk.__struct_fields__ if name != "name")
"""Fields that can be changed."""


def _template(dial: str) -> Mapping[str, str]:
    found = _TEMPLATE.fullmatch(dial)
    if found is None:
        raise TrunkError(
            f"dial: {dial!r} is not allowed; expected PJSIP/{{number}}@ENDPOINT, where ENDPOINT is a PJSIP endpoint of "
            "Asterisk's; {e164} instead of {number} has a plus, {national} is as dialed in the country, and digits may "
            "stand before it"
        )
    return found.groupdict()


def _formatted(number: Number, format: str) -> str:
    if format == "national":
        return numbers.national_digits(number)
    return str(number) if format == "e164" else number.digits


def make(name: str, fields: Mapping[str, Any]) -> Trunk:
    """Return a trunk with these FIELDS: lists as sequences, or as text with commas. Raises TrunkError."""
    if not _NAME.fullmatch(name):
        raise TrunkError(f"name: {name!r} is not allowed; expected 1 to 40 letters, digits, _ or -")
    return changed(Trunk(name=name, dial=""), {"dial": "", **fields})


def changed(trunk: Trunk, fields: Mapping[str, Any]) -> Trunk:
    """Return the trunk with changed FIELDS. Raises TrunkError if a value is not allowed."""
    checked: dict[str, Any] = {}
    for field, value in fields.items():
        parse = _PARSERS.get(field)
        if parse is None:
            raise TrunkError(f"{field}: trunks have no such field; expected one of {', '.join(FIELDS)}")
        try:
            checked[field] = parse(value)
        except InvalidDestination as expected:
            raise TrunkError(f"{field}: {value!r} is not allowed; expected {expected}") from None
    made = msgspec.structs.replace(trunk, **checked)
    if made.dial and _template(made.dial)["format"] == "national":
        _check_one_country(made.prefixes)
    return made


def _check_one_country(prefixes: Iterable[str]) -> None:
    """Raise TrunkError unless all numbers with these prefixes are of one country code.

    Without its country code, a number means another one elsewhere: +33 900... is no premium number, but 0900... is one
    in Germany."""
    found = {numbers.country_code_of(prefix) for prefix in prefixes if prefix.startswith("+")}
    if len(found) > 1 or "" in found:
        raise TrunkError(
            "prefixes: {national} leaves out the country code, so all prefixes must begin with the same one, such as "
            "+49; use {number} or {e164} for other countries, or one more trunk"
        )


def _dial(value: Any) -> str:
    _template(str(value))
    return str(value)


def entries(value: Any) -> list[str]:
    """Return the entries of a list, or of a text with commas, without empty ones."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, Iterable) or isinstance(parts, Mapping):
        raise InvalidDestination("a list, or a text with commas")
    found = [part for entry in parts if (part := str(entry).strip())]
    if len(found) > MAX_ENTRIES:
        raise InvalidDestination(f"at most {MAX_ENTRIES} entries")
    return list(dict.fromkeys(found))


def _prefixes(value: Any) -> tuple[str, ...]:
    found = entries(value)
    if not all(map(_PREFIX.fullmatch, found)):
        raise InvalidDestination("beginnings of numbers: + and digits, + for all, or digits alone for short numbers")
    return tuple(found)


def caller_ids(value: Any) -> tuple[str, ...]:
    """Return a list of caller IDs. Raises InvalidDestination."""
    found = [re.sub(r"[ ().-]", "", entry) for entry in entries(value)]
    if not all(map(_CALLER_ID.fullmatch, found)):
        raise InvalidDestination("numbers with + and the country code, or their beginning with a *, such as +4930123*")
    return tuple(found)


def _hosts(value: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(numbers.parse_host(entry) for entry in entries(value)))


def _limit(value: Any) -> int:
    try:
        found = int(str(value))
    except ValueError:
        found = -1
    if isinstance(value, bool) or not 0 <= found <= MAX_CALLS:
        raise InvalidDestination(f"a whole number from 0 (no limit) to {MAX_CALLS}")
    return found


def _priority(value: Any) -> int:
    try:
        found = int(str(value))
    except ValueError:
        found = -1
    if isinstance(value, bool) or not 0 <= found <= MAX_PRIORITY:
        raise InvalidDestination(f"a whole number from 0 to {MAX_PRIORITY}; the lowest is tried first")
    return found


def _enabled(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if str(value).lower() not in ("true", "false"):
        raise InvalidDestination("true or false")
    return str(value).lower() == "true"


_PARSERS = {
    "dial": _dial,
    "prefixes": _prefixes,
    "caller_ids": caller_ids,
    "hosts": _hosts,
    "calls": _limit,
    "per_second": _limit,
    "priority": _priority,
    "enabled": _enabled,
}


def shows(allowed: Sequence[str], caller: Number) -> bool:
    """Return whether a list of caller IDs has this one."""
    text = str(caller)
    return any(text.startswith(one[:-1]) if one.endswith("*") else text == one for one in allowed)


def from_settings(text: str) -> tuple[Trunk, ...]:
    """Return the trunks of the setting `trunks`, a JSON list of objects. Raises TrunkError."""
    try:
        found = json.loads(text) if text.strip() else []
    except ValueError as error:
        raise TrunkError(f"trunks: not valid JSON ({error}); expected a list of objects") from None
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise TrunkError("trunks: expected a list of objects, each with name and dial")
    made = tuple(make(str(each.get("name", "")), {k: v for k, v in each.items() if k != "name"}) for each in found)
    if len({trunk.name for trunk in made}) < len(made):
        raise TrunkError("trunks: a name is there twice")
    if len(made) > MAX_TRUNKS:
        raise TrunkError(f"trunks: at most {MAX_TRUNKS} trunks are allowed")
    return made

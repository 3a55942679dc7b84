"""Routing: the trunks over which a destination is dialed, in order. Pure.

The trunk with the longest matching prefix comes first; of equal ones that with the lowest priority, then by name. The
next is tried only if the one before is congested or unreachable: a callee who is busy is busy over every trunk.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ari_conf.dialing import trunks
from ari_conf.dialing.attempt import DialAttempt
from ari_conf.dialing.numbers import Destination, Number, SipUri
from ari_conf.dialing.trunks import Trunk

MAX_ATTEMPTS = 4
"""Maximum number of trunks that one call tries."""


class Verdict(NamedTuple):
    """Verdict on a trunk: can it be used for a call?"""

    trunk: Trunk
    prefix: str
    """Longest matching prefix, or the matching host of a SIP URI; "" if the trunk does not match."""
    refusal: str
    """Reason why the trunk is not used; "" if it is."""


def judge(trunk: Trunk, destination: Destination, caller: Number) -> Verdict:
    """Return whether the trunk can be used for a call to the destination that shows this caller ID."""
    prefix = _matching(trunk, destination)
    if not trunk.enabled:
        return Verdict(trunk, prefix, "it is disabled")
    if not prefix:
        is_uri = isinstance(destination, SipUri)
        return Verdict(trunk, prefix, f"none of its {'hosts is the host' if is_uri else 'prefixes matches'}")
    if trunk.caller_ids and not trunks.shows(trunk.caller_ids, caller):
        return Verdict(trunk, prefix, f"the caller ID {caller} is none of those that it shows")
    return Verdict(trunk, prefix, "")


def _matching(trunk: Trunk, destination: Destination) -> str:
    if isinstance(destination, SipUri):
        return destination.host if destination.host in trunk.hosts else ""
    return max((prefix for prefix in trunk.prefixes if str(destination).startswith(prefix)), key=len, default="")


def route(candidates: Iterable[Trunk], destination: Destination, caller: Number) -> list[Trunk]:
    """Return the trunks to try, in order; none if no trunk can be used."""
    usable = [verdict for trunk in candidates if not (verdict := judge(trunk, destination, caller)).refusal]
    usable.sort(key=lambda verdict: (-len(verdict.prefix), verdict.trunk.priority, verdict.trunk.name))
    return [verdict.trunk for verdict in usable[:MAX_ATTEMPTS]]


def attempt(trunk: Trunk, destination: Destination) -> DialAttempt:
    return DialAttempt(trunk.name, trunk.dial_string(destination))

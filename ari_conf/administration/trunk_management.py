"""Management of trunks by administrators: the same for the API, the page and the commands. Each change is in the audit
log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from redis import Redis

from ari_conf.administration import audit
from ari_conf.administration.audit import Actor
from ari_conf.dialing import admission, numbers, routing, trunk_store, trunks
from ari_conf.dialing.admission import Plan
from ari_conf.dialing.numbers import Number
from ari_conf.dialing.permissions import Denial, Permissions
from ari_conf.dialing.routing import Verdict
from ari_conf.dialing.trunk_store import Also, ConfiguredTrunk
from ari_conf.dialing.trunks import Trunk
from ari_conf.store import accounts


def list_all(redis: Redis, settings: Sequence[Trunk]) -> list[ConfiguredTrunk]:
    """Return all trunks, those of the settings first."""
    return trunk_store.list_all(redis, settings)


def get(redis: Redis, settings: Sequence[Trunk], name: str) -> ConfiguredTrunk:
    """Return a trunk. Raises TrunkError."""
    return trunk_store.get(redis, name, settings)


def create(redis: Redis, settings: Sequence[Trunk], actor: Actor, name: str, fields: Mapping[str, Any]) -> Trunk:
    """Create a trunk with `trunks.FIELDS`. Raises TrunkError."""
    trunk, audited = trunks.make(name, fields), _Audited(redis, actor, "trunk created")
    trunk_store.add(redis, trunk, settings, audited.add)
    audited.log()
    return trunk


def change(redis: Redis, settings: Sequence[Trunk], actor: Actor, name: str, fields: Mapping[str, Any]) -> Trunk:
    """Change `trunks.FIELDS` of a trunk. Raises TrunkError."""
    audited = _Audited(redis, actor, "trunk changed")
    trunk = trunk_store.change(redis, name, fields, settings, audited.add)
    audited.log()
    return trunk


def remove(redis: Redis, settings: Sequence[Trunk], actor: Actor, name: str) -> None:
    """Remove a trunk: calls are no longer placed over it, and those that are live continue. Raises TrunkError."""
    audited = _Audited(redis, actor, "trunk removed", name)
    trunk_store.remove(redis, name, settings, audited.add)
    audited.log()


class _Audited:
    """Entry of the audit log that is added in the transaction of a change, and logged after it."""

    def __init__(self, redis: Redis, actor: Actor, action: str, name: str = "") -> None:
        self._redis, self._actor, self._action, self._name = redis, actor, action, name
        self._entry: audit.AuditEntry | None = None

    @property
    def add(self) -> Also:
        return self._add

    def _add(self, pipe: Any, before: Trunk | None, after: Trunk | None) -> None:
        trunk = after or before
        details = {"trunk": trunk.name if trunk is not None else self._name, **_changes(before, after)}
        self._entry = audit.entry(self._redis, self._actor, self._action, "", details)
        audit.add(pipe, self._entry)

    def log(self) -> None:
        if self._entry is not None:
            audit.write_log(self._entry)


def _changes(before: Trunk | None, after: Trunk | None) -> dict[str, str]:
    """Return the changed fields for the audit log."""
    if after is None:
        return {}
    if before is None:
        before, created = Trunk(name=after.name, dial=""), True
    else:
        created = False
    found = {}
    for name in trunks.FIELDS:
        old, new = shown(getattr(before, name)), shown(getattr(after, name))
        if old != new:
            found[name] = new if created else f"{old or 'none'} → {new or 'none'}"
    return found


def shown(value: object) -> str:
    """Return a field of a trunk as text."""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(value) if isinstance(value, tuple) else str(value)


class RouteExplanation(NamedTuple):
    """Explanation of how a call would be placed now, apart from the limits of calls and minutes."""

    destination: str
    """Destination in its canonical form; "" if it can't be read."""
    category: str
    """Category and country of a number, such as "ordinary DE"."""
    caller_id: str
    denial: Denial | None
    """Reason why nothing would be dialed."""
    verdicts: tuple[Verdict, ...]
    """Verdict on each trunk, in the order in which they are tried; unused ones last."""
    dialed: tuple[str, ...]
    """Dial strings of the trunks that would be tried, in order."""


def explain_route(
    redis: Redis, settings: Sequence[Trunk], auth_id: str, to: str, from_: str | None, default_country: str
) -> RouteExplanation:
    """Return how a call of the account would be routed. `from_`: None for the first number that the account may show.

    Raises AccountNotFound or AccountUnreadable."""
    record = accounts.get(redis, auth_id)
    if record is None:
        raise accounts.does_not_exist(auth_id)
    permissions = record.permissions()
    candidates = [one.trunk for one in list_all(redis, settings)]
    caller_text = from_ or _first_caller_id(permissions)
    planned = admission.plan(candidates, permissions, caller_text, to, default_country)
    if isinstance(planned, Denial) and planned.reason in admission.INVALID:
        return RouteExplanation("", "", caller_text, planned, (), ())
    destination = numbers.parse_destination(to, default_country)
    caller = numbers.parse_number(caller_text, default_country)
    category = ""
    if isinstance(destination, Number):
        category = f"{numbers.category_of(destination)} {numbers.country_of(destination)}".strip()
    tried = routing.route(candidates, destination, caller)
    verdicts = sorted(
        (routing.judge(trunk, destination, caller) for trunk in candidates),
        key=lambda verdict: tried.index(verdict.trunk) if verdict.trunk in tried else len(tried),
    )
    dialed = planned.trunks if isinstance(planned, Plan) else ()
    return RouteExplanation(
        str(destination),
        category,
        str(caller),
        planned if isinstance(planned, Denial) else None,
        tuple(verdicts),
        tuple(trunk.dial_string(destination) for trunk in dialed),
    )


def _first_caller_id(permissions: Permissions) -> str:
    return next((one for one in permissions.caller_ids.split(",") if one and not one.endswith("*")), "")

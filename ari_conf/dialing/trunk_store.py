"""Trunks in Redis, one hash: name -> JSON. Those of the setting `trunks` come first, and can't be changed here.

`Also` functions add commands to the transaction that changes a trunk, such as the entry of the audit log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, cast

import msgspec
import structlog
from redis import Redis

from ari_conf.dialing import trunks
from ari_conf.dialing.keys import TRUNKS_KEY
from ari_conf.dialing.trunks import Trunk
from ari_conf.errors import TrunkConflict, TrunkError, TrunkNotFound

log = structlog.get_logger()

encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Trunk).decode

Also = Callable[[Any, Trunk | None, Trunk | None], None]
"""Function of (pipeline, trunk before the change, trunk after it); None: it does not exist."""


class ConfiguredTrunk(NamedTuple):
    trunk: Trunk
    is_setting: bool
    """True if it is one of the setting `trunks`."""


def decode_all(records: Mapping[bytes, bytes]) -> list[Trunk]:
    """Return the trunks of the hash, by name. One that can't be read is logged and left out: nothing is dialed."""
    found = []
    for name, record in records.items():
        try:
            found.append(decode(record))
        except ValueError as error:
            log.error("trunk record unreadable", trunk=name.decode(errors="replace"), reason=str(error))
    return sorted(found, key=lambda trunk: trunk.name)


def merged(settings: Iterable[Trunk], stored: Iterable[Trunk]) -> list[Trunk]:
    """Return all trunks: a stored one with the name of one in the settings is left out."""
    first = list(settings)
    names = {trunk.name for trunk in first}
    return first + [trunk for trunk in stored if trunk.name not in names]


def list_all(redis: Redis, settings: Iterable[Trunk] = ()) -> list[ConfiguredTrunk]:
    """Return all trunks, those of the settings first."""
    first = list(settings)
    names = {trunk.name for trunk in first}
    stored = decode_all(cast("dict[bytes, bytes]", redis.hgetall(TRUNKS_KEY)))
    return [ConfiguredTrunk(t, t.name in names) for t in merged(first, stored)]


def get(redis: Redis, name: str, settings: Iterable[Trunk] = ()) -> ConfiguredTrunk:
    """Return a trunk. Raises TrunkNotFound, or TrunkError if its record can't be read."""
    for trunk in settings:
        if trunk.name == name:
            return ConfiguredTrunk(trunk, is_setting=True)
    found = cast("bytes | None", redis.hget(TRUNKS_KEY, name))
    if found is None:
        raise does_not_exist(name)
    return ConfiguredTrunk(_read(name, found), is_setting=False)


def add(redis: Redis, trunk: Trunk, settings: Iterable[Trunk], also: Also) -> None:
    """Add a trunk. Raises TrunkError."""

    def change(pipe: Any, before: Trunk | None) -> Trunk:
        if before is not None:
            raise TrunkConflict(f"trunk {trunk.name} already exists, and was not changed: choose another name")
        if pipe.hlen(TRUNKS_KEY) >= trunks.MAX_TRUNKS:
            raise TrunkConflict(f"{trunks.MAX_TRUNKS} trunks exist, and more are not allowed: remove one")
        return trunk

    _transact(redis, trunk.name, settings, change, also)


def change(redis: Redis, name: str, fields: Mapping[str, Any], settings: Iterable[Trunk], also: Also) -> Trunk:
    """Change `trunks.FIELDS` of a trunk. Raises TrunkError."""

    def apply(pipe: Any, before: Trunk | None) -> Trunk:
        if before is None:
            raise does_not_exist(name)
        return trunks.changed(before, fields)

    return cast(Trunk, _transact(redis, name, settings, apply, also))


def remove(redis: Redis, name: str, settings: Iterable[Trunk], also: Also) -> None:
    """Remove a trunk: calls are no longer placed over it, and those that are live continue. Raises TrunkError."""

    def apply(pipe: Any, before: Trunk | None) -> None:
        if before is None and not pipe.hexists(TRUNKS_KEY, name):
            raise does_not_exist(name)

    _transact(redis, name, settings, apply, also, is_readable_needed=False)


def _transact(
    redis: Redis,
    name: str,
    settings: Iterable[Trunk],
    apply: Callable[[Any, Trunk | None], Trunk | None],
    also: Also,
    *,
    is_readable_needed: bool = True,
) -> Trunk | None:
    if any(trunk.name == name for trunk in settings):
        raise TrunkConflict(f"trunk {name} is in the settings (ARI_CONF_TRUNKS): change it there")

    def transaction(pipe: Any) -> Trunk | None:
        found = pipe.hget(TRUNKS_KEY, name)
        try:
            before = _read(name, found) if found is not None else None
        except TrunkError:
            if is_readable_needed:
                raise
            before = None
        after = apply(pipe, before)
        pipe.multi()
        if after is None:
            pipe.hdel(TRUNKS_KEY, name)
        else:
            pipe.hset(TRUNKS_KEY, name, encode(after))
        also(pipe, before, after)
        return after

    # redis-py repeats the transaction if another client changed a trunk in the meantime.
    work: Any = transaction
    return cast("Trunk | None", redis.transaction(work, TRUNKS_KEY, value_from_callable=True))


def _read(name: str, found: bytes) -> Trunk:
    try:
        return decode(found)
    except ValueError as error:
        raise TrunkError(
            f"the record of trunk {name} in Redis could not be read ({error}): remove the trunk with `ari-conf trunk "
            "remove`, then add it again"
        ) from error


def does_not_exist(name: str) -> TrunkNotFound:
    return TrunkNotFound(f"trunk {name[:40]!r} does not exist")

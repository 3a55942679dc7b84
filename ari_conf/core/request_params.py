"""Values of request parameters, as the specification writes them."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import lru_cache

from ari_conf.core.effects import Params

EPOCH = datetime(1970, 1, 1)
"""UTC, like all times in this module."""
LATEST = 253_370_764_800_000
"""Epoch milliseconds of the beginning of the year 9999, the last year of `datetime`."""


@lru_cache(1024)
def format_second(since_1970: int) -> str:
    # This takes half as long as strftime.
    return (EPOCH + timedelta(0, since_1970)).isoformat(" ")


def plausible(*times: int | None) -> bool:
    """Return whether every time can be formatted: it is None, or epoch ms from 1970 to 9999."""
    return all(at is None or 0 <= at <= LATEST for at in times)


def bool_text(value: bool) -> str:
    return "true" if value else "false"


def as_params(params: dict[str, str]) -> Params:
    return tuple(params.items())

"""Copies of objects by way of their persisted form."""

from typing import TypeVar

import msgspec

T = TypeVar("T")


def copied(thing: T) -> T:
    """Return what another process would read."""
    return msgspec.json.decode(msgspec.json.encode(thing), type=type(thing))

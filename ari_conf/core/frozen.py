"""Base class of events, effects, messages, commands, document elements and accounts."""

from __future__ import annotations

from typing import dataclass_transform

import msgspec


@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class Frozen(msgspec.Struct, frozen=True, tag=True, omit_defaults=True, gc=False):
    """Immutable values: equal if class and values are equal. As JSON, an object of the values that are not the default.

    The field `type` of the JSON is the class's name, so that msgspec decodes unions of such classes. All values are
    immutable themselves, so that no cycle is possible, and the garbage collector needs to track nothing.
    """

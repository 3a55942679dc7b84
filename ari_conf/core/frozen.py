"""Declaration of events, effects and messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def frozen(cls: type[T]) -> type[T]:
    """Declare a frozen dataclass with slots.

    Immutability is checked by mypy and not at run time: a check on every field assignment made construction three times
    as slow (330 ns instead of 104 ns for three fields), and the core creates one or two instances per event.
    """
    made = dataclass(slots=True, unsafe_hash=True)(cls)
    # `snapshot` reads this flag when it restores state: equal frozen instances are shared.
    made.__dataclass_params__.frozen = True  # type: ignore[attr-defined]
    return made

"""How events, effects and what calls and conferences tell each other are declared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def fact(cls: type[T]) -> type[T]:
    """A frozen dataclass with slots. That nobody changes one is mypy's to see, and not the running program's: asking at
    each field whether it may be set made them three times as dear (330 and 104 ns for three fields), and the core makes
    one or two for each event."""
    made = dataclass(slots=True, unsafe_hash=True)(cls)
    # Who reads what was written asks for this: what is frozen can be had in common.
    made.__dataclass_params__.frozen = True  # type: ignore[attr-defined]
    return made

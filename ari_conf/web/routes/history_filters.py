"""Filters for ended calls and conferences: parts of numbers and names, ranges of time and duration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from ari_conf.store.accounts import DAY_MS
from ari_conf.web.routes.recording_filters import TIME_SCHEMA, check_visible, parse_time

MAX_OFFSET = 100_000
"""Maximum offset of a page: the database counts up to it."""
MAX_SECONDS = 100_000_000
DEFAULT_DAYS = 7
"""Days before now to which a list of calls is limited if it has no end_time."""


def none_if_empty(value: Any) -> Any:
    return None if value in ("", None) else value


def _check_number(text: str) -> str:
    """Return a part of a number as numbers are stored: without the plus sign, spaces and hyphens that people write."""
    found = check_visible(text)
    if found and ":" not in found and "@" not in found:
        found = found.translate({ord(sign): None for sign in "+ -()./"})
        if not found:
            raise ValueError(f"{text[:40]!r} is not allowed; expected digits of a number, or a part of a SIP address")
    return found


VisibleText = Annotated[
    str,
    Field(max_length=200),
    AfterValidator(check_visible),
    # Schemathesis and other clients make values from this pattern.
    WithJsonSchema({"type": "string", "maxLength": 200, "pattern": r"^[ -~]*[!-~][ -~]*$|^$"}),
]
NumberPart = Annotated[
    str,
    Field(max_length=100),
    AfterValidator(_check_number),
    WithJsonSchema({"type": "string", "maxLength": 100, "pattern": r"^[0-9]*$"}),
]
TimeText = Annotated[int | None, BeforeValidator(parse_time), WithJsonSchema(TIME_SCHEMA)]
Seconds = Annotated[
    Annotated[int, Field(ge=0, le=MAX_SECONDS)] | None,
    BeforeValidator(none_if_empty),
    WithJsonSchema({"type": "integer", "minimum": 0, "maximum": MAX_SECONDS}),
]
Offset = Annotated[int, Field(ge=0, le=MAX_OFFSET)]


def reject_unsupported(given: Mapping[str, Any], unsupported: Mapping[str, str]) -> None:
    """Raise ValueError if a filter is given that is not offered: ignored, it would list more than was meant."""
    for name in unsupported.keys() & given.keys():
        if given[name]:
            raise ValueError(f"{name}: {unsupported[name]}")


def time_range(
    exact: int | None, gt: int | None, gte: int | None, lt: int | None, lte: int | None
) -> tuple[int | None, int | None]:
    """Return (first, last) epoch ms that match. `exact` means the second that a record shows. None: no limit."""
    return (
        _most(None if exact is None else exact // 1000 * 1000, None if gt is None else gt + 1, gte),
        _least(None if exact is None else exact // 1000 * 1000 + 999, None if lt is None else lt - 1, lte),
    )


def whole_range(
    exact: int | None, gt: int | None, gte: int | None, lt: int | None, lte: int | None
) -> tuple[int | None, int | None]:
    """Return (first, last) whole number that matches. None: no limit."""
    return (
        _most(exact, None if gt is None else gt + 1, gte),
        _least(exact, None if lt is None else lt - 1, lte),
    )


def week_before(now_ms: int) -> int:
    return now_ms - DEFAULT_DAYS * DAY_MS


def _most(*values: int | None) -> int | None:
    return max((value for value in values if value is not None), default=None)


def _least(*values: int | None) -> int | None:
    return min((value for value in values if value is not None), default=None)

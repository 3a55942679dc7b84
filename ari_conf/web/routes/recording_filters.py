"""Filters for the list of recordings, with the names that Plivo's SDK sends."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from ari_conf.common.safe_text import one_spelling
from ari_conf.store.accounts import DAY_MS
from ari_conf.web import models as m

UNSUPPORTED_FILTERS = {
    "mpc_name": "multiparty calls are not offered; use conference_name",
    "mpc_uuid": "multiparty calls are not offered; use conference_uuid",
    "subaccount": "subaccounts are not offered; send the request as the account itself",
    "cursor": "not offered; use limit and offset",
}
"""Other filters of the SDK, with their error texts. An ignored filter would list, or lead an application to delete,
recordings that the filter was meant to exclude."""


def parse_time(value: Any) -> Any:
    """Return epoch ms of `YYYY-MM-DD HH:MM[:SS[.ffffff]]`, UTC, or None for an empty value."""
    if value in ("", None):
        return None
    try:
        return round(datetime.fromisoformat(str(value)).replace(tzinfo=UTC).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise ValueError(f"{str(value)[:40]!r} is not allowed; expected YYYY-MM-DD HH:MM[:SS[.ffffff]]") from None


_DAY_OF_YEAR = "((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))"
_TIME_OF_DAY = r"([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]{1,6})?)?"
# The pattern leaves out February 29, which is valid in some years only.
TIME_SCHEMA = {"type": "string", "pattern": f"^(19|20)[0-9]{{2}}-{_DAY_OF_YEAR} {_TIME_OF_DAY}$"}
Time = Annotated[int | None, BeforeValidator(parse_time), WithJsonSchema(TIME_SCHEMA)]


def check_visible(text: str) -> str:
    """Return the text in its one spelling. Raises ValueError for a text without a visible character.

    Such a text would become the empty one, which matches everything."""
    found = one_spelling(text)
    if text and not found:
        raise ValueError("has only invisible characters; expected a text, or nothing")
    return found


def _none_if_empty(value: Any) -> Any:
    return None if value in ("", None) else value


DAYS_SCHEMA = {"type": "integer", "minimum": 0, "maximum": 100_000}
Days = Annotated[
    Annotated[int, Field(ge=0, le=100_000)] | None, BeforeValidator(_none_if_empty), WithJsonSchema(DAYS_SCHEMA)
]


VISIBLE_SCHEMA = {"type": "string", "pattern": r"^([ -~]*[!-~][ -~]*)?$"}


class Filters(m.ApiRequest):
    """Filters for recordings. A recording must match all that are given."""

    limit: Annotated[int, Field(ge=1, le=20)] = 20
    offset: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    conference_name: Annotated[str, AfterValidator(check_visible), WithJsonSchema(VISIBLE_SCHEMA)] = ""
    conference_uuid: str = ""
    call_uuid: str = ""
    from_number: str = ""
    to_number: str = ""
    add_time: Time = None
    add_time__gt: Time = None
    add_time__gte: Time = None
    add_time__lt: Time = None
    add_time__lte: Time = None
    recording_storage_duration: Days = None
    recording_storage_duration__gt: Days = None
    recording_storage_duration__gte: Days = None
    recording_storage_duration__lt: Days = None
    recording_storage_duration__lte: Days = None

    @model_validator(mode="before")
    @classmethod
    def _reject_unsupported(cls, given: Any) -> Any:
        for name in UNSUPPORTED_FILTERS.keys() & given.keys():
            if given[name]:
                raise ValueError(f"{name}: {UNSUPPORTED_FILTERS[name]}")
        return given

    @property
    def index_terms(self) -> dict[str, str]:
        given = {
            "name": self.conference_name,
            "uuid": self.conference_uuid,
            "call": self.call_uuid,
            "from": self.from_number,
            "to": self.to_number,
        }
        return {kind: value for kind, value in given.items() if value}

    def start_range(self, now: float) -> tuple[float, float]:
        """Return (first, last) start of matching recordings in epoch ms. `now`: epoch seconds."""
        since: list[int | None] = [self.add_time, self.add_time__gte, _plus(self.add_time__gt, 1)]
        until: list[int | None] = [self.add_time, self.add_time__lte, _plus(self.add_time__lt, -1)]

        def ago(days: int | None) -> int | None:
            return None if days is None else round(now * 1000) - days * DAY_MS

        # "Stored for n days" means at least n whole days and fewer than n + 1.
        same = self.recording_storage_duration
        since += [_plus(ago(_plus(days, 1)), 1) for days in (same, self.recording_storage_duration__lte)]
        since.append(_plus(ago(self.recording_storage_duration__lt), 1))
        until += [
            ago(same),
            ago(self.recording_storage_duration__gte),
            ago(_plus(self.recording_storage_duration__gt, 1)),
        ]
        first = max((t for t in since if t is not None), default=float("-inf"))
        return first, min((t for t in until if t is not None), default=float("inf"))


def _plus(number: int | None, by: int) -> int | None:
    return None if number is None else number + by

"""Queries of the history: one page each, the newest first, of one account.

Every function takes the account and returns nothing of any other. `limit` and `offset` are of the page; totals count
all matching rows up to MAX_COUNTED, so that a page costs no more the longer the history is. Functions take a connection
of `HistoryDatabase.read`, and raise what that raises.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, Select, Table, and_, false, func, or_, select, true

from ari_conf.common.safe_text import one_spelling
from ari_conf.history.tables import (
    callbacks,
    calls,
    conferences,
    memberships,
    problems,
    recording_numbers,
    recordings,
    talks,
)

MAX_COUNTED = 10_000
"""Maximum of a total; a total of as many means "at least as many"."""
MAX_TALKS = 20_000
"""Maximum intervals of talking in one timeline, the earliest."""
MAX_MEMBERS = 5_000
"""Maximum memberships in one timeline, the earliest."""
Outcome = Literal["delivered", "dead"]


class Page(NamedTuple):
    total: int
    rows: Sequence[Row[Any]]
    """Rows whose attributes are the columns of the table (`tables`)."""


@dataclass(frozen=True, slots=True)
class CallFilter:
    """Filter of calls; None: any. A filter that has no visible character matches nothing."""

    direction: str | None = None
    from_number: str | None = None
    """Part of the caller's number."""
    to_number: str | None = None
    """Part of the number called."""
    ended_from_ms: float | None = None
    """First time of the end, inclusive."""
    ended_until_ms: float | None = None
    """Last time of the end, inclusive."""
    bill_from_s: int | None = None
    """Minimum of the seconds since the answer."""
    bill_until_s: int | None = None
    parent_call_uuid: str | None = None
    conference_id: str | None = None
    """Calls that were in this conference."""
    hangup_cause_code: int | None = None
    hangup_source: str | None = None
    status: str | None = None


@dataclass(frozen=True, slots=True)
class ConferenceFilter:
    """Filter of conferences; None: any. A filter that has no visible character matches nothing."""

    name: str | None = None
    """Name of the conference."""
    text: str | None = None
    """Part of the name, of a member's number or of a member's name."""
    call_uuid: str | None = None
    """Conferences that this call was in."""
    ended_from_ms: float | None = None
    ended_until_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Timeline:
    """A conference with all who were in it."""

    conference: Row[Any]
    members: Sequence[Row[Any]]
    """Rows of `memberships`, by the time of joining."""
    talks: Sequence[Row[Any]]
    """Rows of `talks`, by member and time."""
    recordings: Sequence[Row[Any]]
    """Rows of `recordings`, by start."""


# Calls.


def list_calls(
    connection: Connection, auth_id: str, wanted: CallFilter = CallFilter(), limit: int = 20, offset: int = 0
) -> Page:
    """Return ended calls by their end."""
    c = calls.c
    terms = [
        _equals(c.direction, wanted.direction),
        _contains(c.from_number, wanted.from_number),
        _contains(c.to_number, wanted.to_number),
        _between(c.ended_ms, wanted.ended_from_ms, wanted.ended_until_ms),
        _between(c.bill_duration_s, wanted.bill_from_s, wanted.bill_until_s),
        _equals(c.parent_call_uuid, wanted.parent_call_uuid),
        _equals(c.hangup_source, wanted.hangup_source),
        _equals(c.status, wanted.status),
    ]
    if wanted.hangup_cause_code is not None:
        terms.append(c.hangup_cause_code == wanted.hangup_cause_code)
    if wanted.conference_id is not None:
        those = select(memberships.c.call_uuid).where(
            memberships.c.auth_id == auth_id, _equals(memberships.c.conference_id, wanted.conference_id)
        )
        terms.append(c.call_uuid.in_(those))
    return _page(connection, calls, auth_id, terms, (c.ended_ms.desc(), c.call_uuid), limit, offset)


def get_call(connection: Connection, auth_id: str, call_uuid: str) -> Row[Any] | None:
    """Return an ended call; None if the account has none with this UUID."""
    found = select(calls).where(calls.c.call_uuid == call_uuid, calls.c.auth_id == auth_id)
    return connection.execute(found).one_or_none()


def conferences_of_calls(
    connection: Connection, auth_id: str, call_uuids: Sequence[str]
) -> Mapping[str, Sequence[str]]:
    """Return the ids of the conferences that each of these calls was in, by joining: {call UUID: ids}."""
    m = memberships.c
    found = (
        select(m.call_uuid, m.conference_id)
        .where(m.call_uuid.in_(call_uuids), unindexed(m.auth_id) == auth_id)
        .order_by(m.joined_ms)
    )
    ids: dict[str, list[str]] = {}
    for call_uuid, conference_id in connection.execute(found):
        ids.setdefault(call_uuid, []).append(conference_id)
    return ids


# Conferences.


def list_conferences(
    connection: Connection,
    auth_id: str,
    wanted: ConferenceFilter = ConferenceFilter(),
    limit: int = 20,
    offset: int = 0,
) -> Page:
    """Return ended conferences by their end."""
    c, m = conferences.c, memberships.c
    terms = [
        _equals(c.name, None if wanted.name is None else one_spelling(wanted.name)),
        _between(c.ended_ms, wanted.ended_from_ms, wanted.ended_until_ms),
    ]
    if wanted.call_uuid is not None:
        those = select(m.conference_id).where(m.auth_id == auth_id, _equals(m.call_uuid, wanted.call_uuid))
        terms.append(c.conference_id.in_(those))
    if wanted.text is not None:
        members = select(m.conference_id).where(
            m.auth_id == auth_id,
            or_(*(_contains(column, wanted.text) for column in (m.from_number, m.to_number, m.caller_name))),
        )
        terms.append(or_(_contains(c.name, wanted.text), c.conference_id.in_(members)))
    return _page(connection, conferences, auth_id, terms, (c.ended_ms.desc(), c.conference_id), limit, offset)


def get_conference(connection: Connection, auth_id: str, conference_id: str) -> Timeline | None:
    """Return an ended conference with its members, their talking and its recordings; None if there is none."""
    found = connection.execute(
        select(conferences).where(conferences.c.conference_id == conference_id, conferences.c.auth_id == auth_id)
    ).one_or_none()
    if found is None:
        return None

    def rows(table: Table, *order: Any, limit: int) -> Sequence[Row[Any]]:
        own = and_(table.c.conference_id == conference_id, unindexed(table.c.auth_id) == auth_id)
        return connection.execute(select(table).where(own).order_by(*order).limit(limit)).all()

    return Timeline(
        found,
        rows(memberships, memberships.c.joined_ms, memberships.c.member_id, limit=MAX_MEMBERS),
        rows(talks, talks.c.member_id, talks.c.start_ms, limit=MAX_TALKS),
        connection.execute(
            select(recordings)
            .where(recordings.c.auth_id == auth_id, recordings.c.conference_id == conference_id)
            .order_by(unindexed_number(recordings.c.start_ms))
            .limit(MAX_MEMBERS)
        ).all(),
    )


def members_of(connection: Connection, auth_id: str, conference_ids: Sequence[str]) -> Mapping[str, Sequence[Row[Any]]]:
    """Return the memberships of these conferences, by joining: {conference id: rows}. At most MAX_MEMBERS in all."""
    m = memberships.c
    own = and_(m.conference_id.in_(conference_ids), unindexed(m.auth_id) == auth_id)
    found: dict[str, list[Row[Any]]] = {}
    for row in connection.execute(select(memberships).where(own).order_by(m.joined_ms).limit(MAX_MEMBERS)):
        found.setdefault(row.conference_id, []).append(row)
    return found


# Recordings.


def list_recordings(
    connection: Connection,
    auth_id: str,
    by: Mapping[str, str] = {},
    since_ms: float = float("-inf"),
    until_ms: float = float("inf"),
    limit: int = 20,
    offset: int = 0,
    without: Sequence[str] = (),
) -> Page:
    """Return recordings by their start. `by`: KIND -> VALUE as in `recordings.index`; `without`: ids to leave out."""
    r = recordings.c
    columns = {"name": r.conference_name, "uuid": r.conference_id, "call": r.call_uuid}
    terms = [_between(r.start_ms, since_ms, until_ms)]
    for kind, value in by.items():
        if kind in columns:
            terms.append(_equals(columns[kind], value))
        else:
            n = recording_numbers.c
            those = select(n.recording_id).where(n.auth_id == auth_id, n.kind == kind, _equals(n.number, value))
            terms.append(r.recording_id.in_(those))
    if without:
        terms.append(r.recording_id.not_in(without))
    return _page(connection, recordings, auth_id, terms, (r.start_ms.desc(), r.recording_id.desc()), limit, offset)


def get_recording(connection: Connection, recording_id: str) -> Row[Any] | None:
    """Return a recording of any account: its caller checks `auth_id`."""
    return connection.execute(select(recordings).where(recordings.c.recording_id == recording_id)).one_or_none()


# Callbacks, dead letters and problems.


def list_callbacks(
    connection: Connection,
    auth_id: str,
    conference_id: str | None = None,
    outcome: Outcome | None = None,
    call_uuid: str | None = None,
    limit: int = 20,
    offset: int = 0,
    *,
    counts: bool = True,
) -> Page:
    """Return callbacks by the time of their outcome. `counts`: False: the total is 0."""
    c = callbacks.c
    terms = [_equals(c.conference_id, conference_id), _equals(c.outcome, outcome), _equals(c.call_uuid, call_uuid)]
    order = (c.settled_ms.desc(), c.callback_id)
    return _page(connection, callbacks, auth_id, terms, order, limit, offset, counts=counts)


def list_dead_letters(connection: Connection, auth_id: str, limit: int = 20, offset: int = 0) -> Page:
    """Return the callbacks that could not be delivered, and were not resent with success since."""
    return list_callbacks(connection, auth_id, outcome="dead", limit=limit, offset=offset)


def list_problems(
    connection: Connection,
    auth_id: str,
    call_uuid: str | None = None,
    since_ms: float | None = None,
    until_ms: float | None = None,
    limit: int = 20,
    offset: int = 0,
) -> Page:
    p = problems.c
    terms = [_equals(p.call_uuid, call_uuid), _between(p.at_ms, since_ms, until_ms)]
    return _page(connection, problems, auth_id, terms, (p.at_ms.desc(), p.problem_id), limit, offset)


def count_all(connection: Connection, auth_id: str) -> Mapping[str, int]:
    """Return how many calls, conferences, recordings, callbacks and problems of an account there are, by table."""
    counted = (calls, conferences, recordings, callbacks, problems)
    return {
        table.name: connection.execute(
            select(func.count()).select_from(table).where(table.c.auth_id == auth_id)
        ).scalar_one()
        for table in counted
    }


# Parts of queries.


def _page(
    connection: Connection,
    table: Table,
    auth_id: str,
    terms: Sequence[ColumnElement[bool]],
    order: Sequence[Any],
    limit: int,
    offset: int,
    *,
    counts: bool = True,
) -> Page:
    matching: Select[Any] = select(table).where(table.c.auth_id == auth_id, *terms)
    total = 0
    if counts:
        counted = matching.with_only_columns(table.c.auth_id).limit(MAX_COUNTED).order_by(None).subquery()
        total = connection.execute(select(func.count()).select_from(counted)).scalar_one()
    rows = connection.execute(matching.order_by(*order).limit(limit).offset(offset)).all() if limit else ()
    return Page(total, rows)


def unindexed(column: ColumnElement[str]) -> ColumnElement[str]:
    """Return the column for a condition that must not choose the index.

    SQLite, which has no statistics here, may prefer an index that begins with the account to one of a few rows, and
    then reads all rows of the account."""
    return column.concat("")


def unindexed_number(column: ColumnElement[int]) -> ColumnElement[int]:
    return column + 0


def _equals(column: ColumnElement[Any], value: str | None) -> ColumnElement[bool]:
    if value is None:
        return true()
    return column == value if one_spelling(value) else false()


def _contains(column: ColumnElement[Any], part: str | None) -> ColumnElement[bool]:
    """Return the condition that a column contains a text, in any case."""
    if part is None:
        return true()
    seen = one_spelling(part)
    return column.icontains(seen, autoescape=True) if seen else false()


def _between(column: ColumnElement[Any], least: float | None, most: float | None) -> ColumnElement[bool]:
    terms: list[ColumnElement[bool]] = [true()]
    if least is not None and least != float("-inf"):
        terms.append(column >= least)
    if most is not None and most != float("inf"):
        terms.append(column <= most)
    return and_(*terms)

"""Queries for the list of ended conferences, with the numbers of what belongs to each.

As in `queries`, functions take a connection of `HistoryDatabase.read`, and return nothing of other accounts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, func, literal, or_, select, union_all

from ari_conf.history.queries import MAX_COUNTED, unindexed, unindexed_number
from ari_conf.history.tables import callbacks, calls, conferences, memberships, problems, recordings

MAX_PROBLEMS = 200
"""Maximum problems that are listed for one conference."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConferenceQuery:
    """Conditions for conferences, all of which must hold. None and "": any."""

    first_ms: int | None = None
    """Epoch ms of the earliest and the latest end."""
    last_ms: int | None = None
    name: str = ""
    number: str = ""
    """Part of a number from which, or to which, a member called."""
    text: str = ""
    """Part of the conference's name, or of a member's name or number."""
    text_number: str = ""
    """The text as a part of a number, without the signs between digits. Empty: it can't be one."""

    def conditions(self, auth_id: str) -> list[ColumnElement[bool]]:
        c, m = conferences.c, memberships.c
        found = [c.auth_id == auth_id]
        if self.first_ms is not None:
            found.append(c.ended_ms >= self.first_ms)
        if self.last_ms is not None:
            found.append(c.ended_ms <= self.last_ms)
        if self.name:
            found.append(c.name == self.name)
        if self.number:
            found.append(_has_member(_is_of_number(self.number)))
        if self.text:
            of_member = _contains(m.caller_name, self.text)
            if self.text_number:
                of_member = or_(of_member, _is_of_number(self.text_number))
            found.append(or_(_contains(c.name, self.text), _has_member(of_member)))
        return found


def _has_member(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    # By conference: a range of time then limits the memberships that are looked at.
    m = memberships.c
    return (
        select(m.member_id)
        .where(m.conference_id == conferences.c.conference_id, condition)
        .correlate(conferences)
        .exists()
    )


def _is_of_number(part: str) -> ColumnElement[bool]:
    return or_(_contains(memberships.c.from_number, part), _contains(memberships.c.to_number, part))


def _contains(column: ColumnElement[Any], part: str) -> ColumnElement[bool]:
    return column.icontains(part, autoescape=True)


class Summary(NamedTuple):
    """Ended conference, with the numbers of what belongs to it."""

    conference: Row[Any]
    """Row of `tables.conferences`."""
    most: int
    """Maximum number of members at the same time."""
    recordings: int
    delivered: int
    dead: int
    problems: int


def list_conferences(
    connection: Connection, auth_id: str, query: ConferenceQuery, limit: int, offset: int
) -> list[Summary]:
    """Return one page of the conferences that match, the latest first."""
    c = conferences.c
    page = select(conferences).where(*query.conditions(auth_id)).order_by(c.ended_ms.desc(), c.conference_id)
    return summaries(connection, auth_id, connection.execute(page.limit(limit).offset(offset)).all())


def count_conferences(connection: Connection, auth_id: str, query: ConferenceQuery) -> int:
    """Return the number of conferences that match, MAX_COUNTED at most."""
    matching = select(conferences.c.conference_id).where(*query.conditions(auth_id)).limit(MAX_COUNTED)
    return int(connection.execute(select(func.count()).select_from(matching.subquery())).scalar_one())


def summaries(connection: Connection, auth_id: str, rows: Sequence[Row[Any]]) -> list[Summary]:
    """Return the conferences of these rows with the numbers of what belongs to each."""
    ids = [row.conference_id for row in rows]
    if not ids:
        return []
    most = _most_at_once(connection, ids)
    recorded = _recording_counts(connection, auth_id, ids)
    outcomes = _outcomes(connection, auth_id, ids)
    reported = _problem_counts(connection, auth_id, ids)
    return [
        Summary(
            row,
            max(most.get(row.conference_id, 0), min(row.members, 1)),
            recorded.get(row.conference_id, 0),
            outcomes.get((row.conference_id, "delivered"), 0),
            outcomes.get((row.conference_id, "dead"), 0),
            reported.get(row.conference_id, 0),
        )
        for row in rows
    ]


def _most_at_once(connection: Connection, ids: Sequence[str]) -> dict[str, int]:
    """Return the maximum number of members at the same time. A member who leaves when another joins counts first."""
    m = memberships.c
    changes = union_all(
        select(m.conference_id, m.joined_ms.label("at_ms"), literal(1).label("by")).where(m.conference_id.in_(ids)),
        select(m.conference_id, m.left_ms.label("at_ms"), literal(-1).label("by")).where(m.conference_id.in_(ids)),
    ).subquery()
    present = select(
        changes.c.conference_id,
        func.sum(changes.c.by)
        .over(partition_by=changes.c.conference_id, order_by=(changes.c.at_ms, changes.c.by), rows=(None, 0))
        .label("number"),
    ).subquery()
    most = select(present.c.conference_id, func.max(present.c.number)).group_by(present.c.conference_id)
    return {id: int(number) for id, number in connection.execute(most)}


def _recording_counts(connection: Connection, auth_id: str, ids: Sequence[str]) -> dict[str, int]:
    r = recordings.c
    own = (r.auth_id == auth_id, r.conference_id.in_(ids))
    counted = select(r.conference_id, func.count()).where(*own).group_by(r.conference_id)
    return {row[0]: row[1] for row in connection.execute(counted)}


def _outcomes(connection: Connection, auth_id: str, ids: Sequence[str]) -> dict[tuple[str, str], int]:
    c = callbacks.c
    own = (c.auth_id == auth_id, c.conference_id.in_(ids))
    counted = select(c.conference_id, c.outcome, func.count()).where(*own).group_by(c.conference_id, c.outcome)
    return {(id, outcome): number for id, outcome, number in connection.execute(counted)}


def _problem_counts(connection: Connection, auth_id: str, ids: Sequence[str]) -> dict[str, int]:
    m, p = memberships.c, problems.c
    counted = (
        select(m.conference_id, func.count(p.problem_id.distinct()))
        # The conferences' members come first, and then the problems of each by its index.
        .join_from(memberships, problems, p.call_uuid == unindexed(m.call_uuid))
        .where(m.conference_id.in_(ids), unindexed(m.auth_id) == auth_id, p.auth_id == auth_id)
        .group_by(m.conference_id)
    )
    return {row[0]: row[1] for row in connection.execute(counted)}


def get_name(connection: Connection, auth_id: str, conference_id: str) -> str | None:
    """Return the name of an ended conference; None: the account has none with this id."""
    c = conferences.c
    found = select(c.name).where(c.conference_id == conference_id, c.auth_id == auth_id)
    return connection.execute(found).scalar_one_or_none()


def list_members(
    connection: Connection, auth_id: str, conference_id: str, limit: int, offset: int
) -> Sequence[Row[Any]]:
    """Return some of the members of a conference, by the time of joining: rows of `tables.memberships`."""
    m = memberships.c
    own = select(memberships).where(m.conference_id == conference_id, unindexed(m.auth_id) == auth_id)
    return connection.execute(own.order_by(m.joined_ms, m.member_id).limit(limit).offset(offset)).all()


def list_directions(connection: Connection, auth_id: str, conference_id: str) -> dict[str, str]:
    """Return the directions of the calls that were in the conference, by call UUID, of those whose record is there."""
    c, m = calls.c, memberships.c
    found = (
        select(c.call_uuid, c.direction)
        .join_from(memberships, calls, c.call_uuid == unindexed(m.call_uuid))
        .where(m.conference_id == conference_id, unindexed(m.auth_id) == auth_id, unindexed(c.auth_id) == auth_id)
    )
    return {row.call_uuid: row.direction for row in connection.execute(found)}


def list_problems(connection: Connection, auth_id: str, conference_id: str) -> Sequence[Row[Any]]:
    """Return the problems of the calls that were in the conference, by time: rows of `tables.problems`."""
    m, p = memberships.c, problems.c
    own_calls = select(m.call_uuid).where(m.conference_id == conference_id, unindexed(m.auth_id) == auth_id)
    found = select(problems).where(p.auth_id == auth_id, p.call_uuid.in_(own_calls))
    return connection.execute(found.order_by(unindexed_number(p.at_ms), p.problem_id).limit(MAX_PROBLEMS)).all()

"""Writer of the history: entries become rows, each once, however often it is written."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import msgspec
import structlog
from sqlalchemy import Connection, Table, delete
from sqlalchemy.dialects import postgresql, sqlite

from ari_conf.core.effects import ArchiveCall, ArchiveConference, ArchiveMember, ArchiveTalks
from ari_conf.core.hangup_codes import cause_name, code_name
from ari_conf.errors import HistoryRefused
from ari_conf.history import tables
from ari_conf.history.database import HistoryDatabase
from ari_conf.history.entries import (
    CallbackOutcome,
    Entry,
    ProblemFound,
    RecordingDeleted,
    RecordingStored,
    decode,
    text_hash,
)

log = structlog.get_logger()

HOUR_MS = 3_600_000
ROWS_AT_ONCE = 400
"""Maximum rows of one statement: SQLite and PostgreSQL limit the number of parameters."""
Row = dict[str, Any]


class _Problem(msgspec.Struct):
    at_ms: int
    call_uuid: str
    kind: str
    text: str
    code: int | None = None


class Written(NamedTuple):
    rows: int
    """Number of entries that are in the database now."""
    unreadable: list[bytes]
    """Entries that can't be read, or that the database refuses."""


def write(database: HistoryDatabase, texts: Sequence[bytes]) -> Written:
    """Write entries of one account in one transaction. Raises HistoryUnavailable, and then none is written."""
    entries, unreadable = list[tuple[bytes, Entry]](), list[bytes]()
    for text in texts:
        try:
            entries.append((text, decode(text)))
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            log.error("history entry unreadable", reason=str(error), action="kept")
            unreadable.append(text)
    try:
        _write_all(database, [entry for _, entry in entries])
        return Written(len(entries), unreadable)
    except HistoryRefused:
        pass  # one of them is at fault: the others are written one by one
    written = 0
    for text, entry in entries:
        try:
            _write_all(database, [entry])
            written += 1
        except HistoryRefused as refused:
            log.error("history entry refused", reason=str(refused), action="kept")
            unreadable.append(text)
    return Written(written, unreadable)


def _write_all(database: HistoryDatabase, entries: Iterable[Entry]) -> None:
    found: defaultdict[Table, dict[tuple[Any, ...], Row]] = defaultdict(dict)
    numbers: dict[str, list[Row]] = {}
    deleted: dict[str, str] = {}
    for entry in entries:
        try:
            for table, row in ROWS[type(entry.item)](entry):
                # Later entries about the same thing replace earlier ones.
                found[table][tuple(row[column.name] for column in table.primary_key)] = row
            if isinstance(entry.item, RecordingStored):
                numbers[entry.item.recording_id] = _number_rows(entry.item)
                deleted.pop(entry.item.recording_id, None)
            elif isinstance(entry.item, RecordingDeleted):
                found[tables.recordings].pop((entry.item.recording_id,), None)
                numbers.pop(entry.item.recording_id, None)
                deleted[entry.item.recording_id] = entry.item.auth_id
        except (msgspec.MsgspecError, ValueError) as error:
            raise HistoryRefused(f"an entry could not be read: {error}") from error
    with database.write() as connection:
        for table in tables.metadata.sorted_tables:
            if table in found:
                insert(connection, table, list(found[table].values()), replace=table in REPLACED)
        if numbers:
            n = tables.recording_numbers.c
            accounts = {row["auth_id"] for rows in numbers.values() for row in rows}
            gone = delete(tables.recording_numbers).where(n.recording_id.in_(list(numbers)), n.auth_id.in_(accounts))
            connection.execute(gone)
            insert(connection, tables.recording_numbers, [row for rows in numbers.values() for row in rows])
        for recording_id, auth_id in deleted.items():
            for table in (tables.recordings, tables.recording_numbers):
                own = (table.c.recording_id == recording_id) & (table.c.auth_id == auth_id)
                connection.execute(delete(table).where(own))


REPLACED = (tables.callbacks, tables.recordings)
"""Tables whose rows may change: a dead letter is resent, a recording is transcribed. All other rows are final."""


def insert(connection: Connection, table: Table, rows: Sequence[Row], *, replace: bool = False) -> None:
    """Insert rows, unless the table has them; with `replace`, change those that it has."""
    dialect: Any = postgresql if connection.dialect.name == "postgresql" else sqlite
    for first in range(0, len(rows), ROWS_AT_ONCE):
        some = [_clean(row) for row in rows[first : first + ROWS_AT_ONCE]]
        statement = dialect.insert(table)
        keys = [column.name for column in table.primary_key]
        if replace:
            changed = {name: statement.excluded[name] for name in some[0] if name not in (*keys, "auth_id")}
            # An id of another account is left alone.
            own = table.c.auth_id == statement.excluded.auth_id
            statement = statement.on_conflict_do_update(index_elements=keys, set_=changed, where=own)
        else:
            statement = statement.on_conflict_do_nothing(index_elements=keys)
        connection.execute(statement, some)


def _clean(row: Row) -> Row:
    """Return the row without NUL characters, which PostgreSQL does not store."""
    return {name: value.replace("\0", "") if isinstance(value, str) else value for name, value in row.items()}


def _call(entry: Entry) -> Iterable[tuple[Table, Row]]:
    item = entry.item
    assert isinstance(item, ArchiveCall)
    answered = item.answered_ms
    yield (
        tables.calls,
        {
            "call_uuid": item.call_uuid,
            "auth_id": item.auth_id,
            "request_uuid": item.request_uuid,
            "asterisk": entry.asterisk,
            "direction": item.direction,
            "from_number": item.from_,
            "to_number": item.to,
            "caller_name": item.caller_name,
            "initiated_ms": item.initiated_ms,
            "answered_ms": answered,
            "ended_ms": item.ended_ms,
            "duration_s": max(0, item.ended_ms - item.initiated_ms) // 1000,
            "bill_duration_s": 0 if answered is None else max(0, -(-(item.ended_ms - answered) // 1000)),
            "status": item.status,
            "hangup_cause": cause_name(item.hangup_cause),
            "hangup_cause_name": code_name(item.hangup_code),
            "hangup_cause_code": item.hangup_code,
            "hangup_source": item.hangup_source,
            "parent_call_uuid": item.parent_call_uuid,
            "trunk": item.trunk,
            "answered_by": item.answered_by,
        },
    )


def _conference(entry: Entry) -> Iterable[tuple[Table, Row]]:
    item = entry.item
    assert isinstance(item, ArchiveConference)
    yield (
        tables.conferences,
        {
            "conference_id": item.conference_id,
            "auth_id": item.auth_id,
            "asterisk": entry.asterisk,
            "name": item.name,
            "created_ms": item.created_ms,
            "started": item.started,
            "ended_ms": item.ended_ms,
            "end_reason": item.end_reason,
            "members": item.members,
        },
    )


def _member(entry: Entry) -> Iterable[tuple[Table, Row]]:
    item = entry.item
    assert isinstance(item, ArchiveMember)
    quality = item.quality
    average = quality.average if quality is not None else None
    yield (
        tables.memberships,
        {
            "conference_id": item.conference_id,
            "member_id": item.member_id,
            "auth_id": item.auth_id,
            "call_uuid": item.call_uuid,
            "from_number": item.from_,
            "to_number": item.to,
            "caller_name": item.caller_name,
            "joined_ms": item.joined_ms,
            "left_ms": max(item.left_ms, item.joined_ms),
            "exit_reason": item.exit_reason,
            "talk_ms": item.talk_ms,
            "mos": average.mos if average else None,
            "mos_worst": quality.worst.mos if quality else None,
            "loss_in": average.loss_in if average else None,
            "loss_out": average.loss_out if average else None,
            "jitter_in_ms": average.jitter_in_ms if average else None,
            "jitter_out_ms": average.jitter_out_ms if average else None,
            "round_trip_ms": average.round_trip_ms if average else None,
            "measured_s": quality.seconds if quality else None,
            "line_was_bad": bool(quality and (quality.bad or quality.reported)),
        },
    )
    yield from _talk_rows(item)


def _talks(entry: Entry) -> Iterable[tuple[Table, Row]]:
    item = entry.item
    assert isinstance(item, ArchiveTalks)
    return _talk_rows(item)


def _talk_rows(item: ArchiveMember | ArchiveTalks) -> Iterable[tuple[Table, Row]]:
    for start_ms, end_ms in item.talks:
        yield (
            tables.talks,
            {
                "conference_id": item.conference_id,
                "member_id": item.member_id,
                "start_ms": start_ms,
                "end_ms": end_ms,
                "auth_id": item.auth_id,
            },
        )


def _callback(entry: Entry) -> Iterable[tuple[Table, Row]]:
    item = entry.item
    assert isinstance(item, CallbackOutcome)
    yield (
        tables.callbacks,
        {
            "callback_id": item.callback_id,
            "auth_id": item.auth_id,
            "conference_id": item.conference_id,
            "call_uuid": item.call_uuid,
            "event": item.event,
            "outcome": item.outcome,
            "created_ms": item.created_ms,
            "settled_ms": item.settled_ms,
            "attempts": item.attempts,
            "document": bytes(item.document).decode(),
        },
    )


def _problem(entry: Entry) -> Iterable[tuple[Table, Row]]:
    item = entry.item
    assert isinstance(item, ProblemFound)
    problem = msgspec.json.decode(item.problem, type=_Problem)
    # The same again within an hour counts once: a receiver that is down would otherwise fill the table.
    hour = str(problem.at_ms // HOUR_MS)
    yield (
        tables.problems,
        {
            "problem_id": text_hash(item.auth_id, problem.call_uuid, problem.kind, problem.text, hour),
            "auth_id": item.auth_id,
            "at_ms": problem.at_ms,
            "call_uuid": problem.call_uuid,
            "kind": problem.kind,
            "code": problem.code,
            "text": problem.text,
        },
    )


def _recording(entry: Entry) -> Iterable[tuple[Table, Row]]:
    item = entry.item
    assert isinstance(item, RecordingStored)
    yield (
        tables.recordings,
        {
            "recording_id": item.recording_id,
            "auth_id": item.auth_id,
            "conference_id": item.conference_id,
            "conference_name": item.conference_name,
            "call_uuid": item.call_uuid,
            "start_ms": item.start_ms,
            "end_ms": item.end_ms,
            "document": bytes(item.document).decode(),
        },
    )


def _number_rows(item: RecordingStored) -> list[Row]:
    numbers = {("from", from_) for from_, _ in item.numbers if from_} | {("to", to) for _, to in item.numbers if to}
    return [
        {"recording_id": item.recording_id, "kind": kind, "number": number, "auth_id": item.auth_id}
        for kind, number in sorted(numbers)
    ]


ROWS: dict[type, Callable[[Entry], Iterable[tuple[Table, Row]]]] = {
    ArchiveCall: _call,
    ArchiveConference: _conference,
    ArchiveMember: _member,
    ArchiveTalks: _talks,
    CallbackOutcome: _callback,
    ProblemFound: _problem,
    RecordingStored: _recording,
    RecordingDeleted: lambda _entry: (),
}

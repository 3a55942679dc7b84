"""Deletion from the history: what an account no longer keeps, or all of it.

In pieces, so that no writer waits for long.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import ColumnElement, Table, delete, select, tuple_

from ari_conf.history.database import HistoryDatabase
from ari_conf.history.tables import ENDS, callbacks, metadata

PIECE = 2_000
"""Rows that one transaction deletes."""


def delete_account(database: HistoryDatabase, auth_id: str, may_continue: Callable[[], bool]) -> bool:
    """Delete all rows of an account. Return False if it was interrupted. Raises HistoryUnavailable."""
    for table in metadata.sorted_tables:
        while may_continue():
            if _delete_piece(database, table, table.c.auth_id == auth_id) < PIECE:
                break
        else:
            return False
    return True


def delete_ended_before(
    database: HistoryDatabase, auth_id: str, before_ms: int, may_continue: Callable[[], bool]
) -> int:
    """Delete what ended before a time, without recordings; return the number of rows. Raises HistoryUnavailable."""
    deleted = 0
    for table, ended_ms in ENDS.items():
        deleted += _delete_all(database, table, (table.c.auth_id == auth_id) & (ended_ms < before_ms), may_continue)
    return deleted


def delete_delivered_before(database: HistoryDatabase, before_ms: int, may_continue: Callable[[], bool]) -> int:
    """Delete callbacks of all accounts that were delivered before a time; return their number."""
    old = (callbacks.c.outcome == "delivered") & (callbacks.c.settled_ms < before_ms)
    return _delete_all(database, callbacks, old, may_continue)


def _delete_all(
    database: HistoryDatabase, table: Table, condition: ColumnElement[bool], may_continue: Callable[[], bool]
) -> int:
    deleted = 0
    while may_continue():
        count = _delete_piece(database, table, condition)
        deleted += count
        if count < PIECE:
            break
    return deleted


def _delete_piece(database: HistoryDatabase, table: Table, condition: ColumnElement[bool]) -> int:
    key = list(table.primary_key)
    some = select(*key).where(condition).limit(PIECE)
    with database.write() as connection:
        return connection.execute(delete(table).where(tuple_(*key).in_(some))).rowcount

"""Bounded queries: reads of the history for the web process, each with a time limit.

Filters by a part of a name or number look at every row of their account in the range of time. An account with much
history must neither occupy the database nor the web process' threads with them.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from ari_conf.errors import HistoryTooSlow
from ari_conf.history.database import HistoryDatabase

QUERY_S = 5.0
"""Seconds after which a query ends. Plivo's SDKs wait as long for a reply."""
SQLITE_STEPS = 10_000
"""Steps of SQLite's virtual machine between two looks at the clock: about 1 ms."""
QUERY_CANCELED = "57014"
"""PostgreSQL's SQLSTATE of a statement that its timeout has ended."""


@contextmanager
def bounded(database: HistoryDatabase, seconds: float = QUERY_S) -> Iterator[Connection]:
    """Open a transaction for queries that end after `seconds`. Raises HistoryTooSlow then, or HistoryUnavailable."""
    with database.read() as connection, _limit(database, connection, seconds):
        yield connection


@contextmanager
def _limit(database: HistoryDatabase, connection: Connection, seconds: float) -> Iterator[None]:
    driver: Any = connection.connection.driver_connection
    if database.is_sqlite:
        ends = time.monotonic() + seconds
        driver.set_progress_handler(lambda: time.monotonic() > ends, SQLITE_STEPS)
    else:
        connection.execute(text(f"SET LOCAL statement_timeout = {round(seconds * 1000)}"))
    try:
        yield
    except DBAPIError as error:
        if _has_timed_out(error):
            raise HistoryTooSlow(
                f"the query takes more than {seconds:g} s: narrow its range of time, or use fewer filters"
            ) from error
        raise
    finally:
        if database.is_sqlite:
            driver.set_progress_handler(None, 0)


def _has_timed_out(error: DBAPIError) -> bool:
    if isinstance(error.orig, sqlite3.OperationalError):
        return error.orig.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT
    return getattr(error.orig, "sqlstate", None) == QUERY_CANCELED

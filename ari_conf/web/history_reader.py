"""History reader: queries of the history for requests, in threads of their own.

A database that is slow or away holds up no request for what lives, which comes from Redis.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from fastapi import Request
from sqlalchemy import Connection

from ari_conf.history import queries
from ari_conf.history.bounded_queries import bounded
from ari_conf.history.database import HistoryDatabase
from ari_conf.web.pagination import paged
from ari_conf.web.request_threads import Threads

T = TypeVar("T")

READS, READS_EACH, MAX_WAITING = 6, 2, 50
"""Maximum number of concurrent queries: in this process, and for one account; and of an account's requests that wait."""


class HistoryReader:
    def __init__(self, database: HistoryDatabase) -> None:
        self._database = database
        self._threads = Threads("history", READS, READS_EACH, MAX_WAITING)

    async def run(self, auth_id: str, read: Callable[[Connection], T]) -> T:
        """Return the result of `read`, which queries the history. Raises HistoryUnavailable or TooManyWaiting."""

        def work() -> T:
            with bounded(self._database) as connection:
                return read(connection)

        return await self._threads.run(auth_id, work)

    def close(self) -> None:
        self._threads.close()
        self._database.close()


class _Page(Protocol):
    limit: int
    offset: int


def history_page(request: Request, page: _Page, total: int, found: int) -> dict[str, Any]:
    """Return the metadata of a page of a list. `total`: counted rows; `found`: rows of this page.

    Rows are counted up to a maximum only. A client that follows `next` gets all of them nevertheless."""
    if total >= queries.MAX_COUNTED and found == page.limit:
        total = max(total, page.offset + found + 1)
    return paged(request, page.limit, page.offset, total)

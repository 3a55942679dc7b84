"""History reader: queries of the history for requests, in threads of their own.

A database that is slow or away holds up no request for what lives, which comes from Redis.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from fastapi import Request
from sqlalchemy import Connection

from ari_conf.history import queries
from ari_conf.history.bounded_queries import QUERY_S, bounded
from ari_conf.web.auth import ApiClient
from ari_conf.web.pagination import paged

P = ParamSpec("P")
T = TypeVar("T")


async def read_history(
    client: ApiClient, read: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Return the result of `read`, which queries the history. Raises HistoryUnavailable or TooManyWaiting."""
    resources = client.resources

    def work() -> T:
        if not resources.history.is_ready and resources.history.revision() is None:
            # Otherwise a new system would answer 503 until its first call has ended.
            # Workers alone migrate the tables of an older release.
            resources.history.migrate()
        with bounded(resources.history, QUERY_S) as connection:
            return read(connection, *args, **kwargs)

    return await resources.history_reads.run(client.auth_id, work)


class _Page(Protocol):
    limit: int
    offset: int


def history_page(request: Request, page: _Page, total: int, found: int) -> dict[str, Any]:
    """Return the metadata of a page of a list. `total`: counted rows; `found`: rows of this page.

    Rows are counted up to a maximum only. A client that follows `next` gets all of them nevertheless."""
    if total >= queries.MAX_COUNTED and found == page.limit:
        total = max(total, page.offset + found + 1)
    return paged(request, page.limit, page.offset, total)

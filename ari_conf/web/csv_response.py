"""CSV responses: lists as files for spreadsheets, streamed batch by batch, with a limited number of rows.

Callers choose their display names, and applications the names of conferences. A spreadsheet would run a cell that
begins like a formula, so such a cell gets an apostrophe in front, by which spreadsheets know text.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any
from urllib.parse import quote, urlencode

import structlog
from fastapi import Request
from fastapi.responses import StreamingResponse

from ari_conf.common.safe_text import stripped
from ari_conf.errors import AriConfError
from ari_conf.web.auth import ApiClient
from ari_conf.web.errors import too_much

log = structlog.get_logger()

MAX_ROWS = 10_000
"""Maximum rows of one file. With more, its Link header leads to the next one."""
BATCH_ROWS = 500
"""Rows that are read from the database, and are in memory, at once."""
STREAMS_EACH = 5
"""Maximum number of files that one account fetches at once from this process; further ones are refused."""
MEDIA_TYPE = "text/csv"
BYTE_ORDER_MARK = "\ufeff"
"""Without it, Excel reads UTF-8 as the encoding of the user's country."""
# A spreadsheet that separates cells by semicolons, as in countries with a decimal comma, ignores the quotes inside a
# line: a formula may therefore also follow a semicolon. Full-width signs count in spreadsheets of East Asia.
_FORMULA = re.compile(r"(^|[;|])(\s*)(?=[=+\-@＝＋－＠])")

Cell = str | int | float | None
Row = Sequence[Cell]
ReadBatch = Callable[[int, int], Awaitable[Iterable[Row]]]
"""Callback that returns at most (limit) rows from (offset) on."""


def is_wanted(request: Request) -> bool:
    """Return whether the client asks for CSV: with `format=csv`, or with an Accept header that names it first."""
    if form := request.query_params.get("format"):
        return form == "csv"
    first = request.headers.get("accept", "").partition(",")[0]
    return first.partition(";")[0].strip().lower() == MEDIA_TYPE


def safe_cell(value: Cell) -> str | int | float:
    """Return the value as a cell that no spreadsheet runs as a formula. None becomes an empty cell."""
    if not isinstance(value, str):
        return "" if value is None else value
    text = stripped(re.sub(r"[\t\r\n\v\f]", " ", value))
    return _FORMULA.sub(r"\1\2'", text)


def lines(rows: Iterable[Row]) -> str:
    """Return the rows as CSV (RFC 4180). Texts are in quotes, so that an empty text differs from no value."""
    written = io.StringIO()
    writer = csv.writer(written, quoting=csv.QUOTE_NONNUMERIC)
    writer.writerows([safe_cell(cell) for cell in row] for row in rows)
    return written.getvalue()


async def respond(
    request: Request, client: ApiClient, header: Sequence[str], read: ReadBatch, *, name: str, offset: int = 0
) -> StreamingResponse:
    """Return a file with the rows from `offset` on, MAX_ROWS at most. `name`: the file's name.

    Whether rows follow, and the first batch, are read before the response starts: a database that is away is a 503.
    Raises ApiError 429 if the account is fetching STREAMS_EACH files."""
    counts, auth_id = client.resources.csv_counts, client.auth_id
    if counts[auth_id] >= STREAMS_EACH:
        raise too_much(f"{STREAMS_EACH} CSV files of this account are already being fetched: try again later")
    first = list(await read(BATCH_ROWS, offset))
    headers = {
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}",
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
    }
    if len(first) == BATCH_ROWS and list(await read(1, offset + MAX_ROWS)):
        query = {**request.query_params, "format": "csv", "offset": str(offset + MAX_ROWS)}
        headers["Link"] = f'<{request.scope["path"]}?{urlencode(query)}>; rel="next"'
    return _Counted(_text(header, first, read, offset), headers, counts, auth_id)


async def _text(header: Sequence[str], first: list[Row], read: ReadBatch, offset: int) -> AsyncIterator[str]:
    yield BYTE_ORDER_MARK + lines([header])
    rows, sent = first, 0
    while rows:
        yield lines(rows)
        sent += len(rows)
        if len(rows) < BATCH_ROWS or sent >= MAX_ROWS:
            return
        rows = list(await read(BATCH_ROWS, offset + sent))


class _Counted(StreamingResponse):
    """Response that counts as a file of its account until it is sent or the client disconnects."""

    def __init__(self, text: AsyncIterator[str], headers: dict[str, str], counts: Counter[str], auth_id: str) -> None:
        super().__init__(text, 200, headers, f"{MEDIA_TYPE}; charset=utf-8")
        self._counts, self._auth_id = counts, auth_id

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self._counts[self._auth_id] += 1
        try:
            await super().__call__(scope, receive, send)
        except AriConfError as failure:
            # The status has been sent already. The connection ends early, so that the client notices the missing rows.
            log.error("csv stream interrupted", auth_id=self._auth_id, reason=str(failure))
        finally:
            self._counts[self._auth_id] -= 1
            if not self._counts[self._auth_id]:
                del self._counts[self._auth_id]

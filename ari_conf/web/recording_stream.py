"""A recording's file, passed on by `web`: in pieces, each asked of S3 by itself, so that however slow a listener is,
one piece is held, and nothing is held open that S3 would close."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import structlog
from fastapi import Request
from fastapi.responses import Response, StreamingResponse

from ari_conf.bucket import Bucket, is_missing
from ari_conf.errors import RecordingFailed, TooManyWaiting
from ari_conf.recording_index import Stored
from ari_conf.web.errors import Refused, too_much, unavailable
from ari_conf.web.parts import Parts

log = structlog.get_logger()

PIECE_BYTES = 256 * 1024
"""Held for each stream; there are as many as `web_connections` at most."""
STREAMS_EACH = 20
"""Of an account at once; more are refused."""
TYPES = {"mp3": "audio/mpeg", "wav": "audio/wav"}
_RANGE = re.compile(r"bytes=(\d{0,15})-(\d{0,15})", re.ASCII)


def span(header: str | None, size: int) -> tuple[int, int] | None:
    """(first byte, how many) that a Range asks for; None: all, since it asks for several, or for nothing that is known.

    Raises Refused 416.
    """
    found = _RANGE.fullmatch(header.strip()) if header else None
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        length = min(int(found[2]), size)
        first = size - length
    else:
        first = int(found[1])
        if found[2] and int(found[2]) < first:
            return None
        length = min(int(found[2]) + 1 if found[2] else size, size) - first
    if length <= 0:
        raise Refused(416, "the recording is shorter", {"Content-Range": f"bytes */{size}"})
    return first, length


async def answer(request: Request, parts: Parts, stored: Stored, name: str | None) -> Response:
    """`name`: as which a browser keeps it. Raises Refused."""
    etag = f'"{stored.recording_id}"'
    headers = {
        "Content-Type": TYPES[stored.file_format],
        "Accept-Ranges": "bytes",
        "ETag": etag,
        "Cache-Control": "private, no-cache",
        "X-Content-Type-Options": "nosniff",
    }
    if name:
        headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(name, safe='')}"
    wanted = request.headers.get("range")
    if request.headers.get("if-range", etag) != etag:
        wanted = None
    asked = span(wanted, stored.size) if request.method == "GET" else None
    first, length = asked or (0, stored.size)
    headers["Content-Length"] = str(length)
    if asked:
        headers["Content-Range"] = f"bytes {first}-{first + length - 1}/{stored.size}"
    bucket = Bucket(parts.settings)
    if request.method == "HEAD" or not length:
        await _asked(parts, stored, bucket.size, stored.key)
        return Response(status_code=200, headers=headers)
    if parts.streams[stored.auth_id] >= STREAMS_EACH:
        raise too_much(f"{STREAMS_EACH} recordings of this account are being fetched already")
    # Before anything is sent: what is missing is still a 404.
    begin = await _asked(parts, stored, bucket.piece, stored.key, first, min(PIECE_BYTES, length))
    pieces = _pieces(parts, stored, bucket, begin, first, length)
    return _Counted(pieces, 206 if asked else 200, headers, parts.streams, stored.auth_id)


async def _pieces(
    parts: Parts, stored: Stored, bucket: Bucket, begin: bytes, first: int, length: int
) -> AsyncIterator[bytes]:
    piece, at, end = begin, first, first + length
    while True:
        yield piece
        at += len(piece)
        if at >= end:
            return
        piece = await parts.storage.run(stored.auth_id, bucket.piece, stored.key, at, min(PIECE_BYTES, end - at))


async def _asked(parts: Parts, stored: Stored, work: Any, *given: Any) -> Any:
    try:
        return await parts.storage.run(stored.auth_id, work, *given)
    except RecordingFailed as failure:
        log.error("recording not read", auth_id=stored.auth_id, recording_id=stored.recording_id, reason=str(failure))
        if is_missing(failure):
            raise Refused(404, "this recording's file is not in the bucket (any more)") from None
        raise unavailable("the bucket can't be reached now: try again") from None


class _Counted(StreamingResponse):
    """One of its account's, until it is sent, or its listener is gone."""

    def __init__(
        self, pieces: AsyncIterator[bytes], status: int, headers: dict[str, str], counts: Counter[str], auth_id: str
    ) -> None:
        super().__init__(pieces, status, headers)
        self._counts, self._auth_id = counts, auth_id

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self._counts[self._auth_id] += 1
        try:
            await super().__call__(scope, receive, send)
        except (RecordingFailed, TooManyWaiting) as failure:
            # What has been sent can't be taken back: the connection ends before its time, which a listener notices.
            log.error("a recording broke off", auth_id=self._auth_id, reason=str(failure))
        finally:
            self._counts[self._auth_id] -= 1
            if not self._counts[self._auth_id]:
                del self._counts[self._auth_id]

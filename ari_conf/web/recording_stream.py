"""Recording stream: the web process passes a recording's file on from S3 in pieces, with one request to S3 for each.

However slow the client is, only one piece is in memory, and no connection to S3 stays open that S3 would close.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import structlog
from fastapi import Request
from fastapi.responses import Response, StreamingResponse

from ari_conf.errors import RecordingFailed, TooManyWaiting
from ari_conf.recordings.bucket import Bucket, is_missing
from ari_conf.recordings.index import StoredRecording
from ari_conf.web.errors import ApiError, bucket_unavailable, too_much
from ari_conf.web.resources import Resources

log = structlog.get_logger()

PIECE_BYTES = 256 * 1024
"""Bytes in memory for each stream. There are at most `web_connections` streams."""
STREAMS_EACH = 20
"""Maximum number of concurrent streams of an account in one process; further ones are refused."""
TYPES = {"mp3": "audio/mpeg", "wav": "audio/wav"}
_RANGE = re.compile(r"bytes=(\d{0,15})-(\d{0,15})", re.ASCII)


def span(header: str | None, size: int) -> tuple[int, int] | None:
    """Return (first byte, length) of a Range header.

    Returns None for the whole file: without a header, or if the header has several ranges or is invalid.
    Raises ApiError 416 if the file has no byte in the range.
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
        error = f"the range is beyond the end of the recording: it has {size} bytes"
        raise ApiError(416, error, {"Content-Range": f"bytes */{size}"})
    return first, length


async def file_response(request: Request, resources: Resources, stored: StoredRecording, name: str | None) -> Response:
    """Return the response with the file, or a part of it. `name`: file name for a download. Raises ApiError."""
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
    byte_range = span(wanted, stored.size) if request.method == "GET" else None
    first, length = byte_range or (0, stored.size)
    headers["Content-Length"] = str(length)
    if byte_range:
        headers["Content-Range"] = f"bytes {first}-{first + length - 1}/{stored.size}"
    bucket = Bucket(resources.settings)
    if request.method == "HEAD" or not length:
        await _in_storage_thread(resources, stored, bucket.size, stored.key)
        return Response(status_code=200, headers=headers)
    if resources.stream_counts[stored.auth_id] >= STREAMS_EACH:
        raise too_much(f"{STREAMS_EACH} recordings of this account are already being fetched: try again later")
    # The first piece is read before the response starts, so that a missing file is still a 404.
    first_piece = await _in_storage_thread(resources, stored, bucket.piece, stored.key, first, min(PIECE_BYTES, length))
    pieces = _pieces(resources, stored, bucket, first_piece, first, length)
    return _Counted(pieces, 206 if byte_range else 200, headers, resources.stream_counts, stored.auth_id)


async def _pieces(
    resources: Resources, stored: StoredRecording, bucket: Bucket, first_piece: bytes, first: int, length: int
) -> AsyncIterator[bytes]:
    piece, at, end = first_piece, first, first + length
    while True:
        yield piece
        at += len(piece)
        if at >= end:
            return
        piece = await resources.storage.run(stored.auth_id, bucket.piece, stored.key, at, min(PIECE_BYTES, end - at))


async def _in_storage_thread(resources: Resources, stored: StoredRecording, work: Any, *given: Any) -> Any:
    try:
        return await resources.storage.run(stored.auth_id, work, *given)
    except RecordingFailed as failure:
        log.error(
            "recording read failed", auth_id=stored.auth_id, recording_id=stored.recording_id, reason=str(failure)
        )
        if is_missing(failure):
            raise ApiError(404, "this recording's file does not exist in the bucket (any more)") from None
        raise bucket_unavailable() from None


class _Counted(StreamingResponse):
    """Response that counts as a stream of its account until it is sent or the client disconnects."""

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
            # The status has been sent already. The connection ends early, so that the client notices the missing bytes.
            log.error("recording stream interrupted", auth_id=self._auth_id, reason=str(failure))
        finally:
            self._counts[self._auth_id] -= 1
            if not self._counts[self._auth_id]:
                del self._counts[self._auth_id]

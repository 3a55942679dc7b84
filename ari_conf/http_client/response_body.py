"""Response bodies of limited size: read in chunks, or written to a file."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import aiohttp

from ari_conf.http_client.prepared_request import AttemptFailed

WRITTEN_AT_ONCE = 1024 * 1024


async def iter_chunks(response: aiohttp.ClientResponse, limit_bytes: int, before: int = 0) -> AsyncGenerator[bytes]:
    """Yield the chunks of the body, of which `before` bytes have already been read.

    Raises AttemptFailed if the body is longer than `limit_bytes` or has a Content-Encoding.
    """
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        raise AttemptFailed("body", f"it responded with Content-Encoding {encoding[:40]}, which was not requested")
    size = response.content_length or 0
    if size <= limit_bytes:
        size = before
        async for chunk in response.content.iter_any():
            size += len(chunk)
            if size > limit_bytes:
                break
            yield chunk
    if size > limit_bytes:
        raise AttemptFailed("body", f"its response is longer than the {limit_bytes} bytes that are allowed")


async def write(response: aiohttp.ClientResponse, path: Path, limit_bytes: int) -> int:
    """Write the body to `path` and return its size in bytes. Raises AttemptFailed.

    The file is written under another name and then renamed, so that a concurrent reader sees the old or the new file.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    size, waiting = 0, bytearray()
    try:
        async with aclosing(iter_chunks(response, limit_bytes)) as chunks:
            async for chunk in chunks:
                size += len(chunk)
                waiting += chunk
                if len(waiting) >= WRITTEN_AT_ONCE:
                    await asyncio.to_thread(_append, part, bytes(waiting))
                    waiting.clear()
        await asyncio.to_thread(_append, part, bytes(waiting))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return size


def _append(path: Path, content: bytes) -> None:
    with path.open("ab") as file:
        file.write(content)

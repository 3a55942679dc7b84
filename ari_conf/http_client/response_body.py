"""Response bodies of limited size: read in chunks, or written to a file."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import aiohttp

from ari_conf.http_client.policy import BodyLimit

WRITE_BYTES = 1024 * 1024


async def iter_chunks(response: aiohttp.ClientResponse, limit: BodyLimit) -> AsyncGenerator[bytes]:
    """Yield the chunks of the body, or of the rest of it. Raises AttemptFailed if the body is too long or encoded."""
    limit.check_head(response.headers, response.content_length)
    async for chunk in response.content.iter_any():
        limit.receive(len(chunk))
        yield chunk


async def write(response: aiohttp.ClientResponse, path: Path, limit_bytes: int) -> int:
    """Write the body to `path` and return its size in bytes. Raises AttemptFailed.

    The file is written under another name and then renamed, so that a concurrent reader sees the old or the new file.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    size, unwritten = 0, bytearray()
    try:
        async with aclosing(iter_chunks(response, BodyLimit(limit_bytes))) as chunks:
            async for chunk in chunks:
                size += len(chunk)
                unwritten += chunk
                if len(unwritten) >= WRITE_BYTES:
                    await asyncio.to_thread(_append, part, bytes(unwritten))
                    unwritten.clear()
        await asyncio.to_thread(_append, part, bytes(unwritten))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return size


def _append(path: Path, content: bytes) -> None:
    with path.open("ab") as file:
        file.write(content)

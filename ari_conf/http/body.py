"""The body of an answer, bounded: piece by piece, or into a file."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import aiohttp

from ari_conf.http.hop import TryFailed

WRITTEN_AT_ONCE = 1024 * 1024


async def pieces(response: aiohttp.ClientResponse, limit_bytes: int, before: int = 0) -> AsyncGenerator[bytes]:
    """Raises TryFailed beyond `limit_bytes`, of which `before` were read already, and if the body is encoded."""
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        raise TryFailed("body", f"it answered with Content-Encoding {encoding[:40]}, which was not asked for")
    size = response.content_length or 0
    if size <= limit_bytes:
        size = before
        async for chunk in response.content.iter_any():
            size += len(chunk)
            if size > limit_bytes:
                break
            yield chunk
    if size > limit_bytes:
        raise TryFailed("body", f"its answer is longer than the {limit_bytes} bytes that are allowed")


async def write(response: aiohttp.ClientResponse, path: Path, limit_bytes: int) -> int:
    """How many. Written elsewhere, then renamed: who reads `path` meanwhile has the old file or the new one."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    size, waiting = 0, bytearray()
    try:
        async with aclosing(pieces(response, limit_bytes)) as chunks:
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

"""Asterisks that have state in Redis: a live call is on one of them."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from ari_conf.store.state_store import state_key

SCAN_BATCH = 1000


@dataclass(slots=True)
class Asterisks:
    """Names of the Asterisks that have state in Redis, as a web process last saw them."""

    names: list[str] = field(default_factory=list)
    read_at: float = float("-inf")
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while the names are read: requests that need them at the same time wait for one reading."""

    async def refresh(self, redis: Any, older_than_s: float) -> bool:
        """Read the names again unless they were read within `older_than_s` seconds; return whether they were read."""
        async with self.lock:
            now = time.monotonic()
            if now - self.read_at < older_than_s:
                return False
            prefix = state_key("")
            keys = [key async for key in redis.scan_iter(match=f"{prefix}*", count=SCAN_BATCH, _type="hash")]
            self.names = sorted(key.decode(errors="replace").removeprefix(prefix) for key in keys)
            self.read_at = now
            return True

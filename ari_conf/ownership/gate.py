"""Lease gate: the only way into the engine.

It holds events back while it is uncertain whether this process still owns the calls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ari_conf.core.events import Event
from ari_conf.ownership.lease import OwnershipLease


class LeaseGate:
    def __init__(self, lease: OwnershipLease, deliver: Callable[[Event], None]) -> None:
        self._lease = lease
        self._deliver = deliver
        self._held_back: list[Event] = []
        """Events that arrived while the lease was in doubt, for example after the process had been suspended."""
        self._opening: asyncio.Task[None] | None = None

    def submit(self, event: Event) -> None:
        """Deliver the event, now if the lease is held, otherwise once it is confirmed."""
        if not self._lease.is_held:
            self._held_back.append(event)
            if len(self._held_back) == 1:
                self._opening = asyncio.create_task(self._open())
            return
        self._deliver_held_back()
        self._deliver(event)

    async def _open(self) -> None:
        await self._lease.wait_until_held()
        self._deliver_held_back()

    def _deliver_held_back(self) -> None:
        if self._held_back:
            held_back, self._held_back = self._held_back, []
            for event in held_back:
                self._deliver(event)

    def close(self) -> None:
        """Stop waiting for the lease: events that are held back are not delivered when it is confirmed."""
        if self._opening is not None:
            self._opening.cancel()

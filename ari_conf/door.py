"""The one door to the core: it is shut while it isn't known whether the calls are still this process'."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ari_conf.core.events import Event
from ari_conf.lease import Lease


class Door:
    def __init__(self, lease: Lease, deliver: Callable[[Event], None]) -> None:
        self._lease = lease
        self._deliver = deliver
        self._held: list[Event] = []
        """Events of a time in which this process was stopped: whether they still are for it must be asked first."""
        self._opening: asyncio.Task[None] | None = None

    def take(self, event: Event) -> None:
        if not self._lease.fresh:
            self._held.append(event)
            if len(self._held) == 1:
                self._opening = asyncio.create_task(self._open())
            return
        self._let_in()
        self._deliver(event)

    async def _open(self) -> None:
        await self._lease.confirmed()
        self._let_in()

    def _let_in(self) -> None:
        if self._held:
            held, self._held = self._held, []
            for event in held:
                self._deliver(event)

    def shut(self) -> None:
        """For good."""
        if self._opening is not None:
            self._opening.cancel()

"""Deadlines of calls and conferences: one each, and the earliest of all."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

from ari_conf.core.request_params import LATEST


@dataclass(slots=True)
class Deadlines:
    _deadline_by_id: dict[str, int] = field(default_factory=dict)
    """Deadlines in epoch ms, by call UUID or conference id."""
    _heap: list[tuple[int, str]] = field(default_factory=list)
    """Heap of (deadline, id); an entry that differs from `_deadline_by_id` is stale."""

    def set(self, owner_id: str, deadline: int | None) -> None:
        """Replace the owner's deadline; None removes it."""
        if deadline is None:
            self._deadline_by_id.pop(owner_id, None)
            return
        # The server must be able to set a timer for the deadline.
        deadline = min(deadline, LATEST)
        if self._deadline_by_id.get(owner_id) != deadline:
            self._deadline_by_id[owner_id] = deadline
            heapq.heappush(self._heap, (deadline, owner_id))
            if len(self._heap) > 2 * len(self._deadline_by_id) + 100:
                # Postponed deadlines leave stale entries in the heap until they reach its top.
                # Rebuild the heap when most of it is stale.
                self._heap = [(at, id) for id, at in self._deadline_by_id.items()]
                heapq.heapify(self._heap)

    @property
    def earliest(self) -> int | None:
        """Epoch milliseconds of the earliest deadline, or None."""
        while self._heap:
            deadline, owner_id = self._heap[0]
            if self._deadline_by_id.get(owner_id) == deadline:
                return deadline
            heapq.heappop(self._heap)
        return None

    def take_due(self, now: int) -> list[str]:
        """Remove the deadlines that have been reached, and return their owners, the earliest first."""
        due: list[str] = []
        while self._heap and self._heap[0][0] <= now:
            deadline, owner_id = heapq.heappop(self._heap)
            if self._deadline_by_id.get(owner_id) == deadline:
                del self._deadline_by_id[owner_id]
                due.append(owner_id)
        return due

"""Fair shares of what all accounts use together: slow or numerous requests of one account never hold up another's.

    fetching = Shares(most=32, each=4, per_receiver=2, waiting=100)
    async with fetching.turn(auth_id, origin):
        ...

Waiting requests get their turns by account, round robin, and within an account in the order of arrival.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from ari_conf.errors import TooManyWaiting


@dataclass(slots=True, eq=False)
class _Waiter:
    account: str
    receiver: str
    turn: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Shares:
    def __init__(self, most: int, each: int, waiting: int, per_receiver: int | None = None) -> None:
        """Limit concurrent turns to `most` in total, `each` per account, and `per_receiver` per account and receiver.

        A receiver is an origin or a host. At most `waiting` requests of an account wait; one more is refused."""
        self._max_total, self._max_per_account, self._max_waiting = most, each, waiting
        self._max_per_receiver = each if per_receiver is None else per_receiver
        self._running = 0
        self._running_by_account: Counter[str] = Counter()
        self._running_by_receiver: Counter[tuple[str, str]] = Counter()
        self._queues: OrderedDict[str, deque[_Waiter]] = OrderedDict()
        """Waiting requests by account; the account whose turn is next comes first."""

    @contextlib.asynccontextmanager
    async def turn(self, account: str, receiver: str = "") -> AsyncGenerator[None]:
        """Wait for a turn of this account, and hold it while the body runs. Raises TooManyWaiting beyond `waiting`."""
        waiter = _Waiter(account, receiver)
        queue = self._queues.setdefault(account, deque())
        if len(queue) >= self._max_waiting:
            raise TooManyWaiting(
                f"{self._max_waiting} requests of this account are already waiting: use fewer concurrent requests"
            )
        queue.append(waiter)
        self._give_turns()
        try:
            await waiter.turn
            yield
        finally:
            self._end_turn(waiter)

    def _end_turn(self, waiter: _Waiter) -> None:
        if waiter.turn.done() and not waiter.turn.cancelled():
            self._count(waiter, -1)
        elif queue := self._queues.get(waiter.account):
            queue.remove(waiter)
            if not queue:
                del self._queues[waiter.account]
        self._give_turns()

    def _give_turns(self) -> None:
        while self._running < self._max_total and (waiter := self._take_next()) is not None:
            self._count(waiter, 1)
            waiter.turn.set_result(None)

    def _take_next(self) -> _Waiter | None:
        for account, queue in self._queues.items():
            if self._running_by_account[account] >= self._max_per_account:
                continue
            for waiter in queue:
                # A request that was canceled just now removes itself from the queue (`_end_turn`).
                if (
                    not waiter.turn.done()
                    and self._running_by_receiver[account, waiter.receiver] < self._max_per_receiver
                ):
                    queue.remove(waiter)
                    self._queues.move_to_end(account)
                    if not queue:
                        del self._queues[account]
                    return waiter
        return None

    def _count(self, waiter: _Waiter, change: int) -> None:
        self._running += change
        of_receiver = waiter.account, waiter.receiver
        self._running_by_account[waiter.account] += change
        self._running_by_receiver[of_receiver] += change
        if not self._running_by_account[waiter.account]:
            del self._running_by_account[waiter.account]
        if not self._running_by_receiver[of_receiver]:
            del self._running_by_receiver[of_receiver]

"""Tests of fair shares: turns rotate by account, and an account's held or queued turns never delay another account."""

from __future__ import annotations

import asyncio

import pytest

from ari_conf.common.fair_shares import Shares
from ari_conf.errors import TooManyWaiting


class Play:
    """Turns that last until the test ends them; `order`: the order in which they started."""

    def __init__(self, shares: Shares) -> None:
        self.shares = shares
        self.order: list[str] = []
        self._ends: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def asks(self, *names: str) -> None:
        """Ask for turns. Each name is "account number receiver"."""
        for name in names:
            self._ends[name] = asyncio.Event()
            self._tasks[name] = asyncio.create_task(self._turn(name))
        await self._quiet()

    async def ends(self, name: str) -> None:
        self._ends[name].set()
        await self._tasks[name]
        await self._quiet()

    async def gives_up(self, name: str) -> None:
        self._tasks[name].cancel()
        await asyncio.gather(self._tasks[name], return_exceptions=True)
        await self._quiet()

    async def _turn(self, name: str) -> None:
        account, _, receiver = name.split()
        async with self.shares.turn(account, receiver):
            self.order.append(name)
            await self._ends[name].wait()

    async def _quiet(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)


async def test_an_account_that_wants_much_leaves_room_for_others() -> None:
    play = Play(Shares(most=3, each=2, waiting=10))
    await play.asks("a 1 x", "a 2 x", "a 3 x", "b 1 x")
    assert play.order == ["a 1 x", "a 2 x", "b 1 x"]


async def test_accounts_take_turns() -> None:
    play = Play(Shares(most=1, each=1, waiting=10))
    await play.asks("a 1 x", "a 2 x", "a 3 x", "b 1 x", "c 1 x")
    for _ in range(4):
        await play.ends(play.order[-1])
    assert play.order == ["a 1 x", "a 2 x", "b 1 x", "c 1 x", "a 3 x"]


async def test_a_slow_receiver_of_an_account_leaves_room_for_its_others() -> None:
    play = Play(Shares(most=4, each=3, per_receiver=2, waiting=10))
    await play.asks("a 1 slow", "a 2 slow", "a 3 slow", "a 4 quick")
    assert play.order == ["a 1 slow", "a 2 slow", "a 4 quick"]
    await play.ends("a 2 slow")
    assert play.order[-1] == "a 3 slow"


async def test_a_canceled_request_leaves_no_trace() -> None:
    shares = Shares(most=1, each=1, waiting=2)
    play = Play(shares)
    await play.asks("a 1 x", "a 2 x", "b 1 x")
    await play.gives_up("a 2 x")
    await play.gives_up("a 1 x")
    assert play.order == ["a 1 x", "b 1 x"]
    await play.ends("b 1 x")
    assert (
        shares._running,
        dict(shares._running_by_account),
        dict(shares._running_by_receiver),
        dict(shares._queues),
    ) == (
        0,
        {},
        {},
        {},
    )


async def test_many_requests_canceled_at_once_leave_no_trace() -> None:
    """Cancel all, as at the end of a call or of the process: the first one that ends must not give a turn to another
    one."""
    shares = Shares(most=2, each=1, waiting=10)
    play = Play(shares)
    await play.asks("a 1 x", "a 2 x", "a 3 x", "b 1 x", "b 2 x", "c 1 x")
    await asyncio.gather(*(play.gives_up(name) for name in ("a 1 x", "a 2 x", "b 2 x", "b 1 x", "c 1 x")))
    assert play.order == ["a 1 x", "b 1 x", "a 3 x"]
    await play.ends("a 3 x")
    assert (shares._running, dict(shares._running_by_account), dict(shares._queues)) == (0, {}, {})


async def test_a_request_beyond_the_maximum_is_refused() -> None:
    shares = Shares(most=1, each=1, waiting=1)
    play = Play(shares)
    await play.asks("a 1 x", "a 2 x")
    with pytest.raises(TooManyWaiting, match="1 requests of this account are already waiting"):
        async with shares.turn("a", "x"):
            pytest.fail("it got a turn")
    await play.ends("a 1 x")
    assert play.order == ["a 1 x", "a 2 x"]


async def test_running_and_waiting_requests_can_be_canceled_together() -> None:
    shares = Shares(most=3, each=2, waiting=10)

    async def one() -> None:
        async with shares.turn("a"):
            await asyncio.Event().wait()

    for _ in range(3):
        tasks = [asyncio.create_task(one()) for _ in range(8)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ended)
    async with asyncio.timeout(5), shares.turn("a"), shares.turn("a"), shares.turn("b"):
        pass  # all turns are free again

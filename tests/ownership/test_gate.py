"""Tests of the lease gate: closed while the owner of the calls is unknown; then all events come in, in order."""

from __future__ import annotations

import asyncio

import pytest

from ari_conf.core.events import DigitReceived, Event
from ari_conf.ownership.gate import LeaseGate


class Lease:
    """A lease that is held, or in doubt until it is confirmed."""

    def __init__(self, is_held: bool) -> None:
        self.is_held = is_held
        self.asked = 0
        self._confirmed = asyncio.Event()

    async def wait_until_held(self) -> None:
        self.asked += 1
        await self._confirmed.wait()

    def confirm(self) -> None:
        self.is_held = True
        self._confirmed.set()


def digits(text: str) -> list[Event]:
    return [DigitReceived("ann", digit) for digit in text]


@pytest.fixture
def told() -> list[Event]:
    return []


def door_of(lease: Lease, told: list[Event]) -> LeaseGate:
    return LeaseGate(lease, told.append)  # type: ignore[arg-type]


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_an_owner_hears_at_once(told: list[Event]) -> None:
    lease = Lease(is_held=True)
    door_of(lease, told).submit(digits("1")[0])
    assert told == digits("1") and not lease.asked


async def test_nothing_comes_in_before_the_lease_was_asked_for(told: list[Event]) -> None:
    """A process that was suspended may no longer be the owner."""
    lease = Lease(is_held=False)
    door = door_of(lease, told)
    for event in digits("123"):
        door.submit(event)
    await turns()
    assert told == [] and lease.asked == 1


async def test_the_door_opens_although_nothing_more_comes(told: list[Event]) -> None:
    lease = Lease(is_held=False)
    door = door_of(lease, told)
    for event in digits("123"):
        door.submit(event)
    await turns()
    lease.confirm()
    await turns()
    assert told == digits("123")


async def test_what_was_held_comes_before_what_is_new(told: list[Event]) -> None:
    lease = Lease(is_held=False)
    door = door_of(lease, told)
    door.submit(digits("1")[0])
    # The lease is held before the gate is notified.
    lease.is_held = True
    door.submit(digits("2")[0])
    lease.confirm()
    await turns()
    assert told == digits("12")


async def test_in_doubt_a_second_time_it_is_asked_again(told: list[Event]) -> None:
    lease = Lease(is_held=False)
    door = door_of(lease, told)
    door.submit(digits("1")[0])
    await turns()
    lease.confirm()
    await turns()
    lease.is_held = False
    door.submit(digits("2")[0])
    assert told == digits("1")
    await turns()
    assert lease.asked == 2 and told == digits("12")


async def test_a_door_that_is_shut_stays_shut(told: list[Event]) -> None:
    lease = Lease(is_held=False)
    door = door_of(lease, told)
    door.submit(digits("1")[0])
    await turns()
    door.close()
    lease.confirm()
    await turns()
    assert told == []

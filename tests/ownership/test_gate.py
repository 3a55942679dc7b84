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
def delivered() -> list[Event]:
    return []


def door_of(lease: Lease, delivered: list[Event]) -> LeaseGate:
    return LeaseGate(lease, delivered.append)  # type: ignore[arg-type]


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_an_owner_receives_events_at_once(delivered: list[Event]) -> None:
    lease = Lease(is_held=True)
    door_of(lease, delivered).submit(digits("1")[0])
    assert delivered == digits("1") and not lease.asked


async def test_no_event_passes_before_the_lease_is_held(delivered: list[Event]) -> None:
    """A process that was suspended may no longer be the owner."""
    lease = Lease(is_held=False)
    door = door_of(lease, delivered)
    for event in digits("123"):
        door.submit(event)
    await turns()
    assert delivered == [] and lease.asked == 1


async def test_held_back_events_are_delivered_without_a_further_event(delivered: list[Event]) -> None:
    lease = Lease(is_held=False)
    door = door_of(lease, delivered)
    for event in digits("123"):
        door.submit(event)
    await turns()
    lease.confirm()
    await turns()
    assert delivered == digits("123")


async def test_held_back_events_come_before_new_events(delivered: list[Event]) -> None:
    lease = Lease(is_held=False)
    door = door_of(lease, delivered)
    door.submit(digits("1")[0])
    # The lease is held before the gate is notified.
    lease.is_held = True
    door.submit(digits("2")[0])
    lease.confirm()
    await turns()
    assert delivered == digits("12")


async def test_a_second_doubt_is_confirmed_again(delivered: list[Event]) -> None:
    lease = Lease(is_held=False)
    door = door_of(lease, delivered)
    door.submit(digits("1")[0])
    await turns()
    lease.confirm()
    await turns()
    lease.is_held = False
    door.submit(digits("2")[0])
    assert delivered == digits("1")
    await turns()
    assert lease.asked == 2 and delivered == digits("12")


async def test_a_closed_gate_stays_closed(delivered: list[Event]) -> None:
    lease = Lease(is_held=False)
    door = door_of(lease, delivered)
    door.submit(digits("1")[0])
    await turns()
    door.close()
    lease.confirm()
    await turns()
    assert delivered == []

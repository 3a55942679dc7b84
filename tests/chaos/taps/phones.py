"""Phones in a process of their own: the deaths and starts of other processes do not delay their packets."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Sequence
from multiprocessing.connection import Connection

from demo.phone import Switchboard, now_ms
from tests.chaos.hearing import VOICES
from tests.chaos.seen import Leg

ANSWERED_S, OVER_S = 20.0, 30.0
_spawn = multiprocessing.get_context("spawn")


class Phones:
    """The phones' process, as a context manager. The first `members` join one conference; all send tones all
    the time."""

    def __init__(self, sip_address: str, count: int, members: int) -> None:
        self._ours, theirs = _spawn.Pipe()
        self._process = _spawn.Process(target=_main, args=(theirs, sip_address, count, members), daemon=True)

    def __enter__(self) -> Phones:
        self._process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ours.close()
        self._process.join(5)
        self._process.kill()

    async def answered(self) -> None:
        if not await asyncio.to_thread(self._ours.poll, ANSWERED_S):
            raise RuntimeError("the phones were not answered")
        self._ours.recv()

    async def over(self, until_ms: float) -> Sequence[Leg]:
        """Return the calls with what the members heard until then."""
        self._ours.send(until_ms)
        if not await asyncio.to_thread(self._ours.poll, OVER_S):
            raise RuntimeError("the phones' process does not end")
        legs: list[Leg] = await asyncio.to_thread(self._ours.recv)
        return legs


def number(phone: int) -> str:
    return f"1555{phone:04}"


def _main(theirs: Connection, sip_address: str, count: int, members: int) -> None:
    asyncio.run(_call(theirs, sip_address, count, members))


async def _call(theirs: Connection, sip_address: str, count: int, members: int) -> None:
    legs: list[Leg] = []
    async with Switchboard(count) as board:
        for at, phone in enumerate(board):
            phone.tone(VOICES[at])
            await phone.call(f"sip:15550100@{sip_address}", from_user=number(at))
            if at < members:
                answered = phone.answered_at or now_ms()
                legs.append(Leg(at, "conference", VOICES[at], answered, phone._recorder, late=phone.late))
        began = now_ms()
        theirs.send("answered")
        until = await asyncio.to_thread(theirs.recv)
        for leg in legs:
            leg.from_ms, leg.to_ms = began, until
        theirs.send(legs)
        # Asterisk may be dead: then no BYE is answered.
        await asyncio.wait([asyncio.create_task(phone.hang_up()) for phone in board], timeout=1.0)

"""Callers in a process of their own: faults, starts and the evaluation do not delay their packets."""

from __future__ import annotations

import asyncio
import multiprocessing
from multiprocessing.connection import Connection
from typing import Literal

from demo.phone import Switchboard, now_ms
from tests import lateness
from tests.chaos.callers import Callers, Where
from tests.chaos.seen import Counts, Leg, Life

Word = Literal["died", "back", "over"]
"""An event to report: Asterisk's death or return, or the end of the run."""
ENDS_S = 30.0
_spawn = multiprocessing.get_context("spawn")


class Calling:
    """The callers' process, as a context manager; `over` returns the data to judge."""

    def __init__(self, where: Where) -> None:
        self._ours, theirs = _spawn.Pipe()
        self._process = _spawn.Process(target=_main, args=(theirs, where), name="callers", daemon=True)

    def __enter__(self) -> Calling:
        self._process.start()
        assert self._process.pid is not None, "started"
        lateness.watch(self._process.pid)
        return self

    def __exit__(self, *_: object) -> None:
        self._ours.close()
        self._process.join(5)
        self._process.kill()

    @property
    def alive(self) -> bool:
        return self._process.is_alive()

    def say(self, word: Word) -> None:
        self._ours.send((word, now_ms()))

    async def over(self) -> tuple[list[Leg], Counts]:
        self.say("over")
        if not await asyncio.to_thread(self._ours.poll, ENDS_S):
            raise RuntimeError("the callers' process does not end")
        legs, counts = await asyncio.to_thread(self._ours.recv)
        return legs, counts


def _main(theirs: Connection, where: Where) -> None:
    asyncio.run(_call(theirs, where))


async def _call(theirs: Connection, where: Where) -> None:
    async with Switchboard(where.count) as board:
        callers = Callers(where, list(board))

        def listen() -> None:
            try:
                word, at_ms = theirs.recv()
            except EOFError:  # the parent process has ended
                asyncio.get_running_loop().remove_reader(theirs.fileno())
                callers.over.set()
                return
            life = callers.lives[-1]
            if word == "died":
                life.died_ms = at_ms
                callers.lives.append(Life(life.number + 1))
                life.died.set()
            elif word == "back":
                callers.lives[-2].back.set()
            else:
                callers.over.set()

        asyncio.get_running_loop().add_reader(theirs.fileno(), listen)
        await callers.run()
        asyncio.get_running_loop().remove_reader(theirs.fileno())
    theirs.send((callers.legs, callers.counts))

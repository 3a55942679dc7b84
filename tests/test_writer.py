"""Written before done; and nothing is done, or written, by one who is the owner no more."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ari_conf.core import effects as do
from ari_conf.errors import LeaseLost, StoreUnavailable
from ari_conf.store import Step
from ari_conf.writer import Writer
from tests import lateness

ANSWER = do.Answer("c1")


class Store:
    """Answers each write with what it is told to."""

    def __init__(self, *answers: Exception | None) -> None:
        self.answers = list(answers)
        self.written: list[int] = []
        self.asked = asyncio.Event()

    async def write(self, steps: Sequence[Step]) -> None:
        self.written.append(len(steps))
        self.asked.set()
        if (answer := self.answers.pop(0) if self.answers else None) is not None:
            raise answer


def writer_of(store: Store, done: list[str]) -> Writer:
    return Writer(store, lambda effect: done.append(type(effect).__name__), lambda: None, lambda: done.append("lost"))


async def test_an_effect_runs_after_its_step_is_written():
    done: list[str] = []
    writer = writer_of(store := Store(), done)
    writer.put(Step(1), [ANSWER])
    assert done == []
    running = asyncio.create_task(writer.run())
    await writer.drained()
    assert (done, store.written) == (["Answer"], [1])
    running.cancel()


async def test_what_is_refused_is_not_done_and_nothing_after_it():
    done: list[str] = []
    writer = writer_of(store := Store(LeaseLost("another")), done)
    writer.put(Step(1), [ANSWER])
    # It has nothing more to do.
    async with lateness.timeout():
        await writer.run()
    assert done == ["lost"]
    assert (store.written, writer.waiting) == ([1], 0)


async def test_without_redis_it_is_done_and_written_later_in_its_order():
    done: list[str] = []
    writer = writer_of(store := Store(StoreUnavailable("away")), done)
    running = asyncio.create_task(writer.run())
    writer.put(Step(1), [ANSWER])
    await store.asked.wait()
    writer.put(Step(2), [do.HangUp("c1")])
    async with lateness.timeout():
        await writer.drained()
    assert done == ["Answer", "HangUp"]
    assert store.written == [1, 2] and not writer.away
    running.cancel()

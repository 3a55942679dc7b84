"""A name that is never looked up holds up those who ask for it, and nobody else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from ari_conf.http import connect_async, guard
from ari_conf.http.lookup import Lookups

HERE = [(2, ("127.0.0.1", 80))]


class Resolver:
    """The system's, which hangs for names that begin so."""

    def __init__(self) -> None:
        self.answer = threading.Event()
        self.asked: list[str] = []

    def resolve(self, host: str, port: int, networks: object) -> list[tuple[int, tuple[str, int]]]:
        self.asked.append(host)
        if host.startswith("hangs"):
            self.answer.wait(10)
        return HERE


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    resolver = Resolver()
    monkeypatch.setattr(guard, "resolve", resolver.resolve)
    yield resolver
    resolver.answer.set()


def test_one_that_hangs_takes_one_thread_however_often_it_is_asked_for(resolver: Resolver):
    lookups = Lookups(2)
    hanging = [lookups.start("hangs.test", 80, ()) for _ in range(1000)]
    assert lookups.start("lives.test", 80, ()).result(1) == HERE
    assert not any(one.done() for one in hanging)
    resolver.answer.set()
    assert [one.result(1) for one in hanging] == [HERE] * 1000
    assert resolver.asked == ["hangs.test", "lives.test"]
    lookups.close()


def test_it_is_looked_up_anew_each_time_that_nobody_else_asks(resolver: Resolver):
    lookups = Lookups(2)
    for _ in range(3):
        lookups.start("lives.test", 80, ()).result(1)
    assert resolver.asked == ["lives.test"] * 3
    lookups.close()


async def test_one_who_gives_up_ends_it_for_nobody_else(resolver: Resolver):
    asked = connect_async.Resolver(())
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asked.resolve("hangs.test", 80), 0.05)
    other = asyncio.create_task(asked.resolve("hangs.test", 80))
    await asyncio.sleep(0)
    resolver.answer.set()
    assert (await asyncio.wait_for(other, 1))[0]["host"] == "127.0.0.1"
    await asked.close()

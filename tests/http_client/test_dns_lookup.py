"""Tests of names whose lookup hangs: they delay only the account that asks for them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from ari_conf.errors import TooManyWaiting
from ari_conf.http_client import connect_async, dns_lookup, url_guard
from ari_conf.http_client.dns_lookup import DnsLookups

HERE = [(2, ("127.0.0.1", 80))]
SOON_S = 10.0
"""Seconds for results that are immediate, on a busy machine."""


class Resolver:
    """The system's resolver, which hangs for names with that prefix."""

    def __init__(self) -> None:
        self.answer = threading.Event()
        self.asked: list[str] = []

    def resolve(self, host: str, port: int, networks: object) -> list[tuple[int, tuple[str, int]]]:
        self.asked.append(host)
        if host.startswith("hangs"):
            self.answer.wait(60)
        return HERE

    def hanging(self) -> int:
        return sum(thread.name == "lookup" for thread in threading.enumerate())


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    resolver = Resolver()
    monkeypatch.setattr(url_guard, "resolve", resolver.resolve)
    yield resolver
    resolver.answer.set()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


async def awaited(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SOON_S):
        while not condition():  # noqa: ASYNC110  # threads are waited for
            await asyncio.sleep(0.005)


# The workers' lookups.


class Asking:
    """Threads that look up names."""

    def __init__(self, lookups: DnsLookups) -> None:
        self.lookups = lookups
        self.threads = ThreadPoolExecutor(200)

    def ask(self, account: str, host: str, within_s: float = SOON_S) -> Future[dns_lookup.Addresses]:
        until = time.monotonic() + within_s
        return self.threads.submit(self.lookups.look_up, account, host, 80, (), until)


@pytest.fixture
def asking(resolver: Resolver) -> Iterator[Asking]:
    asking = Asking(DnsLookups(most=8, each=2))
    yield asking
    resolver.answer.set()
    asking.threads.shutdown()


def test_a_hanging_lookup_takes_one_thread_however_often_it_is_requested(resolver: Resolver, asking: Asking) -> None:
    hanging = [asking.ask(f"account{n % 5}", "hangs.test") for n in range(100)]
    until(lambda: bool(resolver.asked))
    assert asking.ask("account0", "lives.test").result() == HERE
    assert not any(one.done() for one in hanging)
    resolver.answer.set()
    assert [one.result() for one in hanging] == [HERE] * 100
    assert resolver.asked == ["hangs.test", "lives.test"]


def test_many_names_of_an_account_that_hang_leave_the_others_their_threads(resolver: Resolver, asking: Asking) -> None:
    hanging = [asking.ask("slow", f"hangs{n}.test") for n in range(40)]
    until(lambda: len(resolver.asked) == 2)
    for account in ("acme", "other"):
        assert asking.ask(account, f"{account}.test").result() == HERE
    with pytest.raises(TimeoutError):
        asking.ask("slow", "lives.test", 0.05).result()
    assert len(resolver.asked) == 4 and resolver.asked[2:] == ["acme.test", "other.test"]
    resolver.answer.set()
    assert all(one.result() == HERE for one in hanging)
    until(lambda: not asking.lookups._in_progress and not asking.lookups._per_account)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_an_address_needs_no_thread(resolver: Resolver, asking: Asking, address: str) -> None:
    hanging = [asking.ask("slow", f"hangs{n}.test") for n in range(2)]
    until(lambda: resolver.hanging() == 2)
    # It succeeds although the account has no thread left.
    assert asking.lookups.look_up("slow", address, 80, (), time.monotonic()) == HERE
    assert resolver.hanging() == 2
    resolver.answer.set()
    assert all(one.result() == HERE for one in hanging)


def test_a_thread_is_held_until_it_is_free_though_nobody_waits_any_more(resolver: Resolver, asking: Asking) -> None:
    for n in range(2):
        with pytest.raises(TimeoutError):
            asking.ask("slow", f"hangs{n}.test", 0.05).result()
    assert resolver.hanging() == 2
    with pytest.raises(TimeoutError):
        asking.ask("slow", "hangs2.test", 0.05).result()
    assert resolver.hanging() == 2


def test_each_lookup_is_new_unless_one_is_running(resolver: Resolver, asking: Asking) -> None:
    for n in range(3):
        assert asking.ask("acme", "lives.test").result() == HERE
        until(lambda: not asking.lookups._in_progress)
        assert resolver.asked == ["lives.test"] * (n + 1)


def test_an_error_of_the_resolver_is_raised_and_its_thread_is_free(
    asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> dns_lookup.Addresses:
        raise OSError("no address")

    monkeypatch.setattr(url_guard, "resolve", fails)
    for _ in range(5):
        with pytest.raises(OSError, match="no address"):
            asking.ask("acme", "nowhere.test").result()


# The application's lookups.


async def asked_by(account: str, resolver: connect_async.CheckedResolver, host: str) -> str:
    connect_async.current_account.set(account)
    (found,) = await resolver.resolve(host, 80)
    return found["host"]


async def test_a_canceled_request_cancels_no_shared_lookup(resolver: Resolver) -> None:
    asked = connect_async.CheckedResolver(())
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asked.resolve("hangs.test", 80), 0.05)
    other = asyncio.create_task(asked.resolve("hangs.test", 80))
    await asyncio.sleep(0)
    resolver.answer.set()
    assert (await asyncio.wait_for(other, SOON_S))[0]["host"] == "127.0.0.1"
    assert resolver.asked == ["hangs.test"]
    await asked.close()


@pytest.mark.parametrize("names", [33, 300])
async def test_names_of_an_account_that_hang_delay_no_other_account(resolver: Resolver, names: int) -> None:
    """33 is one more than the number of threads that all accounts once shared."""
    asked = connect_async.CheckedResolver(())
    slow = [asyncio.create_task(asked_by("slow", asked, f"hangs{n}.test")) for n in range(names)]
    await awaited(lambda: len(resolver.asked) == dns_lookup.MAX_LOOKUPS_PER_ACCOUNT)
    for account in ("acme", ""):
        assert await asyncio.wait_for(asked_by(account, asked, f"lives{account}.test"), SOON_S) == "127.0.0.1"
    own = asyncio.create_task(asked_by("slow", asked, "lives.of.slow.test"))
    await asyncio.sleep(0.05)
    assert not own.done() and resolver.hanging() == dns_lookup.MAX_LOOKUPS_PER_ACCOUNT
    resolver.answer.set()
    async with asyncio.timeout(SOON_S):
        assert set(await asyncio.gather(*slow, own)) == {"127.0.0.1"}
    await asked.close()


async def test_a_canceled_lookup_keeps_its_thread_and_leaves_the_queue(resolver: Resolver) -> None:
    """Otherwise an account could take any number of threads by giving up sooner than the system's resolver."""
    asked = connect_async.CheckedResolver(())
    for n in range(3 * dns_lookup.MAX_LOOKUPS_PER_ACCOUNT):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asked_by("slow", asked, f"hangs{n}.test"), 0.02)
    assert resolver.hanging() == dns_lookup.MAX_LOOKUPS_PER_ACCOUNT
    resolver.answer.set()
    await awaited(lambda: not asked._in_progress)
    assert len(resolver.asked) == dns_lookup.MAX_LOOKUPS_PER_ACCOUNT, (
        "a name was looked up although its caller had given up"
    )
    await asked.close()


async def test_a_name_that_is_looked_up_for_one_account_is_found_for_another(resolver: Resolver) -> None:
    asked = connect_async.CheckedResolver(())
    slow = [
        asyncio.create_task(asked_by("slow", asked, f"hangs{n}.test"))
        for n in range(dns_lookup.MAX_LOOKUPS_PER_ACCOUNT)
    ]
    await awaited(lambda: len(resolver.asked) == dns_lookup.MAX_LOOKUPS_PER_ACCOUNT)
    slow += [asyncio.create_task(asked_by(account, asked, "hangs0.test")) for account in ("acme", "slow")]
    await asyncio.sleep(0.05)
    assert len(resolver.asked) == dns_lookup.MAX_LOOKUPS_PER_ACCOUNT
    resolver.answer.set()
    await asyncio.gather(*slow)
    await asked.close()


async def test_too_many_that_wait_are_refused(resolver: Resolver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect_async, "MAX_WAITING_LOOKUPS", 5)
    asked = connect_async.CheckedResolver(())
    slow = [
        asyncio.create_task(asked_by("slow", asked, f"hangs{n}.test"))
        for n in range(dns_lookup.MAX_LOOKUPS_PER_ACCOUNT + 5)
    ]
    await awaited(lambda: len(resolver.asked) == dns_lookup.MAX_LOOKUPS_PER_ACCOUNT)
    with pytest.raises(TooManyWaiting):
        await asked_by("slow", asked, "one.more.test")
    resolver.answer.set()
    await asyncio.gather(*slow)
    await asked.close()

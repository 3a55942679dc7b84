"""Tests of commands, with a real Redis: they reach the owner once and in order, and their replies are returned."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, cast

import msgspec
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from ari_conf.core.commands import ForAccount, ForCall, ForConference, HangUpAll, HangUpCall, HangUpCalls, Lock, Mute
from ari_conf.core.effects import CommandReply
from ari_conf.core.events import AccountWatched, CommandReceived
from ari_conf.queues import command_queue
from ari_conf.queues.command_queue import (
    CommandClient,
    CommandConsumer,
    CommandMessage,
    connect,
    encode,
    queue_key,
    send_and_wait,
)
from tests.between import between
from tests.redis import RedisServer

HOUR_MS = 3600 * 1000
LOCK, UNLOCK, END = (ForConference("MA1", "x", command) for command in (Lock(True), Lock(False), HangUpAll()))


class Owner:
    """Owner that replies 202 to everything, and records that as the application does, unless it dies before."""

    def __init__(self, url: str, asterisk: str = "here", clock_ahead_ms: int = 0) -> None:
        self.redis = connect(url)
        self.clock_ahead_ms = clock_ahead_ms
        self.got: list[CommandReceived] = []
        self.watched: list[AccountWatched] = []
        self.asterisk_is_there = True
        self.silent = False
        self.connected = asyncio.Event()
        self.connected.set()
        self.commands = CommandConsumer(
            self.redis,
            asterisk,
            self.deliver,
            lambda: self.asterisk_is_there,
            self.reply,
            self.connected.wait,
            self.now_ms,
        )

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000 + self.clock_ahead_ms

    def left_ms(self) -> int:
        """Return the ms that the last received command has left."""
        return self.got[-1].expires_at - self.now_ms()

    def deliver(self, event: CommandReceived | AccountWatched) -> None:
        if isinstance(event, AccountWatched):
            self.watched.append(event)
            return
        self.got.append(event)
        if not self.silent:
            self.reply(CommandReply(event.command_id, 202, (("member_id", ("1", "2")),)))

    def reply(self, reply: CommandReply) -> None:
        self.task = asyncio.ensure_future(self.write(reply))

    async def write(self, reply: CommandReply) -> None:
        pipe = self.redis.pipeline(transaction=True)
        self.commands.reply_writer(reply)(pipe)
        await pipe.execute()


@asynccontextmanager
async def running(work: Any, *clients: Any) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        for client in clients:
            await client.aclose()


@asynccontextmanager
async def asking(url: str, name: str = "web") -> AsyncIterator[CommandClient]:
    client = connect(url)
    asker = CommandClient(client, name)
    async with running(asker.receive_replies(), client):
        yield asker


async def test_a_command_goes_there_and_its_reply_comes_back(redis_server):
    owner = Owner(redis_server.url)
    async with running(owner.commands.run(), owner.redis), asking(redis_server.url) as asker:
        reply = await asker.send("here", ForConference("MA1", "stand/up ☕", Mute((1, 2), True)), "c1", 5)
    assert reply == CommandReply("c1", 202, (("member_id", ("1", "2")),))
    (event,) = owner.got
    assert event.addressed == ForConference("MA1", "stand/up ☕", Mute((1, 2), True))


async def test_one_for_a_call_goes_there_too(redis_server):
    owner, wanted = Owner(redis_server.url), ForCall("MA1", "u1", HangUpCall())
    async with running(owner.commands.run(), owner.redis), asking(redis_server.url) as asker:
        assert await asker.send("here", wanted, "c1", 5) is not None
    assert [event.addressed for event in owner.got] == [wanted]


async def test_a_blocking_sender_gets_the_reply_to_a_command_for_an_account(redis_server):
    owner, wanted = Owner(redis_server.url), ForAccount("MA1", HangUpCalls(50))
    client = redis_server.client
    async with running(owner.commands.run(), owner.redis):
        reply = await asyncio.to_thread(send_and_wait, client, "here", wanted, "c1", 5)
        assert reply is not None and reply.command_id == "c1"
        # An owner that has replied while the subscription was broken has stored the reply.
        client.set("ari_conf:reply:c2", msgspec.json.encode(CommandReply("c2", 202)))
        assert await asyncio.to_thread(send_and_wait, client, "nowhere", wanted, "c2", 0) == CommandReply("c2", 202)
        assert await asyncio.to_thread(send_and_wait, client, "nowhere", wanted, "c3", 0) is None
    assert [event.addressed for event in owner.got] == [wanted]


async def test_one_whose_address_takes_no_such_command_is_not_delivered(redis_server):
    """Another version sent it: what follows is delivered."""
    owner = Owner(redis_server.url)
    wrong = ForCall("MA1", "u1", cast(Any, Mute((1,), True)))
    text = msgspec.json.encode(CommandMessage("c1", wrong, 2**50, "web"))
    redis_server.client.xadd(queue_key("here"), {"command": text})
    async with running(owner.commands.run(), owner.redis), asking(redis_server.url) as asker:
        assert await asker.send("here", LOCK, "c2", 30) is not None
    assert [event.command_id for event in owner.got] == ["c2"]


async def test_many_at_once_each_get_their_own(redis_server):
    owner = Owner(redis_server.url)
    async with running(owner.commands.run(), owner.redis), asking(redis_server.url) as asker:
        ids = [f"c{n}" for n in range(250)]
        replies = await asyncio.gather(*(asker.send("here", LOCK, i, 10) for i in ids))
    assert [reply.command_id for reply in replies if reply] == ids
    assert sorted(event.command_id for event in owner.got) == sorted(ids)


async def test_the_reply_reaches_the_process_that_asked(redis_server):
    owner = Owner(redis_server.url)
    async with (
        running(owner.commands.run(), owner.redis),
        asking(redis_server.url, "one") as one,
        asking(redis_server.url, "two") as two,
    ):
        first, second = await asyncio.gather(one.send("here", LOCK, "c1", 5), two.send("here", UNLOCK, "c2", 5))
    assert first and second and (first.command_id, second.command_id) == ("c1", "c2")


async def test_nobody_owns_it_then_the_deadline_passes(redis_server):
    async with asking(redis_server.url) as asker:
        assert await asker.send("nowhere", END, "c1", 0.2) is None


async def test_an_owner_without_its_asterisk_says_so_at_once(redis_server):
    owner = Owner(redis_server.url)
    owner.asterisk_is_there = False
    async with running(owner.commands.run(), owner.redis), asking(redis_server.url) as asker:
        reply = await asker.send("here", END, "c1", 5)
    assert reply is not None and reply.status == 503
    assert not owner.got


async def test_next_owner_does_not_repeat_a_command(redis_server):
    first, second = Owner(redis_server.url), Owner(redis_server.url)
    async with asking(redis_server.url) as asker:
        async with running(first.commands.run(), first.redis):
            await asker.send("here", LOCK, "c1", 5)
        async with running(second.commands.run(), second.redis):
            await asker.send("here", UNLOCK, "c2", 5)
    assert [event.command_id for event in second.got] == ["c2"]


async def test_next_owner_executes_the_command_that_its_predecessor_died_over(redis_server):
    first, second = Owner(redis_server.url), Owner(redis_server.url)
    first.silent = True
    async with asking(redis_server.url) as asker:
        asked = asyncio.ensure_future(asker.send("here", LOCK, "c1", 5))
        async with running(first.commands.run(), first.redis):
            while not first.got:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        async with running(second.commands.run(), second.redis):
            reply = await asked
    assert reply is not None and reply.status == 202
    assert [event.command_id for event in second.got] == ["c1"]


async def test_command_of_a_dead_owner_waits_for_asterisk(redis_server):
    """Otherwise the reply would be 503 a moment before Asterisk is connected, and the command would never be done."""
    owner = Owner(redis_server.url)
    owner.asterisk_is_there = False
    owner.connected.clear()
    async with asking(redis_server.url) as asker, running(owner.commands.run(), owner.redis):
        asked = asyncio.ensure_future(asker.send("here", LOCK, "c1", 5))
        while not redis_server.client.xlen(queue_key("here")):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        assert not asked.done() and not owner.got
        owner.asterisk_is_there = True
        owner.connected.set()
        reply = await asked
    assert reply is not None and reply.status == 202


async def test_an_owner_whose_asterisk_does_not_come_says_so_in_time(redis_server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(command_queue, "FIRST_CONNECTION_S", 0.1)
    owner = Owner(redis_server.url)
    owner.asterisk_is_there = False
    owner.connected.clear()
    async with running(owner.commands.run(), owner.redis), asking(redis_server.url) as asker:
        reply = await asker.send("here", LOCK, "c1", 5)
    assert reply is not None and reply.status == 503


async def test_a_reply_is_stored_for_a_process_that_missed_it(redis_server):
    owner = Owner(redis_server.url)
    async with running(owner.commands.run(), owner.redis), asking(redis_server.url) as asker:
        await asker.send("here", LOCK, "c1", 5)
        kept = await asker.stored_reply("c1")
        assert kept is not None and kept.status == 202
        assert await asker.stored_reply("c2") is None


async def test_invalid_command_is_skipped(redis_server):
    owner = Owner(redis_server.url)
    for fields in ({"command": b'{"no": "command"}'}, {"command": b"\xff"}, {"other": b"5"}):
        redis_server.client.xadd(queue_key("here"), fields)
    async with running(owner.commands.run(), owner.redis), asking(redis_server.url) as asker:
        assert await asker.send("here", LOCK, "c1", 5) is not None


async def test_reply_at_the_last_moment_arrives(redis_server):
    owner = Owner(redis_server.url)
    owner.silent = True
    async with running(owner.commands.run(), owner.redis), asking(redis_server.url) as asker:
        asked = asyncio.ensure_future(asker.send("here", LOCK, "c1", 0.3))
        await asyncio.sleep(0.5)  # the command has expired, and its reply is on its way
        assert [event.command_id for event in owner.got] == ["c1"]
        await owner.write(CommandReply("c1", 202))
        assert await asked == CommandReply("c1", 202)


async def test_one_that_breaks_does_not_hold_up_the_next(redis_server):
    owner = Owner(redis_server.url)
    deliver = owner.deliver

    def breaks(event: CommandReceived) -> None:
        if isinstance(event.addressed.command, HangUpAll):
            raise KeyError("a defect")
        deliver(event)

    owner.commands._deliver = breaks
    async with running(owner.commands.run(), owner.redis), asking(redis_server.url) as asker:
        assert await asker.send("here", END, "c1", 0.1) is None
        # A read that waits for ids above this one lasts BLOCK_MS.
        assert await asker.send("here", LOCK, "c2", 30) is not None


@pytest.mark.parametrize("ahead_ms", [-HOUR_MS, HOUR_MS])
async def test_that_somebody_looks_is_no_command_and_gets_no_reply(redis_server, ahead_ms: int):
    owner = Owner(redis_server.url, clock_ahead_ms=ahead_ms)
    async with running(owner.commands.run(), owner.redis), asking(redis_server.url) as asker:
        await asker.watch("here", "MA1", 30_000)
        assert await asker.send("here", LOCK, "c1", 5) is not None
        ((_, until),) = [(event.auth_id, event.until) for event in owner.watched]
        assert 0 < until - owner.now_ms() <= 30_000
        assert [key.decode() for key in redis_server.client.keys("ari_conf:reply:*")] == ["ari_conf:reply:c1"]


# Time.


@pytest.mark.parametrize("ahead_ms", [-HOUR_MS, HOUR_MS])
async def test_clocks_of_web_process_and_owner_may_differ(redis_server, ahead_ms: int):
    owner = Owner(redis_server.url, clock_ahead_ms=ahead_ms)
    async with running(owner.commands.run(), owner.redis), asking(redis_server.url) as asker:
        assert await asker.send("here", LOCK, "c1", 5) is not None
    assert 0 < owner.left_ms() <= 5000


def put(redis_server: RedisServer, expires_in_ms: int, within_ms: int) -> None:
    seconds, micros = redis_server.client.time()
    until = seconds * 1000 + micros // 1000 + expires_in_ms
    text = encode(LOCK, f"c{expires_in_ms}", until, "web", within_ms)
    redis_server.client.xadd(queue_key("here"), {"command": text})


async def got(owner: Owner, number: int) -> None:
    async with asyncio.timeout(10):
        while len(owner.got) < number:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_one_that_nobody_took_up_in_time_has_expired(redis_server):
    owner = Owner(redis_server.url)
    put(redis_server, -1, 3000)
    async with running(owner.commands.run(), owner.redis):
        await got(owner, 1)
        assert owner.left_ms() <= 0


async def test_when_redis_clock_is_set_back_what_waited_has_expired(redis_server):
    """The command would live another hour, but its sender no longer waits for it."""
    owner = Owner(redis_server.url)
    put(redis_server, HOUR_MS, 3000)
    async with running(owner.commands.run(), owner.redis):
        await got(owner, 1)
        assert owner.left_ms() <= 0


async def test_of_a_web_before_this_one_a_command_is_taken_as_it_is(redis_server):
    owner = Owner(redis_server.url)
    put(redis_server, 60_000, 0)
    async with running(owner.commands.run(), owner.redis):
        await got(owner, 1)
        assert 0 < owner.left_ms() <= 60_000


async def test_an_owner_that_was_stopped_between_reading_and_taking_takes_it_for_expired(
    redis_server, monkeypatch: pytest.MonkeyPatch
):
    stopped_s = count(0, 10)
    monkeypatch.setattr(command_queue, "boottime", lambda: float(next(stopped_s)))
    owner = Owner(redis_server.url)
    put(redis_server, 3000, 3000)
    async with running(owner.commands.run(), owner.redis):
        await got(owner, 1)
        assert owner.left_ms() <= -6000


async def test_a_command_answered_with_503_is_never_executed_later(redis_server):
    """This holds however long its way to Redis takes."""
    owner = Owner(redis_server.url)
    async with (
        between(redis_server.port) as way,
        asking(way.url) as asker,
        running(owner.commands.run(), owner.redis),
    ):
        assert await asker.send("here", LOCK, "c1", 5) is not None
        way.hold(b"XADD")
        asked = asyncio.ensure_future(asker.send("here", LOCK, "c2", 0.2))
        await way.held.wait()
        assert await asked is None
        way.let_through()
        await got(owner, 2)
        assert owner.got[-1].command_id == "c2" and owner.left_ms() <= 0


async def test_a_command_that_reaches_redis_too_late_is_not_queued(redis_server):
    async with between(redis_server.port) as way, asking(way.url) as asker:
        way.hold(b"TIME")
        asked = asyncio.ensure_future(asker.send("here", LOCK, "c1", 0.1))
        await way.held.wait()
        await asyncio.sleep(0.15)
        way.let_through()
        assert await asked is None
    assert redis_server.client.xlen(queue_key("here")) == 0


@pytest.mark.parametrize("done", ["99999999999999-0", "what is this"])
async def test_a_place_of_another_stream_hides_nothing(redis_server, done):
    owner = Owner(redis_server.url)
    redis_server.client.set(command_queue._done_key("here"), done)
    async with running(owner.commands.run(), owner.redis), asking(redis_server.url) as asker:
        assert await asker.send("here", LOCK, "c1", 30) is not None


async def test_a_stream_that_restarted_with_lower_ids_is_read_again(redis_server):
    owner = Owner(redis_server.url)
    text = encode(LOCK, "c1", 0, "web", 1)
    redis_server.client.xadd(queue_key("here"), {"command": text}, id="99999999999999-0")
    async with running(owner.commands.run(), owner.redis), asking(redis_server.url) as asker:
        await got(owner, 1)
        redis_server.client.flushall()  # by another server, for example, whose clock is behind
        owner.commands.reset_position()
        # A read that waits for ids above this one lasts BLOCK_MS.
        assert await asker.send("here", LOCK, "c2", 30) is not None


class Unconfirmed:
    """Client whose connection breaks after Redis has taken a command, or before."""

    def __init__(self, client: Any, *, taken: bool) -> None:
        self._client, self._taken = client, taken

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def xadd(self, *args: Any, **more: Any) -> None:
        if self._taken:
            await self._client.xadd(*args, **more)
        raise RedisConnectionError("Connection closed by server.")


@pytest.mark.parametrize("taken", [True, False])
async def test_a_command_whose_write_is_not_confirmed_gets_its_reply_if_there_is_one(redis_server, taken: bool):
    """A 503 for a command that is carried out would be repeated by the client, and people called twice."""
    owner, client = Owner(redis_server.url), connect(redis_server.url)
    asker = CommandClient(cast(Any, Unconfirmed(client, taken=taken)), "web")
    async with running(owner.commands.run(), owner.redis), running(asker.receive_replies(), client):
        reply = await asker.send("here", LOCK, "c1", 0.3)
        assert (reply is not None) == taken == bool(owner.got)

"""Commands reach the owner once, in order, and their replies come back: with a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from ari_conf.command_queue import Asker, Commands, connect, queue_key
from ari_conf.core.commands import HangUpAll, Lock, Mute
from ari_conf.core.effects import Reply
from ari_conf.core.events import AccountWatched, CommandReceived


class Owner:
    """Replies 202 to all, and writes that down as the application does: unless it dies before."""

    def __init__(self, url: str, asterisk: str = "here") -> None:
        self.redis = connect(url)
        self.got: list[CommandReceived] = []
        self.watched: list[AccountWatched] = []
        self.asterisk_is_there = True
        self.silent = False
        self.commands = Commands(self.redis, asterisk, self.deliver, lambda: self.asterisk_is_there, self.reply)

    def deliver(self, event: CommandReceived | AccountWatched) -> None:
        if isinstance(event, AccountWatched):
            self.watched.append(event)
            return
        self.got.append(event)
        if not self.silent:
            self.reply(Reply(event.command_id, 202, (("member_id", ("1", "2")),)))

    def reply(self, reply: Reply) -> None:
        self.task = asyncio.ensure_future(self.write(reply))

    async def write(self, reply: Reply) -> None:
        pipe = self.redis.pipeline(transaction=True)
        self.commands.answer(reply)(pipe)
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
async def asking(url: str, name: str = "web") -> AsyncIterator[Asker]:
    client = connect(url)
    asker = Asker(client, name)
    async with running(asker.listen(), client):
        yield asker


async def test_a_command_goes_there_and_its_reply_comes_back(redis_server):
    owner = Owner(redis_server.url)
    async with running(owner.commands.run(), owner.redis), asking(redis_server.url) as asker:
        reply = await asker.ask("here", Mute((1, 2), True), "c1", "MA1", "stand/up ☕", 5)
    assert reply == Reply("c1", 202, (("member_id", ("1", "2")),))
    (event,) = owner.got
    assert (event.auth_id, event.conference_name, event.command) == ("MA1", "stand/up ☕", Mute((1, 2), True))


async def test_many_at_once_each_get_their_own(redis_server):
    owner = Owner(redis_server.url)
    async with running(owner.commands.run(), owner.redis), asking(redis_server.url) as asker:
        ids = [f"c{n}" for n in range(250)]
        replies = await asyncio.gather(*(asker.ask("here", Lock(True), i, "MA1", "x", 10) for i in ids))
    assert [reply.command_id for reply in replies if reply] == ids
    assert sorted(event.command_id for event in owner.got) == sorted(ids)


async def test_the_reply_reaches_the_process_that_asked(redis_server):
    owner = Owner(redis_server.url)
    async with (
        running(owner.commands.run(), owner.redis),
        asking(redis_server.url, "one") as one,
        asking(redis_server.url, "two") as two,
    ):
        first, second = await asyncio.gather(
            one.ask("here", Lock(True), "c1", "MA1", "x", 5), two.ask("here", Lock(False), "c2", "MA1", "x", 5)
        )
    assert first and second and (first.command_id, second.command_id) == ("c1", "c2")


async def test_nobody_owns_it_then_the_deadline_passes(redis_server):
    async with asking(redis_server.url) as asker:
        assert await asker.ask("nowhere", HangUpAll(), "c1", "MA1", "x", 0.2) is None


async def test_an_owner_without_its_asterisk_says_so_at_once(redis_server):
    owner = Owner(redis_server.url)
    owner.asterisk_is_there = False
    async with running(owner.commands.run(), owner.redis), asking(redis_server.url) as asker:
        reply = await asker.ask("here", HangUpAll(), "c1", "MA1", "x", 5)
    assert reply is not None and reply.status == 503
    assert not owner.got


async def test_what_an_owner_has_done_the_next_one_does_not_do_again(redis_server):
    first, second = Owner(redis_server.url), Owner(redis_server.url)
    async with asking(redis_server.url) as asker:
        async with running(first.commands.run(), first.redis):
            await asker.ask("here", Lock(True), "c1", "MA1", "x", 5)
        async with running(second.commands.run(), second.redis):
            await asker.ask("here", Lock(False), "c2", "MA1", "x", 5)
    assert [event.command_id for event in second.got] == ["c2"]


async def test_what_an_owner_died_over_the_next_one_does(redis_server):
    first, second = Owner(redis_server.url), Owner(redis_server.url)
    first.silent = True
    async with asking(redis_server.url) as asker:
        asked = asyncio.ensure_future(asker.ask("here", Lock(True), "c1", "MA1", "x", 5))
        async with running(first.commands.run(), first.redis):
            while not first.got:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        async with running(second.commands.run(), second.redis):
            reply = await asked
    assert reply is not None and reply.status == 202
    assert [event.command_id for event in second.got] == ["c1"]


async def test_a_reply_is_kept_for_who_did_not_hear_it(redis_server):
    owner = Owner(redis_server.url)
    async with running(owner.commands.run(), owner.redis), asking(redis_server.url) as asker:
        await asker.ask("here", Lock(True), "c1", "MA1", "x", 5)
        kept = await asker.replied("c1")
        assert kept is not None and kept.status == 202
        assert await asker.replied("c2") is None


async def test_what_is_no_command_is_passed_over(redis_server):
    owner = Owner(redis_server.url)
    redis_server.client.xadd(queue_key("here"), {"command": b'{"no": "command"}'})
    async with running(owner.commands.run(), owner.redis), asking(redis_server.url) as asker:
        assert await asker.ask("here", Lock(True), "c1", "MA1", "x", 5) is not None


async def test_what_was_decided_at_the_last_moment_is_heard_of(redis_server):
    owner = Owner(redis_server.url)
    owner.silent = True
    async with running(owner.commands.run(), owner.redis), asking(redis_server.url) as asker:
        asked = asyncio.ensure_future(asker.ask("here", Lock(True), "c1", "MA1", "x", 0.3))
        await asyncio.sleep(0.5)  # the command has expired, its reply is on its way
        assert [event.command_id for event in owner.got] == ["c1"]
        await owner.write(Reply("c1", 202))
        assert await asked == Reply("c1", 202)


async def test_one_that_breaks_does_not_hold_up_the_next(redis_server):
    owner = Owner(redis_server.url)
    deliver = owner.deliver

    def breaks(event: CommandReceived) -> None:
        if isinstance(event.command, HangUpAll):
            raise KeyError("a defect")
        deliver(event)

    owner.commands._deliver = breaks
    async with running(owner.commands.run(), owner.redis), asking(redis_server.url) as asker:
        assert await asker.ask("here", HangUpAll(), "c1", "MA1", "x", 0.1) is None
        assert await asker.ask("here", Lock(True), "c2", "MA1", "x", 5) is not None


async def test_that_somebody_looks_is_no_command_and_gets_no_reply(redis_server):
    owner = Owner(redis_server.url)
    async with running(owner.commands.run(), owner.redis), asking(redis_server.url) as asker:
        await asker.watch("here", "MA1", 1_790_000_000_000)
        assert await asker.ask("here", Lock(True), "c1", "MA1", "x", 5) is not None
        assert owner.watched == [AccountWatched("MA1", 1_790_000_000_000)]
        assert [key.decode() for key in redis_server.client.keys("ari_conf:reply:*")] == ["ari_conf:reply:c1"]

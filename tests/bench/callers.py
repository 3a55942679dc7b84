"""Callers on the fake ARI server, in its process: `python -m tests.bench.callers PORT APP_URL`.

POST /bench/… controls it, each with JSON in and out:

/bench/seed   {members, redis, name}: puts that many members into conferences, and the state of a server that held
              them into Redis, for the next server to take over
/bench/ready  waits until that has happened, and a caller who arrived after it is in their conference
/bench/churn  {seconds, at_once, talks}: callers leave and others replace them, `at_once` of them at any time;
              `talks` times a member starts and stops talking for each new caller
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from itertools import count
from typing import Any

from aiohttp import web
from redis import Redis

from ari_conf.core import events as ev
from ari_conf.core.conferences.conference import Conference
from ari_conf.server.takeover import NEXT_MEMBER_ID
from ari_conf.store.members import members_key
from ari_conf.store.state_codec import encode, encode_without_members
from ari_conf.store.state_store import names_key
from tests.bench.fake_ari import APP, LISTENED_TO, FakeAri, answered, listened_to
from tests.bench.plays import ACCOUNT, SIZE, TALKING, Recorder

LATE_S = 30.0
BUSY = 47
"""The number of conferences in which callers come and go. Members talk in a few more: 1,000 members fill both."""


class Callers:
    def __init__(self, ari: FakeAri) -> None:
        self._ari = ari
        self._random = random.Random(1)
        self._numbers = count(1)
        self._joining: dict[str, asyncio.Future[None]] = {}
        """channel id -> a future that is done when the channel is in its bridge"""
        self._leaving: dict[str, asyncio.Future[None]] = {}
        self._members: list[str] = []
        """The initial members."""
        ari.on_event = self._on_event
        self._compared = asyncio.Event()
        ari.on_request = self._on_request

    def _on_event(self, event: ev.Event) -> None:
        joining = self._joining.pop(event.channel_id, None) if isinstance(event, ev.ChannelEnteredBridge) else None
        if joining is not None and not joining.done():
            joining.set_result(None)

    def _on_request(self, method: str, path: str) -> None:
        if (method, path) == ("GET", f"/applications/{APP}"):
            self._compared.set()

    async def seed(self, members: int, redis: str, name: str) -> dict[str, Any]:
        recorder = Recorder(replace(TALKING, listened_to=LISTENED_TO), now=time.time_ns() // 1_000_000)
        for n in range(members // SIZE):
            for _ in range(SIZE):
                recorder.arrives(str(n))
                recorder.go_on()
            # The recorder's timeline and events are not used here; clearing them saves time and memory.
            recorder.timeline.clear(), recorder.events.clear()
        fake, theirs = self._ari.asterisk, recorder.asterisk
        fake.channels, fake.bridges, fake._used = theirs.channels, theirs.bridges, theirs._used
        self._ari.exten = dict(recorder.conference_of)
        self._members = list(fake.channels)
        client = Redis.from_url(redis)
        engine = recorder.engine
        weight = 0
        with client.pipeline(transaction=False) as pipe:
            pipe.hset(f"ari_conf:state:{name}", NEXT_MEMBER_ID, engine.registry.next_member_id)
            for n, (key, thing) in enumerate((engine.calls | engine.conferences).items()):
                if isinstance(thing, Conference):
                    text = encode_without_members(thing)
                    members = {member_id: encode(member) for member_id, member in thing.members.items()}
                    weight += sum(map(len, members.values()))
                    pipe.hset(members_key(key), mapping=members)
                else:
                    text = encode(thing)
                weight += len(text)
                pipe.hset(f"ari_conf:state:{name}", key, text)
                if n % 500 == 499:
                    pipe.execute()
            for conference in engine.conferences.values():
                pipe.hset(names_key(ACCOUNT.auth_id), conference.name, f"{conference.conference_id} {name}")
            pipe.execute()
        return {"calls": len(engine.calls), "conferences": len(engine.conferences), "bytes": weight}

    async def ready(self) -> dict[str, Any]:
        async with asyncio.timeout(600):
            await self._ari.connected.wait()
            await self._compared.wait()
            await self._comes("999999")
        return {"at": time.time()}

    async def churn(self, seconds: float, at_once: int, talks: int) -> dict[str, Any]:
        sent, requests, began = self._ari.sent, self._ari.requests, time.monotonic()
        joins: list[float] = []
        until = began + seconds
        # The same number of conferences is busy at any size; the others are idle. Otherwise a larger server would
        # seldom have two events of one conference to write together, and the comparison would cover more than the size.
        busy = self._busy()
        resting = [who for who in self._members if self._ari.exten[who] not in busy]
        talkers = [who for who in self._members if self._ari.exten[who] in busy and listened_to(self._ari.exten[who])]
        here = [who for who in self._members if self._ari.exten[who] in busy and not listened_to(self._ari.exten[who])]

        async def one() -> None:
            while time.monotonic() < until:
                n = self._random.randrange(len(here))
                here[n], who = here[-1], here[n]
                here.pop()
                conference = self._ari.exten[who]
                self._ari.asterisk.hang_up(who)
                came = time.monotonic()
                here.append(await self._comes(conference))
                joins.append(time.monotonic() - came)
                for _ in range(talks):
                    who = self._random.choice(talkers)
                    for begins in (True, False):
                        self._ari.asterisk.talk(who, begins)
                        await asyncio.sleep(0)

        await asyncio.gather(*(one() for _ in range(at_once)))
        spent, self._members = time.monotonic() - began, resting + talkers + here
        return {
            "seconds": spent,
            "events": self._ari.sent - sent,
            "requests": self._ari.requests - requests,
            "joins": len(joins),
            "median_ms": sorted(joins)[len(joins) // 2] * 1000,
            "p99_ms": sorted(joins)[len(joins) * 99 // 100] * 1000,
            "unknown": self._ari.unknown[:5],
            "refused": self._ari.refused[:5],
        }

    def _busy(self) -> set[str]:
        """Return busy conferences, spread evenly over all."""
        conferences = sorted({self._ari.exten[who] for who in self._members}, key=int)
        listened = [c for c in conferences if listened_to(c)]
        others = [c for c in conferences if not listened_to(c)]
        few = BUSY // LISTENED_TO + 1
        return {*listened[:: max(1, len(listened) // few)][:few], *others[:: max(1, len(others) // BUSY)][:BUSY]}

    async def _comes(self, exten: str) -> str:
        channel_id = f"1800000000.{next(self._numbers)}"
        joining = self._joining[channel_id] = asyncio.get_running_loop().create_future()
        self._ari.call(channel_id, exten)
        async with asyncio.timeout(LATE_S):
            await joining
        return channel_id


async def main(port: int, app_url: str) -> None:
    ari = FakeAri(app_url)
    callers = Callers(ari)

    def json_handler(do: Callable[..., Awaitable[dict[str, Any]]]) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def answer(request: web.Request) -> web.Response:
            return web.json_response(await do(**(await request.json())))

        return answer

    server = web.Application(client_max_size=1 << 30)
    server.router.add_route("*", "/ari/{path:.*}", ari.http)
    server.router.add_post("/answer", answered)
    for name in ("seed", "ready", "churn"):
        server.router.add_post(f"/bench/{name}", json_handler(getattr(callers, name)))
    runner = web.AppRunner(server, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await ari.connect_for_ever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", type=int)
    parser.add_argument("app_url")
    given = parser.parse_args()
    asyncio.run(main(given.port, given.app_url))

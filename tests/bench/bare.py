"""Baseline: a Stasis application that answers each call and adds it to the bridge that its argument names.

`python -m tests.bench.bare ARI_URL APP USER [TYPE [ANSWER_URL REDIS_URL]]`, with the password in BARE_PASSWORD; TYPE is
the bridges' type. It prints one line per member who entered, with the time. With the last two arguments it also makes
the requests that any application makes that fetches documents and persists its decisions. It asks for the codec and the
headers, writes, fetches, writes, and writes once more when a member has left. It ignores the contents.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections import Counter
from typing import Any

import aiohttp
import msgspec
from redis.asyncio import BlockingConnectionPool, Redis

EVENTS = ("StasisStart", "ChannelEnteredBridge", "ChannelLeftBridge")
STATE = b"x" * 3000
"""The state of a call and the changes of its conference."""


async def run(
    url: str, app: str, authorization: str, bridge_type: str, answer_url: str = "", redis_url: str = ""
) -> None:
    redis = None
    if redis_url:
        # Tasks that find no free connection wait for one, however many arrive at the same time.
        redis = Redis(connection_pool=BlockingConnectionPool.from_url(redis_url, max_connections=16, timeout=None))
    bridges: dict[str, asyncio.Task[None]] = {}
    inside: Counter[str] = Counter()
    tasks: set[asyncio.Task[None]] = set()

    async def ask(method: str, path: str, body: object = None, **query: str) -> None:
        async with http.request(method, url + path, params=query, json=body) as response:
            await response.read()
            if response.status >= 300 and response.status not in (400, 404):  # the caller has hung up already
                print(f"{method} {path}: {response.status}", file=sys.stderr)

    async def write(channel_id: str) -> None:
        if redis is not None:
            await redis.hset("state", channel_id, STATE)

    async def fetch(asked: dict[str, str]) -> None:
        async with outside.post(answer_url, data=asked) as response:
            await response.read()

    async def errands(channel: dict[str, Any]) -> None:
        question = "EVAL(${CHANNEL(audionativeformat)};${PJSIP_HEADERS(X-PH-)})"
        await ask("GET", f"/channels/{channel['id']}/variable", variable=question)
        await write(channel["id"])
        asked = {"From": channel["caller"]["number"], "To": channel["dialplan"]["exten"]}
        try:
            await fetch(asked)
        except aiohttp.ClientConnectionError:  # a kept connection was closed at the moment of its use
            await fetch(asked)
        await write(channel["id"])

    async def join(channel: dict[str, Any], bridge_id: str) -> None:
        channel_id = channel["id"]
        if answer_url:
            await errands(channel)
        bridge = bridges.get(bridge_id)
        if bridge is None:
            bridge = bridges[bridge_id] = asyncio.create_task(
                ask("POST", "/bridges", type=bridge_type, bridgeId=bridge_id)
            )
        await ask("POST", f"/channels/{channel_id}/answer")
        await bridge
        await ask("POST", f"/bridges/{bridge_id}/addChannel", channel=channel_id)

    async def leave(channel_id: str, bridge_id: str) -> None:
        await write(channel_id)
        if not inside[bridge_id]:
            bridges.pop(bridge_id, None)
            await ask("DELETE", f"/bridges/{bridge_id}")

    def ended(task: asyncio.Task[None]) -> None:
        tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            print(f"a call is lost: {task.exception()!r}", file=sys.stderr, flush=True)

    connector = aiohttp.TCPConnector(limit=17)
    session = aiohttp.ClientSession(headers={"Authorization": authorization}, connector=connector)
    outside = aiohttp.ClientSession()
    async with outside, session as http, http.ws_connect(f"{url}/events?app={app}&subscribeAll=false") as socket:
        await ask("PUT", f"/applications/{app}/eventFilter", {"allowed": [{"type": name} for name in EVENTS]})
        print("ready", flush=True)
        async for message in socket:
            event = msgspec.json.decode(message.data)
            match event["type"]:
                case "StasisStart":
                    work = join(event["channel"], event["args"][0])
                case "ChannelEnteredBridge":
                    inside[event["bridge"]["id"]] += 1
                    print(event["channel"]["caller"]["number"], time.time() * 1000, flush=True)
                    continue
                case "ChannelLeftBridge":
                    inside[event["bridge"]["id"]] -= 1
                    work = leave(event["channel"]["id"], event["bridge"]["id"])
            task = asyncio.create_task(work)
            tasks.add(task)
            task.add_done_callback(ended)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("ari_url", "app", "user"):
        parser.add_argument(name)
    parser.add_argument("more", nargs="*", metavar="TYPE ANSWER_URL REDIS_URL", default=["mixing"])
    given = parser.parse_args()
    login = aiohttp.encode_basic_auth(given.user, os.environ["BARE_PASSWORD"])
    asyncio.run(run(given.ari_url, given.app, login, *given.more))

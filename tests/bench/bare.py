"""The floor: a Stasis application that answers each call and puts it into the bridge that its argument names.

`python -m tests.bench.bare ARI_URL APP USER [TYPE]`, the password in BARE_PASSWORD, TYPE that of the bridges. Tells who
entered when, a line for each.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import Counter

import aiohttp
import msgspec

EVENTS = ("StasisStart", "ChannelEnteredBridge", "ChannelLeftBridge")


async def run(url: str, app: str, authorization: str, bridge_type: str) -> None:
    bridges: dict[str, asyncio.Task[None]] = {}
    inside: Counter[str] = Counter()
    tasks: set[asyncio.Task[None]] = set()

    async def ask(method: str, path: str, body: object = None, **query: str) -> None:
        async with http.request(method, url + path, params=query, json=body) as response:
            await response.read()
            if response.status >= 300 and response.status not in (400, 404):  # the caller is gone already
                print(f"{method} {path}: {response.status}", file=sys.stderr)

    async def join(channel_id: str, bridge_id: str) -> None:
        bridge = bridges.get(bridge_id)
        if bridge is None:
            bridge = bridges[bridge_id] = asyncio.create_task(
                ask("POST", "/bridges", type=bridge_type, bridgeId=bridge_id)
            )
        await ask("POST", f"/channels/{channel_id}/answer")
        await bridge
        await ask("POST", f"/bridges/{bridge_id}/addChannel", channel=channel_id)

    async def leave(bridge_id: str) -> None:
        if not inside[bridge_id]:
            bridges.pop(bridge_id, None)
            await ask("DELETE", f"/bridges/{bridge_id}")

    connector = aiohttp.TCPConnector(limit=17)
    session = aiohttp.ClientSession(headers={"Authorization": authorization}, connector=connector)
    async with session as http, http.ws_connect(f"{url}/events?app={app}&subscribeAll=false") as socket:
        await ask("PUT", f"/applications/{app}/eventFilter", {"allowed": [{"type": name} for name in EVENTS]})
        print("ready", flush=True)
        async for message in socket:
            event = msgspec.json.decode(message.data)
            match event["type"]:
                case "StasisStart":
                    work = join(event["channel"]["id"], event["args"][0])
                case "ChannelEnteredBridge":
                    inside[event["bridge"]["id"]] += 1
                    print(event["channel"]["caller"]["number"], time.time() * 1000, flush=True)
                    continue
                case "ChannelLeftBridge":
                    inside[event["bridge"]["id"]] -= 1
                    work = leave(event["bridge"]["id"])
            task = asyncio.create_task(work)
            tasks.add(task)
            task.add_done_callback(tasks.discard)


if __name__ == "__main__":
    url, app, user, *bridge_type = sys.argv[1:]
    login = aiohttp.encode_basic_auth(user, os.environ["BARE_PASSWORD"])
    asyncio.run(run(url, app, login, *(bridge_type or ["mixing"])))

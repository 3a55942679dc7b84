"""`ari-conf web` answers."""

import asyncio

import aiohttp
import uvicorn

from ari_conf.parts.processes import free_port
from ari_conf.web.app import app


async def get(path: str) -> tuple[int, object]:
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=free_port(), log_config=None))
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    try:
        url = f"http://127.0.0.1:{server.config.port}"
        async with aiohttp.ClientSession(url) as client, client.get(path) as response:
            return response.status, await response.json()
    finally:
        server.should_exit = True
        await serving


async def test_it_tells_a_load_balancer_that_it_is_there():
    assert await get("/healthz") == (200, {"status": "ok"})


async def test_there_is_nothing_else_yet():
    status, _ = await get("/docs")
    assert status == 404

"""Gives sounds to an Asterisk on another machine, which fetches them by HTTP and keeps them in its own cache."""

from __future__ import annotations

from aiohttp import web

from ari_conf.errors import SetupFailed
from ari_conf.media.sounds import Sounds


async def start(sounds: Sounds, host: str, port: int) -> web.AppRunner:
    """Serves until the runner is cleaned up. Raises SetupFailed if the port can't be had."""

    async def give(request: web.Request) -> web.FileResponse:
        # What stands before it is the path of `sounds_url`, which a proxy may have kept or not.
        path = sounds.served("/".join(request.match_info["name"].split("/")[-2:]))
        if path is None:
            raise web.HTTPNotFound
        return web.FileResponse(path, headers={"Content-Type": "audio/wav", "Cache-Control": "max-age=86400"})

    app = web.Application()
    app.router.add_get("/{name:.+}", give)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        raise SetupFailed(f"can't listen on {host}:{port} to give sounds out: {error.strerror}") from None
    return runner

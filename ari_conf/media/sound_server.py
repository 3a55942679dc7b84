"""HTTP server for an Asterisk on another machine, which fetches sounds from it and keeps them in its own cache."""

from __future__ import annotations

from aiohttp import web

from ari_conf.errors import SetupFailed
from ari_conf.media.sounds import SoundPreparer


async def start(sounds: SoundPreparer, host: str, port: int) -> web.AppRunner:
    """Serve sounds until the runner is cleaned up. Raises SetupFailed if the server can't listen on the port."""

    async def serve_file(request: web.Request) -> web.FileResponse:
        # The parts before the last two are the path of `sounds_url`, which a proxy may have kept or removed.
        path = sounds.file_for_request("/".join(request.match_info["name"].split("/")[-2:]))
        if path is None:
            raise web.HTTPNotFound
        return web.FileResponse(path, headers={"Content-Type": "audio/wav", "Cache-Control": "max-age=86400"})

    app = web.Application()
    app.router.add_get("/{name:.+}", serve_file)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        reason = f"{error.strerror}; correct ARI_CONF_SOUNDS_LISTEN"
        raise SetupFailed(f"can't listen on {host}:{port} to serve sounds: {reason}") from None
    return runner

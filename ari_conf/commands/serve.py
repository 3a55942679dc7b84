"""`ari-conf serve` and `ari-conf web`: the processes."""

from __future__ import annotations

import asyncio
import signal

from ari_conf import logs
from ari_conf.settings import address, settings


def serve() -> None:
    """Until SIGTERM or Ctrl-C; calls go on in Asterisk, and the next one takes them over."""
    from ari_conf import service

    async def until_signal() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await service.serve(settings(), stop=stop)

    logs.set_up(settings())
    asyncio.run(until_signal())


def web() -> None:
    import uvicorn

    host, port = address(settings().web_listen)
    logs.set_up(settings())
    # Its own logging would write a second form beside ours.
    uvicorn.run("ari_conf.web.app:app", host=host, port=port, log_config=None, access_log=False)

"""`ari-conf serve` and `ari-conf web`: the processes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import structlog

from ari_conf import logs
from ari_conf.errors import LeaseLost
from ari_conf.settings import address, settings

MOST_OF_A_HEAD = 256 * 1024
"""Bytes of a request's line and headers: a name of 10,000 characters may be 120,000, URL-encoded."""


def serve() -> None:
    """Until SIGTERM or Ctrl-C; calls go on in Asterisk, and the next one takes them over."""
    from ari_conf import service

    async def until_signal() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await service.serve(settings(), stop=stop)

    logs.set_up(settings())
    try:
        asyncio.run(until_signal())
    except LeaseLost as lost:
        structlog.get_logger().warning("beginning anew, as a standby", reason=str(lost))
        # As a new process, in which nothing of what this one had in mind can be left.
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def web() -> None:
    import uvicorn

    from ari_conf.web.app import create

    host, port = address(settings().web_listen)
    logs.set_up(settings())
    # Its own logging would write a second form beside ours.
    uvicorn.run(
        create(settings()),
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        forwarded_allow_ips=settings().trusted_proxies,
        h11_max_incomplete_event_size=MOST_OF_A_HEAD,
        timeout_graceful_shutdown=10,
    )

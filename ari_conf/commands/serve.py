"""`ari-conf serve` and `ari-conf web`: the processes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import structlog

from ari_conf import logs
from ari_conf.errors import LeaseLost, TaskEnded
from ari_conf.misspelt import unknown
from ari_conf.settings import settings


def serve() -> None:
    """Until SIGTERM or Ctrl-C; calls go on in Asterisk, and the next one takes them over."""
    from ari_conf import service

    async def until_signal() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await service.serve(settings(), stop=stop)

    logs.set_up(settings(), in_thread=True)
    _warn_of_unknown_settings()
    try:
        asyncio.run(until_signal())
    except TaskEnded as ended:
        what = "a part of this process ended, and so does the process: this is a defect of ari_conf, please report it"
        structlog.get_logger().critical(what, reason=str(ended), exc_info=ended.__cause__)
        raise
    except LeaseLost as lost:
        structlog.get_logger().warning("beginning anew, as a standby", reason=str(lost))
        logs.flush()
        # As a new process, in which nothing of what this one had in mind can be left.
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def web() -> None:
    from ari_conf.web.app import create
    from ari_conf.web.server import Server

    logs.set_up(settings(), in_thread=True)
    _warn_of_unknown_settings()
    server = Server(create(settings()), settings())
    server.run()
    if server.broken:
        sys.exit(1)


def worker(arguments: list[str]) -> None:
    """As `celery -A tasks worker`, wherever it is started: a tasks.py of somebody else's may be there."""
    from tasks import app

    app.worker_main(["worker", *arguments])


def _warn_of_unknown_settings() -> None:
    for text in unknown(os.environ):
        structlog.get_logger().warning(text)

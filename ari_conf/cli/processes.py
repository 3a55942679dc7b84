"""Processes: `ari-conf serve`, `ari-conf web` and `ari-conf worker`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import structlog

from ari_conf import settings_warnings
from ari_conf.common import state_version, systemd
from ari_conf.common.installation import WORKER_COMMAND
from ari_conf.common.version import VERSION
from ari_conf.errors import REPORT_HINT, LeaseLost, TaskEnded
from ari_conf.observability import log_setup
from ari_conf.settings import settings


def serve() -> None:
    """Run the server until SIGTERM or Ctrl-C. Calls continue in Asterisk, and the next server takes them over."""
    from ari_conf.server import composition

    async def until_signal() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        # Ready also without Asterisk or Redis, and as a standby: it waits for them as long as necessary.
        systemd.notify_ready()
        await composition.serve(settings(), stop=stop)

    _start("serve")
    try:
        asyncio.run(until_signal())
    except TaskEnded as ended:
        structlog.get_logger().critical(
            "component task ended", reason=str(ended), action="exiting", hint=REPORT_HINT, exc_info=ended.__cause__
        )
        raise
    except LeaseLost as lost:
        structlog.get_logger().warning("restarting as standby", reason=str(lost))
        log_setup.flush()
        # A new process, so that no state of this one remains.
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def web() -> None:
    from ari_conf.web.app import create
    from ari_conf.web.server import WebServer

    state_version.check_at_start(settings().redis_url.get_secret_value())
    _start("web")
    server = WebServer(create(settings()), settings())
    server.run()
    if server.broken:
        sys.exit(1)


def worker(arguments: list[str]) -> None:
    """Become the Celery worker, whatever tasks.py the working directory or PYTHONPATH contains."""
    os.execv(sys.executable, [*WORKER_COMMAND, *arguments])


def _start(process: str) -> None:
    log_setup.configure_logging(settings(), in_thread=True)
    structlog.get_logger().info("process started", process=process, version=VERSION)
    settings_warnings.log_all()

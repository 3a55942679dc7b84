"""Threads that run as long as their process. The unexpected end of a thread ends the process: systemd restarts it, and
until then another worker takes over its entries.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import structlog

from ari_conf.errors import REPORT_HINT
from ari_conf.observability import log_setup

log = structlog.get_logger()

EXIT_CODE = 1


def run(name: str, work: Callable[[], None], may_end: Callable[[], bool]) -> threading.Thread:
    """Start a supervised thread. `may_end` returns True if the thread may end now."""
    thread = threading.Thread(target=lambda: kept(name, work, may_end), name=name, daemon=True)
    thread.start()
    return thread


def kept(name: str, work: Callable[[], None], may_end: Callable[[], bool]) -> None:
    try:
        work()
    except BaseException:
        log.exception("thread raised", thread=name, hint=REPORT_HINT)
    if not may_end():
        end_process(f"the thread {name!r} has ended")


def end_process(reason: str) -> None:
    """End the process immediately, whatever its other threads do; another worker repeats their work."""
    log.critical("worker process ended", reason=reason, action="exit with status 1, to be restarted")
    log_setup.flush()
    os._exit(EXIT_CODE)

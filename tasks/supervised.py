"""Threads that run as long as their process does. The unexpected end of one ends the process: systemd starts it again,
and until then another worker takes over what it held."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import structlog

from ari_conf import logs

log = structlog.get_logger()

EXIT_CODE = 1


def run(name: str, work: Callable[[], None], may_end: Callable[[], bool]) -> threading.Thread:
    """`may_end`: whether it is all right that the thread ends now."""
    thread = threading.Thread(target=lambda: kept(name, work, may_end), name=name, daemon=True)
    thread.start()
    return thread


def kept(name: str, work: Callable[[], None], may_end: Callable[[], bool]) -> None:
    try:
        work()
    except BaseException:
        log.exception("a thread broke: this is a defect of ari_conf, please report it", thread=name)
    if not may_end():
        end_process(f"the thread {name!r} has ended")


def end_process(reason: str) -> None:
    """At once, whatever its other threads are at: that is done again by another worker."""
    log.critical("this process ends, to be started again", reason=reason)
    logs.flush()
    os._exit(EXIT_CODE)

"""Message strategy: what a worker does with a wake-up message, which is to start one of its threads and nothing else.

Celery's own strategy (`celery.worker.strategy`, `celery.app.trace`) turns each message into a request, traces and
times it, and sends events about it. A wake-up message only says that an entry is ready; the entry is in its partition.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog
from celery import Task  # type: ignore[import-untyped]
from celery.worker import state  # type: ignore[import-untyped]
from celery.worker.strategy import default  # type: ignore[import-untyped]

from ari_conf.errors import REPORT_HINT

log = structlog.get_logger()
Received = Callable[[Any, Any, Any, Any, Any], Any]


class WakeupTask(Task):  # type: ignore[misc]
    abstract = True
    Strategy = "tasks.message_strategy:strategy"


def strategy(task: Any, app: Any, consumer: Any) -> Received:
    """Return the function that handles each message for `task`; Celery calls this once per task."""
    usual = default(task, app, consumer)

    def received(message: Any, body: Any, ack: Any, reject: Any, callbacks: Any) -> None:
        if body is not None or message.headers.get("eta") or message.headers.get("expires"):
            usual(message, body, ack, reject, callbacks)
            return
        match message.payload:
            case [[*args], {**named}, _]:
                pass
            case _:
                log.error("wake-up message undecodable", task=task.name, action="discarded")
                message.ack()
                return
        state.total_count[task.name] += 1
        consumer.pool.apply_async(_run_wakeup, (task, args, named, message), callback=_nothing)

    return received


def _run_wakeup(task: Any, args: Any, named: Any, message: Any) -> None:
    try:
        task.run(*args, **named)
    except Exception:
        log.exception("task raised", task=task.name, hint=REPORT_HINT)
    finally:
        message.ack()


def _nothing(_: Any) -> None:
    pass

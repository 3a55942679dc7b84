"""What a worker does with a message of ours: one of its threads comes, and that is all.

Celery's own way (`celery.worker.strategy`, `celery.app.trace`) makes a request of each message, traces it, times it and
tells of it. Ours only say that there is something to take: what must be known of the work stands in its lane.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog
from celery import Task  # type: ignore[import-untyped]
from celery.worker import state  # type: ignore[import-untyped]
from celery.worker.strategy import default  # type: ignore[import-untyped]

log = structlog.get_logger()
Received = Callable[[Any, Any, Any, Any, Any], Any]


class Told(Task):  # type: ignore[misc]
    abstract = True
    Strategy = "tasks.received:strategy"


def strategy(task: Any, app: Any, consumer: Any) -> Received:
    """As Celery asks for it: what it is to do with each message for `task`."""
    usual = default(task, app, consumer)

    def received(message: Any, body: Any, ack: Any, reject: Any, callbacks: Any) -> None:
        if body is not None or message.headers.get("eta") or message.headers.get("expires"):
            usual(message, body, ack, reject, callbacks)
            return
        match message.payload:
            case [[*args], {**named}, _]:
                pass
            case _:
                log.error("a message of Celery's can't be read: it is thrown away", task=task.name)
                message.ack()
                return
        state.total_count[task.name] += 1
        consumer.pool.apply_async(come, (task, args, named, message), callback=_nothing)

    return received


def come(task: Any, args: Any, named: Any, message: Any) -> None:
    try:
        task.run(*args, **named)
    except Exception:
        log.exception("a task failed", task=task.name)
    finally:
        message.ack()


def _nothing(_: Any) -> None:
    pass

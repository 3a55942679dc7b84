"""The Celery application, with all settings of a worker: `celery -A tasks worker` needs nothing more.

What must not be lost is kept in partitioned queues in Redis (`ari_conf.queues.partitioned_queue`). Celery's messages
only wake workers, so nothing depends on how soon Celery notices a dead worker.
"""

from __future__ import annotations

import sys
from typing import Any

import structlog
from celery import Celery, signals  # type: ignore[import-untyped]

from ari_conf import process_priority
from ari_conf.common import redis_url
from ari_conf.common.redis_keys import CELERYS_PREFIX
from ari_conf.common.version import VERSION
from ari_conf.errors import SettingsError
from ari_conf.observability import log_setup
from ari_conf.settings import settings
from tasks import broker

QUEUES = ("callbacks", "recordings", "transcriptions")
RESERVED_THREADS = 4
"""Threads in addition to those that deliver callbacks, so that a flood of callbacks does not delay recordings."""

try:
    at = redis_url.parse(settings().broker)
except SettingsError as error:
    # Celery imports this module; without the exit it would print a traceback.
    sys.exit(f"ari-conf: {error}")
broker.patch_kombu()
app = Celery(
    "tasks",
    broker=at.shown(),
    amqp="tasks.broker:Amqp",
    task_cls="tasks.message_strategy:WakeupTask",
    include=["tasks.callbacks", "tasks.recordings", "tasks.transcriptions"],
)
app.conf.update(
    task_queues={name: {"exchange": "tasks", "routing_key": name} for name in QUEUES},
    task_default_queue="callbacks",
    task_routes={f"tasks.{name}.*": {"queue": name} for name in QUEUES},
    task_serializer="json",
    accept_content=["json"],
    task_ignore_result=True,
    # A message counts towards the prefetch limit until its task ends, so a worker whose threads are all busy prefetches
    # none.
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    worker_pool="threads",
    worker_consumer="tasks.broker:Consumer",
    worker_concurrency=settings().callback_threads + RESERVED_THREADS,
    worker_hijack_root_logger=False,
    worker_send_task_events=False,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_transport_options={
        # The address to connect to. The `broker` argument above is for display only.
        "at": at,
        "global_keyprefix": CELERYS_PREFIX,
        # A message is not kept in Redis while its task runs. A lost wake-up is issued again
        # (`partitioned_queue.WAKEUP_LOST_MS`).
        "ack_emulation": False,
        # One list per queue; kombu's default is four lists per queue, all of which it waits for.
        "priority_steps": [0],
        "socket_connect_timeout": 2,
        "socket_keepalive": True,
    },
    # A publisher must not block while the broker is unreachable; `WakeupPublisher` repeats what failed.
    task_publish_retry=False,
)


@signals.worker_init.connect  # type: ignore[untyped-decorator]
def _lower_priority(**_: Any) -> None:
    """Lower the worker's priority: live audio comes before callbacks and transcription (see `worker_nice`)."""
    process_priority.lower_priority(settings().worker_nice)


@signals.setup_logging.connect  # type: ignore[untyped-decorator]
def _configure_logging(**_: Any) -> None:
    # The same log format as the other processes. With a receiver for this signal, Celery sets up no logging of its own.
    log_setup.configure_logging(settings())
    structlog.get_logger().info("process started", process="worker", version=VERSION)

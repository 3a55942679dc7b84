"""The Celery application, with all settings of a worker: `celery -A tasks worker` needs nothing more.

The work is in partitioned queues in Redis (`ari_conf.queues.partitioned_queue`), from which a bootstep claims it
(`tasks.worker`). Each attempt at an entry is a run of a task (`tasks.entry_task`), as `celery inspect`, `celery events`
and Flower show it. Celery's broker carries only their commands and events.
"""

from __future__ import annotations

import sys
from typing import Any

import structlog
from celery import Celery, signals  # type: ignore[import-untyped]

from ari_conf import process_priority, settings_warnings
from ari_conf.common import redis_url, state_version
from ari_conf.common.redis_keys import CELERYS_PREFIX
from ari_conf.common.version import VERSION
from ari_conf.errors import SettingsError, StateVersionRefused
from ari_conf.observability import log_setup
from ari_conf.queues import queue_names
from ari_conf.settings import settings
from tasks.worker import QueueConsumers

RESERVED_THREADS = 6
"""Threads in addition to those that deliver callbacks, so that a flood of callbacks delays neither recordings
nor the history nor the removal of accounts."""

try:
    broker = redis_url.parse(settings().broker).without_secrets()  # the transport adds the password
except SettingsError as error:
    # Celery imports this module; without the exit it would print a traceback.
    sys.exit(f"ari-conf: {error}")
app = Celery(
    "tasks",
    broker=broker,
    include=["tasks.callbacks", "tasks.recordings", "tasks.transcriptions", "tasks.removals", "tasks.history"],
)
app.conf.update(
    task_queues={name: {"exchange": "tasks", "routing_key": name} for name in queue_names.ALL},
    task_routes={task: {"queue": name} for task, name in queue_names.QUEUE_BY_TASK.items()},
    task_default_queue=queue_names.CALLBACKS,
    task_serializer="json",
    accept_content=["json"],
    task_ignore_result=True,
    worker_pool="threads",
    worker_concurrency=settings().callback_threads + RESERVED_THREADS,
    worker_hijack_root_logger=False,
    broker_transport="tasks.transport:Transport",
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_transport_options={
        "global_keyprefix": CELERYS_PREFIX,
        # One channel for all events, whose name a Redis ACL can allow.
        "fanout_patterns": False,
        "socket_connect_timeout": 2,
        "socket_timeout": 5,
        "socket_keepalive": True,
    },
)
app.steps["worker"].add(QueueConsumers)


@signals.worker_init.connect  # type: ignore[untyped-decorator]
def _lower_priority(**_: Any) -> None:
    """Lower the worker's priority: live audio comes before callbacks and transcription (see `worker_nice`)."""
    process_priority.lower_priority(settings().worker_nice)


@signals.worker_init.connect  # type: ignore[untyped-decorator]
def _check_state_version(**_: Any) -> None:
    try:
        state_version.check_at_start(settings().redis_url.get_secret_value())
    except StateVersionRefused as refused:
        sys.exit(f"ari-conf: {refused}")


@signals.setup_logging.connect  # type: ignore[untyped-decorator]
def _configure_logging(**_: Any) -> None:
    # The same log format as the other processes. With a receiver for this signal, Celery sets up no logging of its own.
    log_setup.configure_logging(settings())
    structlog.get_logger().info("process started", process="worker", version=VERSION)
    settings_warnings.log_all()

"""The Celery application. `celery -A tasks worker` needs nothing more: what a worker is, stands here.

What must not be lost lies in lanes of ours in Redis (`ari_conf.lanes`); Celery's messages only say that there is
something to take. So nothing hangs on how soon Celery notices a dead worker.
"""

from __future__ import annotations

import sys
from typing import Any

from celery import Celery, signals  # type: ignore[import-untyped]

from ari_conf import logs, niceness, redis_url
from ari_conf.errors import SettingsError
from ari_conf.lanes import CELERYS_PREFIX
from ari_conf.settings import settings
from tasks import broker

QUEUES = ("callbacks", "recordings", "transcriptions")
OTHER_THREADS = 4
"""Beside those that deliver callbacks, so that a flood of them doesn't hold up recordings."""

try:
    at = redis_url.parse(settings().broker)
except SettingsError as error:
    # Celery, which imports this, would print where in our code.
    sys.exit(f"ari-conf: {error}")
broker.mend()
app = Celery(
    "tasks",
    broker=at.shown(),
    amqp="tasks.broker:Amqp",
    task_cls="tasks.received:Told",
    include=["tasks.callbacks", "tasks.recordings", "tasks.transcriptions"],
)
app.conf.update(
    task_queues={name: {"exchange": "tasks", "routing_key": name} for name in QUEUES},
    task_default_queue="callbacks",
    task_routes={f"tasks.{name}.*": {"queue": name} for name in QUEUES},
    task_serializer="json",
    accept_content=["json"],
    task_ignore_result=True,
    # A message counts against the prefetch limit until its task ends: a worker whose threads are all busy hoards none.
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    worker_pool="threads",
    worker_consumer="tasks.broker:Consumer",
    worker_concurrency=settings().callback_threads + OTHER_THREADS,
    worker_hijack_root_logger=False,
    worker_send_task_events=False,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_transport_options={
        # How to get to it. What is given as the broker above is only shown.
        "at": at,
        "global_keyprefix": CELERYS_PREFIX,
        # Nothing of a message is kept in Redis while its task runs: who is lost is told of again (`lanes.TOKEN_MS`).
        "ack_emulation": False,
        # One list for each queue, where kombu has four and waits for all of them.
        "priority_steps": [0],
        "socket_connect_timeout": 2,
        "socket_keepalive": True,
    },
    # A publisher must not hang for a broker that is gone: who asks for it asks again.
    task_publish_retry=False,
)


@signals.worker_init.connect  # type: ignore[untyped-decorator]
def _yields(**_: Any) -> None:
    """Who speaks on the phone must not wait for who is told of it, or for a transcription: see `worker_nice`."""
    niceness.yields(settings().worker_nice)


@signals.setup_logging.connect  # type: ignore[untyped-decorator]
def _logs(**_: Any) -> None:
    # As the other parts write theirs; with a receiver here Celery sets up none of its own.
    logs.set_up(settings())

"""Celery and Redis: what workers and publishers do differently from kombu 5.7 and Celery 5.7.

A received message is stored nowhere until its task ends. kombu copies each message into a hash and a sorted set and
removes it again, in two transactions. Our messages only wake a worker, and a lost wake-up is issued again
(`partitioned_queue.WAKEUP_LOST_MS`). So a broken connection leaves no messages to restore or acknowledge. Celery's
attempt to do so ends the worker: `AttributeError: 'NoneType' object has no attribute 'hostname'`, "unrecoverable".

A Redis that refuses writes (a replica after a failover; no memory, no disk) counts as unreachable: its errors become
connection errors. Celery treats them as bugs, and such a worker consumes nothing any more.

An entry of Celery's list that is not a Celery message is dropped and logged. kombu and Celery treat it as a bug, and
the worker ends. A worker that ends for another reason exits within ENDED_S, with a nonzero status. Celery waits for
its threads without a limit, and such a worker looks alive and consumes nothing.

While Redis is unreachable, a worker reconnects every second. Celery retries after 2, 4, 6 … 30 s, whatever is set:
after an outage of some minutes, callbacks would wait half a minute longer.
"""

from __future__ import annotations

import threading
from typing import Any

import redis as redis_py
import structlog
from celery.app import amqp  # type: ignore[import-untyped]
from celery.worker import consumer  # type: ignore[import-untyped]
from kombu import connection as untyped_connection
from kombu.asynchronous import get_event_loop
from kombu.exceptions import KombuError
from kombu.transport import redis as untyped
from kombu.transport import virtual

from ari_conf.common.redis_client import (
    TEMPORARY_ERRORS,
    blocking_connection,
    code_of,
    explain_error,
    supported_options,
)
from ari_conf.common.redis_url import RedisUrl
from tasks.supervised_threads import end_process

log = structlog.get_logger()
redis: Any = untyped
qos: Any = virtual.QoS
loop: Any = get_event_loop
connection: Any = untyped_connection
CONNECTED_WITH = (
    "max_connections", "socket_timeout", "socket_connect_timeout", "socket_keepalive", "socket_keepalive_options",
    "health_check_interval", "retry_on_timeout", "client_name",
)  # fmt: skip
"""The options of the channel that it passes to its connections."""
RECONNECT_INTERVAL_S = 1
ENDED_S = 20.0
"""Seconds that a worker that cannot continue has for giving back what it holds."""


def _nothing() -> None:
    pass


class QoS(qos):  # type: ignore[misc]
    """A QoS that only counts the messages whose tasks run: a worker whose threads are all busy takes no more."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._lock = threading.Lock()

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge a message, from any thread, and wake the receiving thread if it waits for room."""
        with self._lock:  # of several tasks that end at the same time, exactly one sees the queue become free
            super().ack(delivery_tag)
            was_full = self.prefetch_count and len(self._delivered) - len(self._dirty) >= self.prefetch_count - 1
        hub = loop() if was_full else None
        if hub:
            hub.call_soon(_nothing)

    def restore_unacked(self) -> None:
        if getattr(self.channel.connection, "client", None) is None:
            self._delivered.clear()
        else:
            super().restore_unacked()


class _Away:
    def read_response(self, *given: Any, **named: Any) -> Any:
        connection: Any = super()
        try:
            return connection.read_response(*given, **named)
        except redis_py.ResponseError as error:
            if code_of(error) not in TEMPORARY_ERRORS:
                raise
            connection.disconnect()
            raise redis_py.ConnectionError(explain_error(error)) from error


class Connection(_Away, redis_py.Connection):
    pass


class SecureConnection(_Away, redis_py.SSLConnection):
    pass


class Channel(redis.Channel):  # type: ignore[misc]
    connection_class = Connection
    connection_class_ssl = SecureConnection
    from_transport_options = (*redis.Channel.from_transport_options, "at")
    at: RedisUrl | None = None

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.QoS = QoS

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        """Return the parameters that every Redis client of the project uses.

        kombu verifies no certificate, has other URLs for sockets and for Sentinels, and treats a connection to the old
        primary as a bug.
        """
        if self.at is None or not _is_shown(self.connection.client, self.at):
            return dict(super()._connparams(asynchronous))  # not the application's own broker
        kind, given = blocking_connection(self.at)
        options = {name: getattr(self, name) for name in CONNECTED_WITH}
        return supported_options(kind, given | options) | {"connection_class": self._class(kind, asynchronous)}

    def _class(self, kind: Any, asynchronous: bool) -> Any:
        channel = self

        class Connection(_Away, kind):  # type: ignore[misc]
            def disconnect(self, *given: Any, **named: Any) -> None:
                super().disconnect(*given, **named)
                if asynchronous and channel._registered:
                    channel._on_connection_disconnect(self)

        return Connection

    def _subscribe(self) -> None:
        """Subscribe to the channels of `celery inspect` and similar commands by name.

        kombu subscribes by pattern, and a Redis ACL allows a pattern only if it lists exactly that pattern.
        """
        topics = [topic for queue in self.active_fanout_queues for topic in self._get_subscribe_topics(queue)]
        if topics:
            listening = self.subclient
            if listening.connection._sock is None:
                listening.connection.connect()
            self._in_listen = listening.connection
            listening.subscribe(*topics)

    def _unsubscribe_from(self, queue: str) -> None:
        listening = self.subclient
        if listening.connection and listening.connection._sock:
            listening.unsubscribe(*self._get_subscribe_topics(queue))

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)
        except (ValueError, RecursionError, KombuError) as error:
            # The connection is fine; the entry that it returned is not JSON.
            log.error("invalid celery message discarded", reason=type(error).__name__)
            return True


def _is_shown(told: Any, at: RedisUrl) -> bool:
    """Return True if kombu's connection `told` has the URL that `at.without_secrets()` returns."""
    if "://" in told.hostname:  # a form that only `RedisUrl.shown` produces
        return True
    return bool(at.hosts) and (told.hostname, told.port) == at.hosts[0] and told.virtual_host == str(at.database)


def _deliver(transport: Any, message: Any, queue: str) -> None:
    if _is_message(message):
        _usual_delivery(transport, message, queue)
    else:
        log.error("invalid celery message discarded", queue=queue)


def _is_message(message: Any) -> bool:
    """Return True if the message has every field that kombu relies on, each of the right type."""
    match message:
        case {"properties": {"delivery_tag": str(), **properties}, "body": str(), "headers": {**headers}}:
            kinds = (("delivery_info", dict), ("body_encoding", str))
            known = all(isinstance(properties.get(name), kind | None) for name, kind in kinds)
            return known and isinstance(headers.get("task"), str | None)
    return False


_usual_delivery = redis.Transport._deliver


class Consumer(consumer.Consumer):  # type: ignore[misc]
    """A consumer without gossip and mingle: workers find each other in Redis (`ari-conf lanes`).

    They need not receive each other's events, nor wait a second for them at the start. Heartbeats are sent only if
    events are wanted: `celery worker -E`.
    """

    def __init__(self, *args: Any, worker_options: dict[str, Any] | None = None, **named: Any) -> None:
        alone = {"without_gossip": True, "without_mingle": True, "without_heartbeat": not named.get("task_events")}
        super().__init__(*args, worker_options={**(worker_options or {}), **alone}, **named)

    def start(self) -> None:
        try:
            super().start()
        except Exception:
            # Celery logs the exception and stops cleanly, if it can; the timer covers the case that it cannot.
            ending = threading.Timer(ENDED_S, end_process, ("the worker could not stop",))
            ending.daemon = True
            ending.start()
            raise


class FastReconnectConnection(connection.Connection):  # type: ignore[misc]
    def _ensure_connection(self, *args: Any, **named: Any) -> Any:
        named |= {"interval_start": RECONNECT_INTERVAL_S, "interval_step": 0, "interval_max": RECONNECT_INTERVAL_S}
        return super()._ensure_connection(*args, **named)


class Amqp(amqp.AMQP):  # type: ignore[misc]
    Connection = FastReconnectConnection


def patch_kombu() -> None:
    redis.Transport.Channel = Channel
    redis.Transport._deliver = _deliver

"""How Celery's worker and its publishers stand to Redis: what kombu 5.7 and Celery 5.7 do otherwise.

A message that was received is kept nowhere until its task ends. kombu copies each into a hash and a sorted set, and
takes it out again, in two transactions; but ours only say that there is something to take, and who doesn't come is
told of again (`lanes.TOKEN_MS`). So nothing must be given back or acknowledged when the connection breaks, either,
which ends a worker of Celery's: `AttributeError: 'NoneType' object has no attribute 'hostname'`, "unrecoverable".

A Redis that takes no writes (a replica, since another is the primary now; no memory, no disk) is one that is away: its
errors are those of a connection. Celery takes them for defects, and such a worker consumes nothing any more.

What lies in Celery's list and is no message of Celery's is thrown away, which is logged: kombu and Celery take it for a
defect, and the worker ends. Should one end for another reason, it ends within ENDED_S, with an exit code that says so:
Celery waits for its threads, however long they take, and such a worker looks alive and serves nothing.

When Redis is away, a worker asks for it again after 2, 4, 6 … 30 s, whatever is set: after an outage of some minutes
callbacks would wait half a minute more. It asks each second.
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

from ari_conf.redis_client import PASSES, code_of, fitting, in_threads, why
from ari_conf.redis_url import RedisUrl
from tasks.supervised import end_process

log = structlog.get_logger()
redis: Any = untyped
qos: Any = virtual.QoS
loop: Any = get_event_loop
connection: Any = untyped_connection
CONNECTED_WITH = (
    "max_connections", "socket_timeout", "socket_connect_timeout", "socket_keepalive", "socket_keepalive_options",
    "health_check_interval", "retry_on_timeout", "client_name",
)  # fmt: skip
"""The channel's settings that are its connections'."""
AGAIN_S = 1
ENDED_S = 20.0
"""What a worker that can't go on has to give back what it holds."""


def _nothing() -> None:
    pass


class QoS(qos):  # type: ignore[misc]
    """Counts the messages whose tasks run, so that a worker whose threads are all busy takes no more."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._lock = threading.Lock()

    def ack(self, delivery_tag: str) -> None:
        """By any thread. Who waits for room, in the thread that receives, is woken."""
        with self._lock:  # of all that end at once, one sees the first room that there is
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
            if code_of(error) not in PASSES:
                raise
            connection.disconnect()
            raise redis_py.ConnectionError(why(error)) from error


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
        """As every client of ours is connected: kombu verifies no certificate, has other URLs for sockets and for
        Sentinels, and takes a connection to the old primary for a defect."""
        if self.at is None or not _is_shown(self.connection.client, self.at):
            return dict(super()._connparams(asynchronous))  # another than the application's
        kind, given = in_threads(self.at)
        options = {name: getattr(self, name) for name in CONNECTED_WITH}
        return fitting(kind, given | options) | {"connection_class": self._class(kind, asynchronous)}

    def _class(self, kind: Any, asynchronous: bool) -> Any:
        channel = self

        class Connection(_Away, kind):  # type: ignore[misc]
            def disconnect(self, *given: Any, **named: Any) -> None:
                super().disconnect(*given, **named)
                if asynchronous and channel._registered:
                    channel._on_connection_disconnect(self)

        return Connection

    def _subscribe(self) -> None:
        """To `celery inspect` and its like by their channel's name. kombu takes it for a pattern, and an ACL of Redis'
        allows a pattern only if it has that very one."""
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
            # Not of the connection: what it brought is no JSON.
            log.error("what lies in Celery's list is no message: it is thrown away", reason=type(error).__name__)
            return True


def _is_shown(told: Any, at: RedisUrl) -> bool:
    """`told`: a connection as kombu read it from a URL."""
    if "://" in told.hostname:  # as only `shown` writes it
        return True
    return bool(at.hosts) and (told.hostname, told.port) == at.hosts[0] and told.virtual_host == str(at.database)


def _deliver(transport: Any, message: Any, queue: str) -> None:
    if _is_message(message):
        _usual_delivery(transport, message, queue)
    else:
        log.error("what lies in Celery's list is no message: it is thrown away", queue=queue)


def _is_message(message: Any) -> bool:
    """With what kombu takes for granted, and of the kind that it must be."""
    match message:
        case {"properties": {"delivery_tag": str(), **properties}, "body": str(), "headers": {**headers}}:
            kinds = (("delivery_info", dict), ("body_encoding", str))
            known = all(isinstance(properties.get(name), kind | None) for name, kind in kinds)
            return known and isinstance(headers.get("task"), str | None)
    return False


_usual_delivery = redis.Transport._deliver


class Consumer(consumer.Consumer):  # type: ignore[misc]
    """Workers of ours know of each other by Redis (`ari-conf lanes`); they needn't listen to each other's events, nor
    wait a second for them when they start. Heartbeats are sent if somebody wants events: `celery worker -E`."""

    def __init__(self, *args: Any, worker_options: dict[str, Any] | None = None, **named: Any) -> None:
        alone = {"without_gossip": True, "without_mingle": True, "without_heartbeat": not named.get("task_events")}
        super().__init__(*args, worker_options={**(worker_options or {}), **alone}, **named)

    def start(self) -> None:
        try:
            super().start()
        except Exception:
            # Celery tells of it, and stops in peace; if it can.
            ending = threading.Timer(ENDED_S, end_process, ("the worker could not stop",))
            ending.daemon = True
            ending.start()
            raise


class EagerConnection(connection.Connection):  # type: ignore[misc]
    def _ensure_connection(self, *args: Any, **named: Any) -> Any:
        named |= {"interval_start": AGAIN_S, "interval_step": 0, "interval_max": AGAIN_S}
        return super()._ensure_connection(*args, **named)


class Amqp(amqp.AMQP):  # type: ignore[misc]
    Connection = EagerConnection


def mend() -> None:
    redis.Transport.Channel = Channel
    redis.Transport._deliver = _deliver

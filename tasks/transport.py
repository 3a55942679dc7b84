"""Connection of Celery to Redis, as the setting `broker_transport` names it: a transport of kombu 5.7.

It differs from kombu's own transport for Redis in four points:

- It connects as all clients of the project do: the same URLs, with verified certificates, Unix sockets and Sentinels.
- A Redis that refuses writes (a replica after a failover; no memory, no disk) counts as unreachable: Celery connects
  again. It takes other errors for defects, and the worker ends.
- It subscribes to channels by name. A Redis ACL allows a subscription by pattern only if it lists exactly that pattern.
- An entry of a queue's list that is not a Celery message is logged and discarded. Otherwise the worker ends.
"""

from __future__ import annotations

from typing import Any

import redis as redis_py
import structlog
from kombu.exceptions import KombuError
from kombu.transport import redis as untyped

from ari_conf.common import redis_url
from ari_conf.common.redis_client import (
    TEMPORARY_ERRORS,
    blocking_connection,
    code_of,
    explain_error,
    supported_options,
)
from ari_conf.common.redis_url import RedisUrl
from ari_conf.settings import settings

log = structlog.get_logger()
redis: Any = untyped
CONNECTED_WITH = (
    "max_connections", "socket_timeout", "socket_connect_timeout", "socket_keepalive", "socket_keepalive_options",
    "health_check_interval", "retry_on_timeout", "client_name",
)  # fmt: skip
"""The options of the channel that it passes to its connections."""


class Channel(redis.Channel):  # type: ignore[misc]
    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        kind, given = blocking_connection(_address(self.connection.client))
        options = {name: getattr(self, name) for name in CONNECTED_WITH}
        return supported_options(kind, given | options) | {
            "connection_class": self._connection_class(kind, asynchronous)
        }

    def _connection_class(self, kind: Any, asynchronous: bool) -> Any:
        channel = self

        class Connection(kind):  # type: ignore[misc]
            def read_response(self, *given: Any, **named: Any) -> Any:
                try:
                    return super().read_response(*given, **named)
                except redis_py.ResponseError as error:
                    if code_of(error) not in TEMPORARY_ERRORS:
                        raise
                    self.disconnect()
                    raise redis_py.ConnectionError(explain_error(error)) from error

            def disconnect(self, *given: Any, **named: Any) -> None:
                super().disconnect(*given, **named)
                if asynchronous and channel._registered:
                    channel._on_connection_disconnect(self)

        return Connection

    def _subscribe(self) -> None:
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


class Transport(redis.Transport):  # type: ignore[misc]
    Channel = Channel
    can_parse_url = True
    """The connection keeps the URL as it is."""

    def as_uri(self, uri: str, include_password: bool = False, mask: str = "**") -> str:
        return _address(self.client).without_secrets()

    def _deliver(self, message: Any, queue: str) -> None:
        if _is_message(message):
            super()._deliver(message, queue)
        else:
            log.error("invalid celery message discarded", queue=queue)


def _address(connection: Any) -> RedisUrl:
    """Return the configured address, or that of another broker, from the command line (`celery -b URL`).

    Celery knows the configured one without its password, so that no command shows that."""
    configured = redis_url.parse(settings().broker)
    return configured if connection.hostname == configured.without_secrets() else redis_url.parse(connection.hostname)


def _is_message(message: Any) -> bool:
    """Return True if the message has every field that kombu relies on, each of the right type."""
    match message:
        case {"properties": {"delivery_tag": str(), **properties}, "body": str(), "headers": {**headers}}:
            kinds = (("delivery_info", dict), ("body_encoding", str))
            known = all(isinstance(properties.get(name), kind | None) for name, kind in kinds)
            return known and isinstance(headers.get("task"), str | None)
    return False

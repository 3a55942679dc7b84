"""Mends two things of kombu 5.7 and Celery 5.7 on Redis.

When the connection breaks while a late-acknowledged task runs, the worker must not end. kombu gives back what was not
acknowledged, and later acknowledges it, through the closed connection's channel: `AttributeError: 'NoneType' object has
no attribute 'hostname'`, which Celery calls unrecoverable. Nothing can be told through that channel any more; Redis
keeps such messages and gives them out again after the visibility timeout.

When Redis is away, a worker asks for it again after 2, 4, 6 … 30 s, whatever is set: after an outage of some minutes
callbacks would wait half a minute more. It asks each second.
"""

from __future__ import annotations

from typing import Any

from celery.app import amqp  # type: ignore[import-untyped]
from kombu import connection as untyped_connection
from kombu.transport import redis as untyped
from kombu.transport import virtual

redis: Any = untyped
qos: Any = virtual.QoS
connection: Any = untyped_connection
AGAIN_S = 1


class QoS(redis.QoS):  # type: ignore[misc]
    def restore_unacked(self, client: Any = None) -> None:
        if self._gone():
            self._delivered.clear()
        else:
            super().restore_unacked(client)

    def ack(self, delivery_tag: str) -> None:
        if self._gone():
            qos.ack(self, delivery_tag)
        else:
            super().ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        if self._gone():
            qos.ack(self, delivery_tag)
        else:
            super().reject(delivery_tag, requeue)

    def _gone(self) -> bool:
        return getattr(self.channel.connection, "client", None) is None


class EagerConnection(connection.Connection):  # type: ignore[misc]
    def _ensure_connection(self, *args: Any, **named: Any) -> Any:
        named |= {"interval_start": AGAIN_S, "interval_step": 0, "interval_max": AGAIN_S}
        return super()._ensure_connection(*args, **named)


class Amqp(amqp.AMQP):  # type: ignore[misc]
    Connection = EagerConnection


def mend() -> None:
    redis.Channel.QoS = QoS

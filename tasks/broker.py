"""Mends kombu 5.7 on Redis: when the connection breaks while a late-acknowledged task runs, the worker must not end.

kombu then gives back what was not acknowledged, and later acknowledges it, through the closed connection's channel:
`AttributeError: 'NoneType' object has no attribute 'hostname'`, which Celery calls unrecoverable. Nothing can be told
through that channel any more; Redis keeps such messages and gives them out again after the visibility timeout.
"""

from __future__ import annotations

from typing import Any

from kombu.transport import redis as untyped
from kombu.transport import virtual

redis: Any = untyped
qos: Any = virtual.QoS


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


def mend() -> None:
    redis.Channel.QoS = QoS

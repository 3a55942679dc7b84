"""Corrections of Celery's behavior in `tasks.broker`."""

from __future__ import annotations

import json
import socket
import time
from base64 import b64decode
from types import SimpleNamespace
from typing import Any

import kombu.exceptions
import pytest

from tasks import broker, wakeups
from tasks.app import app
from tests.lateness import late_s
from tests.redis import RedisServer


def test_a_broker_that_is_away_is_asked_for_each_second():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        connection = app.connection_for_read(f"redis://127.0.0.1:{taken.getsockname()[1]}/0")
        waits: list[float] = []
        began = time.monotonic()
        # Celery's worker asks like this, without saying how long to wait.
        with pytest.raises(kombu.exceptions.OperationalError):
            connection.ensure_connection(lambda _error, wait: waits.append(wait), timeout=3)
    assert waits == [1.0] * len(waits)
    assert len(waits) + late_s(began) >= 3


def test_a_token_is_the_message_that_celery_would_send(redis_server: RedisServer):
    """The messages differ in their ids, and in the reply address, because no reply is sent."""
    with app.connection_for_write(redis_server.url) as connection, app.amqp.Producer(connection) as producer:
        app.send_task("tasks.callbacks.deliver", ("12-34",), producer=producer, queue="callbacks")
        letter = wakeups.template_for("callbacks", producer.channel)
        text = wakeups.render(letter, "12-34")
    [theirs] = redis_server.client.lrange("ari_conf:celery:callbacks", 0, -1)
    assert _without_ids(text) == _without_ids(theirs)
    assert wakeups.render(letter, "12-34") != text


def test_a_worker_takes_no_more_than_it_has_threads_and_keeps_nothing_in_redis(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
):
    woken: list[object] = []
    monkeypatch.setattr(broker, "loop", lambda: SimpleNamespace(call_soon=woken.append))
    with app.connection_for_read(redis_server.url) as connection:
        channel, received = connection.channel(), []
        queue, letter = app.amqp.queues["callbacks"].bind(channel), wakeups.template_for("callbacks", channel)
        consumer = app.amqp.TaskConsumer(channel, queues=[queue], on_message=received.append, prefetch_count=3)
        for n in range(5):
            redis_server.client.lpush("ari_conf:celery:callbacks", wakeups.render(letter, str(n)))
        with consumer:
            for _ in range(3):
                connection.drain_events(timeout=5)
            with pytest.raises(TimeoutError):
                connection.drain_events(timeout=0.2)
            assert [message.payload[0] for message in received] == [["0"], ["1"], ["2"]]
            assert redis_server.client.keys("unacked*") == []
            received[1].ack()
            assert len(woken) == 1, "the waiter for room was not notified"
            connection.drain_events(timeout=5)
            for message in received:
                if not message.acknowledged:
                    message.ack()
            assert len(woken) == 2, "a waiter was notified although room was there"


def _without_ids(text: str | bytes) -> dict[str, Any]:
    message = json.loads(text)
    ids = {message["headers"].pop(name) for name in ("id", "root_id")} | {message["properties"].pop("correlation_id")}
    assert len(ids) == 1 and len(ids.pop()) == 36 and len(message["properties"].pop("delivery_tag")) == 36
    for place, names in (("headers", ("argsrepr", "ignore_result")), ("properties", ("reply_to",))):
        for name in names:
            message[place].pop(name)
    return message | {"body": json.loads(b64decode(message["body"]))}

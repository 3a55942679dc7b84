"""What `tasks.broker` mends."""

from __future__ import annotations

import json
import socket
from base64 import b64decode
from typing import Any

import kombu.exceptions
import pytest

from tasks import tokens
from tasks.app import app
from tests.redis import RedisServer


def test_a_broker_that_is_away_is_asked_for_each_second():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        connection = app.connection_for_read(f"redis://127.0.0.1:{taken.getsockname()[1]}/0")
        waits: list[float] = []
        # As Celery's worker asks: without a word of how long to wait.
        with pytest.raises(kombu.exceptions.OperationalError):
            connection.ensure_connection(lambda _error, wait: waits.append(wait), timeout=3)
    assert waits == [1.0] * len(waits)
    assert len(waits) >= 3


def test_a_token_is_the_message_that_celery_would_send(redis_server: RedisServer):
    """What differs: ids, and whom to answer, since nobody is answered."""
    with app.connection_for_write(redis_server.url) as connection, app.amqp.Producer(connection) as producer:
        app.send_task("tasks.callbacks.deliver", ("12-34",), producer=producer, queue="callbacks")
        letter = tokens.letter_of("callbacks", producer.channel)
        text = tokens.text(letter, "12-34")
    [theirs] = redis_server.client.lrange("callbacks", 0, -1)
    assert _without_ids(text) == _without_ids(theirs)
    assert tokens.text(letter, "12-34") != text


def _without_ids(text: str | bytes) -> dict[str, Any]:
    message = json.loads(text)
    ids = {message["headers"].pop(name) for name in ("id", "root_id")} | {message["properties"].pop("correlation_id")}
    assert len(ids) == 1 and len(ids.pop()) == 36 and len(message["properties"].pop("delivery_tag")) == 36
    for place, names in (("headers", ("argsrepr", "ignore_result")), ("properties", ("reply_to",))):
        for name in names:
            message[place].pop(name)
    return message | {"body": json.loads(b64decode(message["body"]))}

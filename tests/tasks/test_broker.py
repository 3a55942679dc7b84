"""What `tasks.broker` mends."""

from __future__ import annotations

import socket

import kombu.exceptions
import pytest

from tasks.app import app


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

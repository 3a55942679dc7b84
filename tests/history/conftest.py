"""Fixtures of the history's tests: each kind of database, migrated and empty."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from ari_conf.history.database import HistoryDatabase
from ari_conf.settings import Settings
from tests.postgresql import PROGRAMS, PostgresServer

numbers = count()
KINDS = [
    "sqlite",
    pytest.param("postgresql", marks=pytest.mark.skipif(not PROGRAMS, reason="PostgreSQL is not installed")),
]


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    server = PostgresServer()
    server.start()
    yield server
    server.end()


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of an empty database without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/history/history.db"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.new_database(f"history{next(numbers)}")


@pytest.fixture
def database(url: str) -> Iterator[HistoryDatabase]:
    opened = open_database(url)
    opened.migrate()
    yield opened
    opened.close()


def open_database(url: str) -> HistoryDatabase:
    return HistoryDatabase(Settings(database_url=url))  # type: ignore[arg-type]

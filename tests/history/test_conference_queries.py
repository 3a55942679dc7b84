"""Tests of the list of ended conferences, and of the time limit of queries, with SQLite and PostgreSQL."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event

from ari_conf.errors import HistoryTooSlow, HistoryUnavailable
from ari_conf.history import conference_queries, queries, writer
from ari_conf.history.bounded_queries import bounded
from ari_conf.history.conference_queries import ConferenceQuery, Summary
from ari_conf.history.database import HistoryDatabase
from tests.history import samples
from tests.history.conftest import open_database
from tests.history.samples import T0
from tests.lateness import took_s
from tests.postgresql import PostgresServer

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


def found(database: HistoryDatabase, auth_id: str = "A", **query: object) -> list[Summary]:
    wanted = ConferenceQuery(**query)  # type: ignore[arg-type]
    with bounded(database) as connection:
        rows = conference_queries.list_conferences(connection, auth_id, wanted, 10, 0)
        assert conference_queries.count_conferences(connection, auth_id, wanted) == len(rows)
        return rows


def ids(summaries: list[Summary]) -> list[str]:
    return [one.conference.conference_id for one in summaries]


def test_what_belongs_to_a_conference_is_counted(database: HistoryDatabase):
    writer.write(database, samples.texts(*samples.everything()))
    other = [samples.conference(2, auth_id="B"), samples.callback(2, auth_id="B"), samples.recording(2, auth_id="B")]
    writer.write(database, samples.texts(*other, samples.problem(2, auth_id="B")))
    (own,) = found(database)
    assert own[1:] == (1, 1, 1, 0, 1)
    assert ids(found(database, "B")) == ["conf2"] and found(database, "C") == []
    with bounded(database) as connection:
        assert len(conference_queries.list_members(connection, "A", "conf1", 10, 0)) == 1
        assert [p.text for p in conference_queries.list_problems(connection, "A", "conf1")] == ["text 1"]
        assert conference_queries.list_members(connection, "B", "conf1", 10, 0) == []
        assert conference_queries.list_problems(connection, "B", "conf1") == []
        assert conference_queries.get_name(connection, "A", "conf1") == "standup"
        assert conference_queries.get_name(connection, "B", "conf1") is None


def test_the_most_members_at_the_same_time(database: HistoryDatabase):
    """1 and 2 overlap, then 2 and 3, and 4 joins when 3 leaves."""
    stays = [(0, 20), (10, 30), (25, 40), (40, 50)]
    members = [
        samples.member(number, joined_ms=T0 + joined, left_ms=T0 + left, talks=())
        for number, (joined, left) in enumerate(stays)
    ]
    writer.write(database, samples.texts(samples.conference(members=4), *members))
    assert [one.most for one in found(database)] == [2]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, ["conf2", "conf1"]),
        ({"name": "standup"}, ["conf1"]),
        ({"name": "STANDUP"}, []),
        ({"text": "STAND"}, ["conf1"]),
        ({"text": "zo"}, ["conf2"]),
        ({"text": "%"}, []),
        ({"text": "_"}, []),
        ({"text": "\\"}, []),
        ({"text": "x", "text_number": "4930"}, ["conf2"]),
        ({"number": "4930"}, ["conf2"]),
        ({"number": "100"}, ["conf2", "conf1"]),
        ({"first_ms": T0 + 60_001}, ["conf2"]),
        ({"last_ms": T0 + 60_000}, ["conf1"]),
        ({"first_ms": T0 + 60_000, "last_ms": T0 + 60_000}, ["conf1"]),
        ({"number": "4930", "last_ms": T0 + 60_000}, []),
    ],
)
def test_conditions(database: HistoryDatabase, query: dict[str, object], expected: list[str]):
    second = samples.conference(2, name="all hands", ended_ms=T0 + 90_000)
    zoe = samples.member(2, "conf2", from_="493012", caller_name="Zoë")
    writer.write(database, samples.texts(samples.conference(), samples.member(), second, zoe))
    assert ids(found(database, **query)) == expected


def test_a_query_ends_after_its_time(database: HistoryDatabase):
    began = time.monotonic()
    with pytest.raises(HistoryTooSlow, match=r"takes more than 0\.2 s"), bounded(database, 0.2) as connection:
        connection.exec_driver_sql(ENDLESS)
    assert took_s(began) < 2
    # The connection goes back to the pool, without the limit.
    with database.read() as connection:
        assert (
            connection.exec_driver_sql(ENDLESS.replace("FROM n)", "FROM n WHERE i < 100000)")).scalar_one() == 100_000
        )
    assert found(database) == []


def test_sqlite_reads_only_the_rows_of_the_conferences_of_a_page(tmp_path: Path):
    """Without statistics, SQLite would rather read all rows of an account than look at an account's name again."""
    database = open_database(f"sqlite:///{tmp_path}/history.db")
    database.migrate()
    plans = list[str]()

    @event.listens_for(database.engine, "before_cursor_execute")
    def explain(connection: Connection, _: Any, statement: str, parameters: Any, *__: Any) -> None:
        if statement.startswith("SELECT"):
            driver: Any = connection.connection.driver_connection
            plans.extend(row[3] for row in driver.execute(f"EXPLAIN QUERY PLAN {statement}", parameters))

    writer.write(database, samples.texts(*samples.everything()))
    assert len(found(database, text="stand")) == 1
    with bounded(database) as connection:
        queries.get_conference(connection, "A", "conf1")
        queries.conferences_of_calls(connection, "A", ["call1"])
        conference_queries.list_members(connection, "A", "conf1", 10, 0)
        conference_queries.list_problems(connection, "A", "conf1")
    read = [plan for plan in plans if plan.startswith(("SEARCH", "SCAN"))]
    assert len(read) > 15
    for plan in read:
        if plan.split()[1] in ("memberships", "talks", "problems", "recordings", "callbacks"):
            assert re.search(r"\((auth_id=\? AND )?(conference_id|call_uuid)=\?", plan), plan


def test_a_server_that_stops_and_returns(postgres: PostgresServer):
    database = open_database(postgres.new_database("stops"))
    database.migrate()
    assert found(database) == []
    postgres.stop()
    try:
        began = time.monotonic()
        with pytest.raises(HistoryUnavailable) as refused:
            found(database)
        assert took_s(began) < 5 and not isinstance(refused.value, HistoryTooSlow)
    finally:
        postgres.start()
    with bounded(database) as connection:
        assert queries.list_calls(connection, "A").total == 0
    database.close()

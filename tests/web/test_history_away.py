"""Tests of a history whose database is away, slow or not set up: its routes say so, and what lives goes on."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ari_conf.errors import HistoryTooSlow
from ari_conf.history import bounded_queries, queries
from ari_conf.history import database as databases
from ari_conf.history.database import HistoryDatabase
from ari_conf.settings import from_environment
from ari_conf.web import history_reader
from tests.lateness import took_s
from tests.web.conftest import Api, Owner, Served, account
from tests.web.past import Past
from tests.web.test_event_stream import eventually

PATHS = (
    "Call/",
    "Call/u1/",
    "ConferenceHistory/",
    "ConferenceHistory/c1/",
    "ConferenceHistory/?format=csv",
    "ConferenceHistory/c1/?format=csv",
)
SENTENCE = "the history is temporarily unavailable, live conferences are not affected: try again later"


@pytest.fixture
def silent() -> Iterator[int]:
    """Yield the port of a server that takes connections, and never answers."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield int(server.getsockname()[1])


def lives_on(api: Api, owner: Owner) -> None:
    owner.joins("ann")
    began = time.monotonic()
    assert api.get("Conference/standup/").json["conference_member_count"] == "1"
    assert api.post("Conference/standup/Member/all/Mute/").status == 202
    assert took_s(began) < 2


class TestNoServer:
    @pytest.fixture
    def variables(self) -> dict[str, str]:
        return {"ARI_CONF_DATABASE_URL": "postgresql://ann:secret@127.0.0.1:1/history"}

    @pytest.mark.parametrize("path", PATHS)
    def test_it_is_a_503(self, api: Api, path: str):
        response = api.get(path)
        assert (response.status, response.json["error"]) == (503, SENTENCE)
        assert response.headers["Retry-After"] and b"secret" not in response.text and b"127.0.0.1" not in response.text

    def test_what_lives_goes_on(self, api: Api, owner: Owner):
        assert api.get("Call/").status == 503
        lives_on(api, owner)

    def test_the_result_that_is_sent_to_a_callback_url_says_so(self, api: Api, owner: Owner):
        assert api.get("Call/?callback_url=http://127.0.0.1:1/").status == 202
        eventually(lambda: list(owner.redis.scan_iter("ari_conf:callbacks:partition:*")))
        (key,) = owner.redis.scan_iter("ari_conf:callbacks:partition:*")
        (entry,) = owner.redis.lrange(key, 0, -1)
        assert b"503" in entry and SENTENCE.encode() in entry


class TestAServerThatDoesNotAnswer:
    @pytest.fixture
    def variables(self, silent: int) -> dict[str, str]:
        return {"ARI_CONF_DATABASE_URL": f"postgresql://ann:secret@127.0.0.1:{silent}/history"}

    def test_only_the_history_waits(self, api: Api, owner: Owner):
        with ThreadPoolExecutor(8) as threads:
            asked = [threads.submit(api.get, "ConferenceHistory/") for _ in range(4)]
            lives_on(api, owner)
            assert {one.result().status for one in asked} == {503}


class TestAFileThatCanNotBeMade:
    @pytest.fixture
    def variables(self, tmp_path: Path) -> dict[str, str]:
        (tmp_path / "file").write_text("")
        return {"ARI_CONF_DATABASE_URL": f"sqlite:///{tmp_path}/file/history.db"}

    @pytest.mark.parametrize("path", PATHS)
    def test_it_is_a_503(self, api: Api, owner: Owner, path: str):
        response = api.get(path)
        assert (response.status, response.json["error"]) == (503, SENTENCE)
        lives_on(api, owner)


def test_a_new_system_has_an_empty_history(api: Api, served: Served):
    assert api.get("Call/").json["objects"] == api.get("ConferenceHistory/").json["objects"] == []
    Past(served.settings).call("u1")
    assert api.get("Call/").json["meta"]["total_count"] == 1


def test_tables_of_an_older_release(api: Api, served: Served, monkeypatch: pytest.MonkeyPatch):
    """As soon as a worker has migrated them, the same process reads them."""
    Past(served.settings).call("u1")
    monkeypatch.setattr(databases, "head_revision", lambda: "of the next release")
    response = api.get("Call/")
    assert (response.status, response.json["error"]) == (503, SENTENCE)
    monkeypatch.undo()
    assert api.get("Call/").json["meta"]["total_count"] == 1


def test_a_slow_query_ends(api: Api, served: Served, monkeypatch: pytest.MonkeyPatch):
    past = Past(served.settings)
    for number in range(300):
        past.call(f"u{number}")
    monkeypatch.setattr(bounded_queries, "SQLITE_STEPS", 1)
    monkeypatch.setattr(history_reader, "QUERY_S", 0.0)
    response = api.get("Call/?from_number=9")
    assert response.status == 400
    assert "narrow its range of time, or use fewer filters" in response.json["error"]
    # The connection is used again, without the limit.
    monkeypatch.undo()
    assert api.get("Call/?from_number=1415").json["meta"]["total_count"] == 300


def test_the_limit_stops_sqlite(tmp_path: Path):
    database = HistoryDatabase(from_environment({"ARI_CONF_DATABASE_URL": f"sqlite:///{tmp_path}/history.db"}))
    database.migrate()
    began = time.monotonic()
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    with pytest.raises(HistoryTooSlow), bounded_queries.bounded(database, 0.2) as connection:
        connection.exec_driver_sql(endless)
    assert took_s(began) < 2
    with bounded_queries.bounded(database) as connection:
        assert queries.list_calls(connection, "A").total == 0


def test_an_account_with_slow_queries_delays_no_other(api: Api, served: Served, monkeypatch: pytest.MonkeyPatch):
    past = Past(served.settings)
    past.call("u1", auth_id="B")
    other = account(served, "B")
    hangs, under_way = threading.Event(), list[str]()
    list_calls = queries.list_calls

    def slow(connection: Any, auth_id: str, *more: Any) -> Any:
        under_way.append(auth_id)
        if auth_id == "A":
            hangs.wait(60)
        return list_calls(connection, auth_id, *more)

    monkeypatch.setattr(queries, "list_calls", slow)
    with ThreadPoolExecutor(20) as threads:
        asked = [threads.submit(api.get, "Call/") for _ in range(20)]
        try:
            eventually(lambda: len(under_way) == 2)
            assert other.get("Call/").json["meta"]["total_count"] == 1
            assert api.get("Conference/").status == api.get("Problem/").status == 200
            assert under_way.count("A") == 2
        finally:
            hangs.set()
        assert {one.result().status for one in asked} == {200}

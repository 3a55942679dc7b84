"""One system for all scenarios; an account, a receiver and an end without remains for each."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import pytest
import pytest_asyncio
from redis import Redis

from ari_conf.up import System
from tests.integration import table
from tests.integration.receiver import Receiver
from tests.integration.stage import Stage, ari_of

ROWS = pytest.StashKey[dict[str, table.Row]]()
ASTERISK = pytest.StashKey[str]()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def system(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> AsyncGenerator[System]:
    folder: Path = tmp_path_factory.mktemp("system")
    async with System(folder, {"ARI_CONF_ALLOWED_NETWORKS": "127.0.0.0/8"}) as system:
        ari = ari_of(system)
        await ari.start()
        request.config.stash[ASTERISK] = f"Asterisk {(await ari.request('GET', '/asterisk/info'))['system']['version']}"
        await ari.close()
        yield system


@pytest_asyncio.fixture(loop_scope="session")
async def stage(system: System, request: pytest.FixtureRequest) -> AsyncGenerator[Stage]:
    redis = Redis.from_url(system.settings.redis_url.get_secret_value())
    ari = ari_of(system)
    await ari.start()
    try:
        async with Receiver() as receiver:
            stage = Stage(system, receiver, redis, ari)
            request.node.stash[SEEN] = stage.seen
            yield stage
            await stage.nothing_left()
            receiver.all_signed()
    finally:
        await ari.close()
        redis.close()


@pytest_asyncio.fixture(loop_scope="session")
async def own(tmp_path: Path) -> AsyncGenerator[Stage]:
    """A system that may be killed."""
    parts = ("redis", "asterisk", "worker", "serve")
    async with System(tmp_path, {"ARI_CONF_ALLOWED_NETWORKS": "127.0.0.0/8"}, parts) as system, Receiver() as receiver:
        redis = Redis.from_url(system.settings.redis_url.get_secret_value())
        ari = ari_of(system)
        await ari.start()
        stage = Stage(system, receiver, redis, ari)
        yield stage
        await stage.nothing_left()
        receiver.all_signed()
        await ari.close()
        redis.close()


SEEN = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "row(name, promise): the row of docs/conformance.md that this scenario proves")
    config.stash[ROWS] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    mark = item.get_closest_marker("row")
    rows = item.config.stash[ROWS]
    if mark is not None:
        # What is left after a scenario is told by its teardown: it is part of the row.
        earlier = rows.get(item.nodeid)
        passed = report.passed and (earlier is None or earlier.passed)
        rows[item.nodeid] = table.Row(*mark.args, tuple(item.stash.get(SEEN, [])), passed)
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    path = os.environ.get("CONFORMANCE_TABLE")
    rows = session.config.stash[ROWS]
    if path and rows:
        table.write(Path(path), list(rows.values()), session.config.stash.get(ASTERISK, "no Asterisk"))

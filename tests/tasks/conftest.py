"""Fixtures for a worker that stores recordings: S3, Asterisk, Redis."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ari_conf.local.asterisk import LocalAsterisk, find, running
from tests.redis import RedisServer
from tests.tasks.store_stage import S3Server, StoreStage


@pytest.fixture(scope="module")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    server = S3Server(tmp_path_factory.mktemp("s3"))
    yield server
    server.end()


@pytest.fixture(scope="module")
def asterisk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAsterisk]:
    with running(LocalAsterisk(tmp_path_factory.mktemp("asterisk"), find(), outbound=False)) as started:
        yield started


@pytest.fixture
def stage(
    redis_server: RedisServer, s3_server: S3Server, asterisk: LocalAsterisk, tmp_path: Path
) -> Iterator[StoreStage]:
    stage = StoreStage(redis_server, s3_server, asterisk, tmp_path)
    yield stage
    stage.end()

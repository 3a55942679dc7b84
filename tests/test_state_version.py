"""The version of the state in Redis, as each process and each command meets it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from redis import Redis

from ari_conf.common import state_version
from ari_conf.common.redis_keys import STATE_VERSION_KEY
from ari_conf.common.state_version import VERSION
from ari_conf.errors import StateVersionRefused
from ari_conf.local.processes import free_port
from ari_conf.ownership.lease import owner_key
from ari_conf.store import accounts
from tests.lateness import Patience
from tests.redis import RedisServer

NEWER = (
    f"the state in Redis has version {VERSION + 1}, which a newer ari_conf has written, and this one needs version "
    f"{VERSION}: upgrade this process"
)
PROCESSES = (["serve"], ["web"], ["worker"])
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(redis_server: RedisServer, tmp_path: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []
    given = {
        "ARI_CONF_REDIS_URL": redis_server.url,
        "ARI_CONF_ASTERISK_NAME": "pbx",
        "ARI_CONF_ARI_URL": "http://127.0.0.1:1/ari",
        "ARI_CONF_SOUNDS_FOLDER": str(tmp_path / "sounds"),
        "ARI_CONF_METRICS_LISTEN": "",
        "PYTHONPATH": str(Path.cwd()),
    }

    def started_process(*words: str, **more: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "ari_conf", *words]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        started.append(subprocess.Popen(command, env=os.environ | given | more, text=True, **pipes))  # type: ignore[call-overload]
        return started[-1]

    yield started_process
    for each in started:
        if each.poll() is None:
            each.kill()
        each.communicate()


def until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    patience = Patience(30)
    while not condition():
        assert process.poll() is None and not patience.over
        time.sleep(0.05)


def refusal(process: subprocess.Popen[str]) -> str:
    """Return the last line of a process, which must fail; and check that there is no traceback."""
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1, said
    assert "Traceback" not in said
    return said.splitlines()[-1]


@pytest.mark.parametrize("words", PROCESSES, ids=" ".join)
def test_a_process_refuses_newer_state_with_a_sentence(start: Start, redis_server: RedisServer, words: list[str]):
    redis_server.client.set(STATE_VERSION_KEY, VERSION + 1)
    assert refusal(start(*words)) == f"ari-conf: {NEWER}"
    assert redis_server.client.keys() == [STATE_VERSION_KEY.encode()], "it has written nothing"


@pytest.mark.parametrize("words", [*PROCESSES, ["account", "add"]], ids=" ".join)
def test_without_a_migration_older_state_is_refused_as_well(start: Start, redis_server: RedisServer, words: list[str]):
    redis_server.client.set(STATE_VERSION_KEY, VERSION - 1)
    assert f"version {VERSION - 1}, and this ari_conf needs version {VERSION}" in refusal(start(*words))
    assert redis_server.client.keys() == [STATE_VERSION_KEY.encode()]


@pytest.mark.parametrize(
    "words",
    [
        ["account", "add", "MA1"],
        ["account", "set", "MA1", "--answer-url", "http://a.example/"],
        ["account", "remove", "MA1"],
        ["dead-letters", "resend", "MA1"],
        ["recordings", "retry"],
        ["lanes"],
    ],
    ids=" ".join,
)
def test_a_command_refuses_newer_state_with_a_sentence(start: Start, redis_server: RedisServer, words: list[str]):
    redis_server.client.set(STATE_VERSION_KEY, VERSION + 1)
    assert refusal(start(*words)) == f"ari-conf: {NEWER}"
    assert redis_server.client.keys() == [STATE_VERSION_KEY.encode()]


@pytest.mark.parametrize("words", PROCESSES, ids=" ".join)
def test_the_first_process_writes_the_version(start: Start, redis_server: RedisServer, words: list[str]):
    process = start(*words, ARI_CONF_WEB_LISTEN=f"127.0.0.1:{free_port()}")
    until(lambda: redis_server.client.get(STATE_VERSION_KEY) == str(VERSION).encode(), process)


def answers(port: int) -> bool:
    with suppress(OSError):
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5).status == 200
    return False


def test_web_starts_without_redis_and_refuses_newer_state_later(start: Start, redis_server: RedisServer):
    redis_server.client.set(STATE_VERSION_KEY, VERSION + 1)
    redis_server.stop()
    port = free_port()
    process = start("web", ARI_CONF_WEB_LISTEN=f"127.0.0.1:{port}")
    until(lambda: answers(port), process)
    redis_server.start()
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "state version refused" in said and NEWER in said


def test_a_worker_starts_without_redis_and_refuses_newer_state_later(start: Start, redis_server: RedisServer):
    redis_server.client.set(STATE_VERSION_KEY, VERSION + 1)
    redis_server.stop()
    process = start("worker")
    assert process.stdout is not None
    said = ""
    while "wake-ups not available" not in said:
        said = process.stdout.readline()
        assert said, "it has ended"
    redis_server.start()
    assert NEWER in refusal(process)
    assert redis_server.client.keys("ari_conf:callbacks:*") == []


def test_a_server_starts_without_redis_and_refuses_newer_state_later(start: Start, redis_server: RedisServer):
    redis_server.client.set(STATE_VERSION_KEY, VERSION + 1)
    redis_server.stop()
    process = start("serve")
    assert process.stdout is not None
    while "redis unavailable at startup" not in (said := process.stdout.readline()):
        assert said, "it has ended"
    redis_server.start()
    assert refusal(process) == f"ari-conf: {NEWER}"
    assert redis_server.client.get(owner_key("pbx")) is None


def test_invalid_version_is_refused(redis_server: RedisServer):
    client = redis_server.client
    for damaged in ("", "one", "-1", "٣", "1.0"):
        client.set(STATE_VERSION_KEY, damaged)
        with pytest.raises(StateVersionRefused, match=f"contains {re.escape(repr(damaged))}, instead of a number"):
            state_version.check(client)
        assert client.get(STATE_VERSION_KEY) == damaged.encode(), "it is not overwritten"
    client.delete(STATE_VERSION_KEY)
    client.rpush(STATE_VERSION_KEY, VERSION)
    with pytest.raises(StateVersionRefused, match="another type"):
        state_version.check(client)


def test_of_two_first_processes_one_writes_the_version(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch):
    """Another one, which is newer, writes its number while this one is about to."""
    client = Redis.from_url(redis_server.url)
    write = client.set

    def late(*given: object, **more: object) -> object:
        redis_server.client.set(STATE_VERSION_KEY, VERSION + 1)
        return write(*given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(client, "set", late)
    with pytest.raises(StateVersionRefused, match="newer"):
        state_version.check(client)
    assert redis_server.client.get(STATE_VERSION_KEY) == str(VERSION + 1).encode()


def test_the_state_of_this_version_is_read(redis_server: RedisServer):
    assert state_version.read(redis_server.client) is None
    state_version.check(redis_server.client)
    accounts.add(redis_server.client, 1, "MA1")
    state_version.check(redis_server.client)
    assert state_version.read(redis_server.client) == VERSION

"""Tests of the meaning of Redis' errors, and of clients that find the primary and can be canceled."""

from __future__ import annotations

import asyncio

import pytest
import redis
from redis import exceptions

from ari_conf.common.redis_client import TEMPORARY_ERRORS, code_of, explain_error, is_refused
from ari_conf.store import state_store
from tests.redis import RedisServer


@pytest.mark.parametrize("error", [
    exceptions.ConnectionError("refused"), exceptions.TimeoutError("late"), OSError("unreachable"),
    exceptions.BusyLoadingError("Redis is loading", status_code="LOADING"),
    exceptions.ReadOnlyError("You can't write against a read only replica.", status_code="READONLY"),
    exceptions.OutOfMemoryError("command not allowed", status_code="OOM"),
    exceptions.AuthenticationError("Authentication required.", status_code="NOAUTH"),
    exceptions.ResponseError("MISCONF Errors writing to the AOF file: No space left on device"),
    exceptions.ResponseError("BUSY Redis is busy running a script."),
    exceptions.ResponseError("NOREPLICAS Not enough good replicas to write."),
    exceptions.ResponseError("UNBLOCKED force unblock from blocking operation"),
    exceptions.ResponseError("ERR Error running script (call to f_1): @user_script:5: -OOM command not allowed when"),
    exceptions.ResponseError("ERR Error running script (call to f_1): @user_script:5: -READONLY You can't write"),
], ids=str)  # fmt: skip
def test_temporary_errors_are_no_refusal(error: Exception) -> None:
    assert not is_refused(error)


@pytest.mark.parametrize("error", [
    exceptions.ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value script: f_1"),
    exceptions.ResponseError("ERR Error running script (call to f_1): @user_script:5: -WRONGTYPE Operation against"),
    exceptions.ResponseError("ERR user_script:9: attempt to get length of a boolean value"),
    exceptions.ResponseError("ERR unknown command 'PUBLISH'"),
], ids=str)  # fmt: skip
def test_permanent_errors_are_a_refusal(error: Exception) -> None:
    assert is_refused(error)


def test_errors_of_redis_are_explained_with_advice(redis_server: RedisServer) -> None:
    redis_server.client.config_set("maxmemory", "1")
    with pytest.raises(redis.RedisError) as full:
        redis_server.client.eval("redis.call('SET', KEYS[1], 1)", 1, "key")
    assert code_of(full.value) == "OOM" and explain_error(full.value) == TEMPORARY_ERRORS["OOM"]
    redis_server.client.config_set("maxmemory", "0")
    redis_server.client.config_set("requirepass", "secret")
    with pytest.raises(redis.RedisError) as locked:
        redis.Redis.from_url(redis_server.url).ping()
    assert explain_error(locked.value) == TEMPORARY_ERRORS["NOAUTH"]
    with pytest.raises(redis.RedisError) as wrong:
        redis.Redis.from_url(redis_server.url, password="other").ping()
    assert explain_error(wrong.value) == TEMPORARY_ERRORS["WRONGPASS"]


async def test_a_canceled_task_ends_in_any_state_of_the_connection(redis_server: RedisServer) -> None:
    async def asks() -> None:
        client = state_store.connect(redis_server.url)
        try:
            while True:
                await client.ping()
        finally:
            await client.aclose()

    for turns in range(120):
        task = asyncio.create_task(asks())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        done, _ = await asyncio.wait({task}, timeout=10)
        assert done, f"canceled after {turns} turns, the task continues"

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from ipaddress import ip_network
from pathlib import Path

import pytest

from ari_conf.errors import RequestFailed, RequestRefused
from ari_conf.http import guard
from ari_conf.http.fetch import Fetcher, Reply
from tests.http.conftest import LOOPBACK, Names
from tests.http.misbehaving import Receiver, refusing


@pytest.fixture
async def fetcher() -> AsyncIterator[Fetcher]:
    async with Fetcher(LOOPBACK) as fetcher:
        yield fetcher


async def post(fetcher: Fetcher, url: str, limit_bytes: int = 1000) -> Reply:
    return await fetcher.request("POST", url, [("CallUUID", "abc")], tokens=["token"], limit_bytes=limit_bytes)


async def test_a_reply_has_status_body_headers_and_the_url_that_answered(fetcher: Fetcher, receiver: Receiver) -> None:
    reply = await post(fetcher, receiver.url("/redirect/302//cb%3Fa=1#ct=5000"))
    assert (reply.status, reply.body, reply.headers["x-nothing"]) == (200, b"ok", "1")
    assert reply.url == receiver.url("/cb?a=1")


async def test_the_policy_of_the_fragment_holds(fetcher: Fetcher, receiver: Receiver) -> None:
    with pytest.raises(RequestFailed, match=r"status 500 \(3 tries\)"):
        await post(fetcher, receiver.url("/status/500?secret=1#rc=2&rp=5xx"))
    assert len(receiver.seen) == 3
    assert len({seen.headers["x-plivo-signature-v3-nonce"] for seen in receiver.seen}) == 3


async def test_the_message_names_the_url_without_its_query(fetcher: Fetcher, receiver: Receiver) -> None:
    with pytest.raises(RequestFailed) as failed:
        await post(fetcher, receiver.url("/status/404?secret=1#rc=2"))
    assert str(failed.value) == f"{receiver.url('/status/404')}: it answered with status 404 (1 try)"


async def test_a_refused_connection_is_retried_and_told(fetcher: Fetcher) -> None:
    with refusing() as port, pytest.raises(RequestFailed, match=r"no connection to 127.0.0.1: .*refused.* \(2 tries\)"):
        await post(fetcher, f"http://127.0.0.1:{port}/cb#tt=2000")


async def test_a_forbidden_address_is_refused_once(names: Names) -> None:
    names.answers = {"inside.test": [["127.0.0.1"]]}
    async with Fetcher() as fetcher:
        with pytest.raises(RequestRefused, match=r"http://inside\.test/cb: no request may go there"):
            await post(fetcher, "http://inside.test/cb?secret=1#rc=5&rp=all")
    assert names.asked == ["inside.test"]


async def test_tt_bounds_all_tries_together(fetcher: Fetcher, receiver: Receiver) -> None:
    started = asyncio.get_running_loop().time()
    with pytest.raises(RequestFailed, match="did not answer in time"):
        await post(fetcher, receiver.url("/late#rt=100&tt=500&rc=5"))
    assert asyncio.get_running_loop().time() - started < 2
    assert len(receiver.seen) >= 2


async def test_retry_after_beyond_tt_ends_the_tries(fetcher: Fetcher, receiver: Receiver) -> None:
    with pytest.raises(RequestFailed, match=r"status 503 \(1 try\)"):
        await post(fetcher, receiver.url("/retry-after/10#rc=5&rp=5xx&tt=5000"))


async def test_a_body_over_the_limit_is_told(fetcher: Fetcher, receiver: Receiver) -> None:
    assert len((await post(fetcher, receiver.url("/large/1000"))).body) == 1000
    for path in ("/large/1001", "/endless"):
        with pytest.raises(RequestFailed, match=r"longer than the 1000 bytes .* \(1 try\)"):
            await post(fetcher, receiver.url(path + "#rc=5&rp=all"))


async def test_an_encoded_body_is_told(fetcher: Fetcher, receiver: Receiver) -> None:
    with pytest.raises(RequestFailed, match="Content-Encoding gzip"):
        await post(fetcher, receiver.url("/gzip"))


async def test_connections_are_kept_alive_without_a_look_up(fetcher: Fetcher, receiver: Receiver, names: Names) -> None:
    names.answers = {"answer.test": [["127.0.0.1"]]}
    for _ in range(4):
        await post(fetcher, receiver.url("/ok", "answer.test"))
    assert len({seen.connection for seen in receiver.seen}) == 1
    assert names.asked == ["answer.test"]


async def test_the_last_gate_stands_by_itself(
    receiver: Receiver, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if a name came past the resolver unchecked, no socket is made for a forbidden address."""
    names.answers = {"inside.test": [["127.0.0.1"]]}
    unchecked = guard.resolve
    monkeypatch.setattr(guard, "resolve", lambda host, port, _: unchecked(host, port, LOOPBACK))
    async with Fetcher() as fetcher:
        with pytest.raises(RequestRefused):
            await post(fetcher, receiver.url("/ok", "inside.test"))
    assert receiver.seen == []


async def test_many_at_once_do_not_wait_for_a_slow_one(fetcher: Fetcher, receiver: Receiver) -> None:
    slow = [asyncio.create_task(post(fetcher, receiver.url("/late"))) for _ in range(120)]
    reply = await asyncio.wait_for(post(fetcher, receiver.url("/ok")), 5)
    assert reply.status == 200
    for task in slow:
        task.cancel()
    await asyncio.gather(*slow, return_exceptions=True)


async def test_a_file_is_written_whole_or_not_at_all(fetcher: Fetcher, receiver: Receiver, tmp_path: Path) -> None:
    path = tmp_path / "sound.mp3"
    reply = await fetcher.get_file(receiver.url("/large/3000000"), path, 10_000_000)
    assert (reply.status, reply.size, path.stat().st_size) == (200, 3_000_000, 3_000_000)
    for url in ("/large/2000000", "/truncated", "/status/404", "/endless", "/stall#rt=100&rc=0"):
        with pytest.raises(RequestFailed):
            await fetcher.get_file(receiver.url(url), path, 1_999_999)
    assert path.stat().st_size == 3_000_000
    assert [found.name for found in tmp_path.iterdir()] == ["sound.mp3"]


async def test_a_file_is_asked_for_only_if_it_changed(fetcher: Fetcher, receiver: Receiver, tmp_path: Path) -> None:
    path = tmp_path / "sound.mp3"
    first = await fetcher.get_file(receiver.url("/etag"), path, 1000)
    assert (first.status, first.etag, path.read_bytes()) == (200, '"1"', b"sound")
    path.unlink()
    again = await fetcher.get_file(receiver.url("/etag"), path, 1000, first.etag, "Sun, 06 Nov 1994 08:49:37 GMT")
    assert (again.status, again.size, again.etag) == (304, 0, '"1"')
    assert not path.exists()
    assert receiver.seen[1].headers["if-modified-since"] == "Sun, 06 Nov 1994 08:49:37 GMT"
    assert receiver.seen[0].method == "GET"
    assert "x-plivo-signature-v3" not in receiver.seen[0].headers


async def test_a_304_that_was_not_asked_for_is_a_failure(fetcher: Fetcher, receiver: Receiver, tmp_path: Path) -> None:
    with pytest.raises(RequestFailed, match="status 304"):
        await fetcher.get_file(receiver.url("/status/304"), tmp_path / "sound.mp3", 1000)


async def test_the_guard_holds_for_files(receiver: Receiver, tmp_path: Path) -> None:
    async with Fetcher((ip_network("127.0.0.2/32"),)) as fetcher:
        with pytest.raises(RequestRefused):
            await fetcher.get_file(receiver.url("/ok"), tmp_path / "sound.mp3", 1000)
    assert receiver.seen == []

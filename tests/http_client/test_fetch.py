from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from ipaddress import ip_network
from pathlib import Path

import pytest

from ari_conf.errors import RequestFailed, RequestRefused
from ari_conf.http_client import connect_async, dns_lookup, fetch, url_guard
from ari_conf.http_client.fetch import Fetcher, Response
from tests.http_client.conftest import LOOPBACK, Names
from tests.http_client.misbehaving import Receiver, refusing
from tests.lateness import took_s


@pytest.fixture
async def fetcher() -> AsyncIterator[Fetcher]:
    async with Fetcher(LOOPBACK) as fetcher:
        yield fetcher


async def post(fetcher: Fetcher, url: str, limit_bytes: int = 1000) -> Response:
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
    assert str(failed.value) == f"{receiver.url('/status/404')}: it responded with status 404 (1 try)"


async def test_a_refused_connection_is_retried_and_reported(fetcher: Fetcher) -> None:
    with refusing() as port, pytest.raises(RequestFailed, match=r"no connection to 127.0.0.1: .*refused.* \(2 tries\)"):
        await post(fetcher, f"http://127.0.0.1:{port}/cb#tt=2000")


async def test_a_forbidden_address_is_refused_once(names: Names) -> None:
    names.answers = {"inside.test": [["127.0.0.1"]]}
    async with Fetcher() as fetcher:
        with pytest.raises(RequestRefused, match=r"http://inside\.test/cb: requests to this address are not allowed"):
            await post(fetcher, "http://inside.test/cb?secret=1#rc=5&rp=all")
    assert names.asked == ["inside.test"]


async def test_tt_bounds_all_tries_together(fetcher: Fetcher, receiver: Receiver) -> None:
    started = time.monotonic()
    with pytest.raises(RequestFailed, match="did not respond in time"):
        await post(fetcher, receiver.url("/late#rt=100&tt=500&rc=5"))
    assert took_s(started) < 2
    assert len(receiver.seen) >= 2


async def test_retry_after_beyond_tt_ends_the_tries(fetcher: Fetcher, receiver: Receiver) -> None:
    with pytest.raises(RequestFailed, match=r"status 503 \(1 try\)"):
        await post(fetcher, receiver.url("/retry-after/10#rc=5&rp=5xx&tt=5000"))


async def test_a_body_over_the_limit_is_reported(fetcher: Fetcher, receiver: Receiver) -> None:
    assert len((await post(fetcher, receiver.url("/large/1000"))).body) == 1000
    for path in ("/large/1001", "/endless"):
        with pytest.raises(RequestFailed, match=r"longer than the 1000 bytes .* \(1 try\)"):
            await post(fetcher, receiver.url(path + "#rc=5&rp=all"))


async def test_of_a_body_no_more_is_read_than_is_enough(fetcher: Fetcher, receiver: Receiver) -> None:
    """This holds for an endless body too."""
    asked: list[tuple[str, int]] = []

    def enough(content_type: str, beginning: bytes) -> bool:
        asked.append((content_type, len(beginning)))
        return True

    for path, length in (("/endless", fetch.SNIFF_BYTES), ("/large/3000", fetch.SNIFF_BYTES), ("/large/10", 10)):
        reply = await fetcher.request("POST", receiver.url(path), tokens=["token"], limit_bytes=1000, enough=enough)
        assert len(reply.body) == length
    assert [length for _, length in asked] == [fetch.SNIFF_BYTES, fetch.SNIFF_BYTES, 10]
    for path in ("/large/1000", "/large/1001", "/small-chunks/200", "/small-chunks/201"):
        asked.clear()
        reply = fetcher.request("POST", receiver.url(path), tokens=["token"], limit_bytes=1000, enough=lambda *_: False)
        if path.endswith(("1001", "201")):
            with pytest.raises(RequestFailed, match="longer than the 1000 bytes"):
                await reply
        else:
            assert len((await reply).body) == 1000


async def test_an_encoded_body_is_reported(fetcher: Fetcher, receiver: Receiver) -> None:
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
    """Even if a name passed the resolver unchecked, no socket is created for a forbidden address."""
    names.answers = {"inside.test": [["127.0.0.1"]]}
    unchecked = url_guard.resolve
    monkeypatch.setattr(url_guard, "resolve", lambda host, port, _: unchecked(host, port, LOOPBACK))
    async with Fetcher() as fetcher:
        with pytest.raises(RequestRefused):
            await post(fetcher, receiver.url("/ok", "inside.test"))
    assert receiver.seen == []


SOON_S = 10.0
"""Seconds for results that are immediate, on a busy machine."""


async def asked_by(fetcher: Fetcher, account: str, url: str) -> int:
    return (await fetcher.request("POST", url, tokens=["token"], limit_bytes=1000, account=account)).status


@contextlib.asynccontextmanager
async def slow_ones(
    fetcher: Fetcher, receiver: Receiver, arrived: int, *hosts: str, many: int = 200
) -> AsyncIterator[None]:
    """Start requests of one account, that many to each host, none of which is answered; `arrived` of them are in
    progress."""
    urls = [receiver.url("/late", host) for host in hosts for _ in range(many)]
    slow = [asyncio.create_task(asked_by(fetcher, "slow", url)) for url in urls]
    async with asyncio.timeout(SOON_S):
        while len(receiver.seen) < arrived:  # noqa: ASYNC110  # the receiver is in another thread
            await asyncio.sleep(0.01)
        while len(fetcher._turns._queues["slow"]) < len(urls) - arrived:  # noqa: ASYNC110  # tasks without a signal
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    assert len(receiver.seen) == arrived, "more than the account's share"
    receiver.seen.clear()
    yield
    for task in slow:
        task.cancel()
    await asyncio.gather(*slow, return_exceptions=True)


async def test_an_account_s_slow_servers_delay_no_other_account(
    fetcher: Fetcher, receiver: Receiver, names: Names
) -> None:
    names.answers = {f"slow{n}.test": [["127.0.0.1"]] for n in range(5)}
    async with slow_ones(fetcher, receiver, fetch.MAX_PER_ACCOUNT, *names.answers):
        assert await asyncio.wait_for(asked_by(fetcher, "acme", receiver.url("/ok")), SOON_S) == 200


async def test_a_slow_server_delays_no_other_one_of_the_same_account(
    fetcher: Fetcher, receiver: Receiver, names: Names
) -> None:
    names.answers = {"slow.test": [["127.0.0.1"]]}
    async with slow_ones(fetcher, receiver, fetch.MAX_PER_RECEIVER, "slow.test"):
        assert await asyncio.wait_for(asked_by(fetcher, "slow", receiver.url("/ok")), SOON_S) == 200


async def test_a_wait_for_a_turn_is_limited_by_tt(fetcher: Fetcher, receiver: Receiver) -> None:
    async with slow_ones(fetcher, receiver, fetch.MAX_PER_RECEIVER, "127.0.0.1"):
        with pytest.raises(RequestFailed, match=r"/ok: no request was sent: 64 of the account"):
            await asked_by(fetcher, "slow", receiver.url("/ok?secret=1#tt=300"))
    assert receiver.seen == []
    assert await asked_by(fetcher, "slow", receiver.url("/ok")) == 200, "a caller that gave up must not keep a turn"


async def test_more_than_can_wait_are_refused(fetcher: Fetcher, receiver: Receiver) -> None:
    many = fetch.MAX_PER_RECEIVER + fetch.MAX_WAITING
    async with slow_ones(fetcher, receiver, fetch.MAX_PER_RECEIVER, "127.0.0.1", many=many):
        with pytest.raises(RequestFailed, match="use fewer concurrent requests"):
            await asked_by(fetcher, "slow", receiver.url("/ok"))
        assert await asked_by(fetcher, "acme", receiver.url("/ok")) == 200


async def test_names_are_looked_up_for_the_account(fetcher: Fetcher, receiver: Receiver, tmp_path: Path) -> None:
    """An account whose names hang uses only its own share of the threads, for documents as for files."""
    asked: list[str] = []

    def resolve(host: str, port: int, _: object) -> list[object]:
        raise OSError("no address")

    class Noting(connect_async.CheckedResolver):
        async def _look_up(self, host: str, port: int) -> dns_lookup.Addresses:
            asked.append(connect_async.current_account.get())
            return await super()._look_up(host, port)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(connect_async, "CheckedResolver", Noting)
        patched.setattr(url_guard, "resolve", resolve)
        with pytest.raises(RequestFailed):
            await asked_by(fetcher, "acme", "http://nowhere.test/#rc=0")
        with pytest.raises(RequestFailed):
            await fetcher.get_file("http://nowhere.test/#rc=0", tmp_path / "sound", 1000, account="other")
    assert asked == ["acme", "other"]
    assert connect_async.current_account.get() == ""


async def test_error_messages_name_no_address(fetcher: Fetcher, names: Names) -> None:
    """The owner of a name that points to an internal machine must not learn the machine's address."""
    names.answers = {"inside.test": [["127.0.0.77", "127.0.0.78"]]}
    with refusing() as port, pytest.raises(RequestFailed) as failed:
        await post(fetcher, f"http://inside.test:{port}/cb#rc=0")
    assert "inside.test" in str(failed.value) and "127.0.0" not in str(failed.value)


async def test_a_file_is_written_whole_or_not_at_all(fetcher: Fetcher, receiver: Receiver, tmp_path: Path) -> None:
    path = tmp_path / "sound.mp3"
    reply = await fetcher.get_file(receiver.url("/large/3000000"), path, 10_000_000)
    assert (reply.status, reply.size, path.stat().st_size) == (200, 3_000_000, 3_000_000)
    for url in ("/large/2000000", "/truncated", "/status/404", "/endless", "/stall#rt=100&rc=0"):
        with pytest.raises(RequestFailed):
            await fetcher.get_file(receiver.url(url), path, 1_999_999)
    assert path.stat().st_size == 3_000_000
    assert [found.name for found in tmp_path.iterdir()] == ["sound.mp3"]


async def test_a_file_is_requested_only_if_it_changed(fetcher: Fetcher, receiver: Receiver, tmp_path: Path) -> None:
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


async def test_a_304_that_was_not_requested_is_a_failure(fetcher: Fetcher, receiver: Receiver, tmp_path: Path) -> None:
    with pytest.raises(RequestFailed, match="status 304"):
        await fetcher.get_file(receiver.url("/status/304"), tmp_path / "sound.mp3", 1000)


async def test_the_guard_holds_for_files(receiver: Receiver, tmp_path: Path) -> None:
    async with Fetcher((ip_network("127.0.0.2/32"),)) as fetcher:
        with pytest.raises(RequestRefused):
            await fetcher.get_file(receiver.url("/ok"), tmp_path / "sound.mp3", 1000)
    assert receiver.seen == []

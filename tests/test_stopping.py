"""Told to stop, `serve` writes what it has decided: what Redis doesn't take in time is counted, and said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs

from ari_conf import outbox
from ari_conf.batch import Step
from ari_conf.core import effects as do
from ari_conf.core import elements as el
from ari_conf.core import events as ev
from ari_conf.core.account import Account
from ari_conf.core.gather import Gather
from ari_conf.service import Service
from ari_conf.settings import from_environment
from tests.redis import RedisServer

CALLBACKS, RECORDINGS = 5, 2


@asynccontextmanager
async def stopping(url: str, wait_s: float) -> AsyncIterator[Service]:
    """It has decided something while Redis was away."""
    given = {"REDIS_URL": url, "METRICS_LISTEN": "", "STOP_WAIT": str(wait_s), "ASTERISK_NAME": "pbx"}
    service = Service(from_environment({f"ARI_CONF_{name}": value for name, value in given.items()}))
    writing = asyncio.create_task(service._writer.run())
    for number in range(CALLBACKS):
        callback = do.PostCallback("c", "A", "http://x.example/", "POST", (("N", str(number)),))
        service._writer.put(Step(1, callbacks=[callback]), [])
    service._writer.put(Step(1, jobs=[("recordings", f"A:o:{n}", b"{}") for n in range(RECORDINGS)]), [])
    async with asyncio.timeout(30):
        while not service._writer.away:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    service._lease.state = "owner"
    try:
        yield service
    finally:
        writing.cancel()
        await service._store.close()
        await service._redis.aclose()


async def test_what_is_lost_is_said_with_its_number() -> None:
    async with stopping("redis://127.0.0.1:1/0", 0.2) as service:
        with capture_logs() as logged:
            await service._hand_over()
            service._say_what_is_lost()
    (line,) = [line for line in logged if line["log_level"] == "error" and "the rest is lost" in line["event"]]
    assert (line["callbacks"], line["recordings"]) == (CALLBACKS, RECORDINGS)
    assert "ARI_CONF_STOP_WAIT" in line["event"]


async def test_who_waits_for_longer_loses_nothing(redis_server: RedisServer) -> None:
    redis_server.kill()
    async with stopping(redis_server.url, 60) as service:
        with capture_logs() as logged:
            handing_over = asyncio.create_task(service._hand_over())
            await asyncio.sleep(2.5)  # longer than it waits if nothing is set
            await asyncio.to_thread(redis_server.start)
            await asyncio.wait_for(handing_over, 50)
            service._say_what_is_lost()
    assert not [line for line in logged if "the rest is lost" in line["event"]]
    assert outbox.totals(redis_server.client).waiting == CALLBACKS
    assert outbox.totals(redis_server.client, "recordings").waiting == RECORDINGS


# What must not wait in memory, since Asterisk tells it once.


@pytest.fixture
async def service(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Service]:
    service = Service(
        from_environment(
            {
                "ARI_CONF_REDIS_URL": "redis://127.0.0.1:1/0",
                "ARI_CONF_METRICS_LISTEN": "",
                "ARI_CONF_ASTERISK_NAME": "pbx",
            }
        )
    )
    monkeypatch.setattr(type(service._lease), "fresh", True)
    monkeypatch.setattr(service._writer, "_run", lambda effect: None)
    yield service
    await service._store.close()


def play(service: Service, name: str, *elements: el.Element) -> None:
    """`name` calls, and this is their document."""
    service._loop.receive(ev.CallArrived(name, f"call-{name}", "r", "A", "1", "2", document="http://x.example/"))
    service._loop.receive(ev.CallIdentified(f"call-{name}", Account("A"), (), False))
    service._loop.receive(ev.DocumentFetched(f"c.call-{name}.1", elements, ()))
    assert service._directory.calls[f"call-{name}"].elements


def waits_for(service: Service) -> str:
    """What the writer is about to do."""
    writer = service._writer
    return "write" if writer._wanted.is_set() else "linger" if writer._lingering is not None else "nothing"


async def test_a_digit_is_written_at_once(service: Service) -> None:
    play(service, "ann", el.GetDigits(num_digits=4, timeout=30, digit_timeout=10, action="http://x.example/"))
    for digit in "123":
        service._writer._wanted.clear()
        service._loop.receive(ev.DigitReceived("ann", digit))
        gather = service._directory.calls["call-ann"].running
        assert isinstance(gather, Gather) and gather.digits.endswith(digit)
        assert waits_for(service) == "write", "should we die now, this digit was never pressed"


async def test_who_talks_may_linger(service: Service) -> None:
    play(service, "ann", el.Conference("standup", floor_event=True))
    (conference,) = service._directory.conferences.values()
    service._loop.receive(ev.NameClaimed(conference.conference_id))
    service._loop.receive(ev.BridgeCreated(conference.conference_id))
    service._loop.receive(ev.ChannelEnteredBridge("ann", conference.conference_id))
    service._writer._wanted.clear()
    service._loop.receive(ev.TalkingStarted("ann"))
    (member,) = conference.members.values()
    assert member.talking and waits_for(service) == "linger"
    service._loop.receive(ev.DigitReceived("ann", "1"))
    assert waits_for(service) == "write"

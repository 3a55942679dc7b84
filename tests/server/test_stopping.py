"""Tests of the stop of `serve`: it writes its decisions. Those that Redis does not accept in time are counted and
logged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs

from ari_conf.core import effects as do
from ari_conf.core import elements as el
from ari_conf.core import events as ev
from ari_conf.core.account import Account
from ari_conf.core.calls.gather import Gather
from ari_conf.queues import outbox
from ari_conf.server.composition import build_server
from ari_conf.server.server import ConferenceServer
from ari_conf.settings import from_environment
from ari_conf.store.step_batch import QueuedJob, Step
from tests.redis import RedisServer

CALLBACKS, RECORDINGS = 5, 2


@asynccontextmanager
async def stopping(url: str, wait_s: float) -> AsyncIterator[ConferenceServer]:
    """The server has made a decision while Redis was unreachable."""
    given = {"REDIS_URL": url, "METRICS_LISTEN": "", "STOP_WAIT": str(wait_s), "ASTERISK_NAME": "pbx"}
    service = build_server(from_environment({f"ARI_CONF_{name}": value for name, value in given.items()}))
    writing = asyncio.create_task(service.step_writer.run())
    for number in range(CALLBACKS):
        callback = do.PostCallback("c", "A", "http://x.example/", "POST", (("N", str(number)),))
        service.step_writer.submit(Step(1, callbacks=[callback]), [])
    service.step_writer.submit(
        Step(1, jobs=[QueuedJob("recordings", f"A:o:{n}", b"{}") for n in range(RECORDINGS)]), []
    )
    async with asyncio.timeout(30):
        while not service.step_writer.redis_unavailable:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    service.lease.state = "owner"
    try:
        yield service
    finally:
        writing.cancel()
        await service.state_store.close()
        await service.redis.aclose()


async def test_lost_steps_are_logged_with_their_number() -> None:
    async with stopping("redis://127.0.0.1:1/0", 0.2) as service:
        with capture_logs() as logged:
            await service._hand_over()
            service._log_lost_steps()
    (line,) = [line for line in logged if line["log_level"] == "error" and line["event"] == "steps lost at shutdown"]
    assert (line["callbacks"], line["recordings"]) == (CALLBACKS, RECORDINGS)
    assert "ARI_CONF_STOP_WAIT" in line["hint"]


async def test_a_longer_stop_wait_loses_nothing(redis_server: RedisServer) -> None:
    redis_server.kill()
    async with stopping(redis_server.url, 60) as service:
        with capture_logs() as logged:
            handing_over = asyncio.create_task(service._hand_over())
            await asyncio.sleep(2.5)  # longer than the default wait
            await asyncio.to_thread(redis_server.start)
            await asyncio.wait_for(handing_over, 50)
            service._log_lost_steps()
    assert not [line for line in logged if line["event"] == "steps lost at shutdown"]
    assert outbox.totals(redis_server.client).waiting == CALLBACKS
    assert outbox.totals(redis_server.client, "recordings").waiting == RECORDINGS


# Events that must not wait in memory, since Asterisk sends them once.


@pytest.fixture
async def service(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ConferenceServer]:
    service = build_server(
        from_environment(
            {
                "ARI_CONF_REDIS_URL": "redis://127.0.0.1:1/0",
                "ARI_CONF_METRICS_LISTEN": "",
                "ARI_CONF_ASTERISK_NAME": "pbx",
            }
        )
    )
    monkeypatch.setattr(type(service.lease), "is_held", True)
    monkeypatch.setattr(service.step_writer, "_run_effect", lambda effect: None)
    yield service
    await service.state_store.close()


def play(service: ConferenceServer, name: str, *elements: el.Element) -> None:
    """Let `name` call and receive this document."""
    service.engine_loop.handle_event(
        ev.CallArrived(name, f"call-{name}", "r", "A", "1", "2", document="http://x.example/")
    )
    service.engine_loop.handle_event(ev.CallIdentified(f"call-{name}", Account("A"), (), False))
    service.engine_loop.handle_event(ev.DocumentFetched(f"c.call-{name}.1", elements, ()))
    assert service.engine.calls[f"call-{name}"].elements


def waits_for(service: ConferenceServer) -> str:
    """Return the writer's next action."""
    writer = service.step_writer
    return "write" if writer._write_requested.is_set() else "linger" if writer._lingering is not None else "nothing"


async def test_a_digit_is_written_at_once(service: ConferenceServer) -> None:
    play(service, "ann", el.GetDigits(num_digits=4, timeout=30, digit_timeout=10, action="http://x.example/"))
    for digit in "123":
        service.step_writer._write_requested.clear()
        service.engine_loop.handle_event(ev.DigitReceived("ann", digit))
        gather = service.engine.calls["call-ann"].running
        assert isinstance(gather, Gather) and gather.digits.endswith(digit)
        assert waits_for(service) == "write", "if the process died now, this digit would be lost"


async def test_a_talking_change_may_linger(service: ConferenceServer) -> None:
    play(service, "ann", el.Conference("standup", floor_event=True))
    (conference,) = service.engine.conferences.values()
    service.engine_loop.handle_event(ev.NameClaimed(conference.conference_id))
    service.engine_loop.handle_event(ev.BridgeCreated(conference.bridge_id))
    service.engine_loop.handle_event(ev.ChannelEnteredBridge("ann", conference.bridge_id))
    service.step_writer._write_requested.clear()
    service.engine_loop.handle_event(ev.TalkingStarted("ann"))
    (member,) = conference.members.values()
    assert member.talking and waits_for(service) == "linger"
    service.engine_loop.handle_event(ev.DigitReceived("ann", "1"))
    assert waits_for(service) == "write"


async def test_commands_wait_for_the_first_connection_to_asterisk(
    service: ConferenceServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that the previous owner left is executed, and not answered 503 a moment before."""
    monkeypatch.setattr(service.reconciler, "reconcile", lambda: asyncio.sleep(0))
    waiting = asyncio.ensure_future(service.commands._first_connection())
    await asyncio.sleep(0.01)
    assert not waiting.done()
    service.ari._sockets._handlers.connected()
    await asyncio.wait_for(waiting, 5)

"""Tests of the metrics that `serve` exports to Prometheus."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core.quality import LineFigures, LineMeasurement
from ari_conf.local.processes import free_port
from ari_conf.observability.server_metrics import ServerMetrics, serve_not_ready
from tests.core.stage import Stage, stay, waiting


class Steps:
    redis_unavailable, backlog = False, 3


class Lease:
    state, current_owner = "owner", ""


class Place:
    def __init__(self) -> None:
        self.stage = Stage()
        self.connected, self.hindered = True, ""
        self.steps = Steps()
        self.lease = Lease()
        self.serve = ServerMetrics(
            self.stage.engine, self.steps, lambda: self.connected, self.lease, lambda: self.hindered
        )

    async def get(self, path: str) -> tuple[int, str]:
        async with aiohttp.ClientSession() as client, client.get(f"http://127.0.0.1:{self.port}{path}") as response:
            return response.status, await response.text()


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    place = Place()
    place.port = free_port()
    runner = await place.serve.start("127.0.0.1", place.port)
    assert runner is not None
    yield place
    await runner.cleanup()


def values(text: str) -> dict[str, float]:
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


async def test_gauges_show_the_current_numbers(place: Place):
    place.stage.call("ann", stay())
    place.stage.call("bob", stay())
    place.serve.count_connection()
    place.serve.set_recording_bytes(5_000_000)
    status, text = await place.get("/metrics")
    found = values(text)
    assert status == 200
    assert found["ari_conf_recording_folder_bytes"] == 5_000_000
    assert (found["ari_conf_calls"], found["ari_conf_conferences"], found["ari_conf_members"]) == (2, 1, 2)
    assert (found["ari_conf_asterisk_connections_total"], found["ari_conf_asterisk_connected"]) == (1, 1)
    assert found["ari_conf_steps_waiting"] == 3


async def test_the_latency_of_a_join_but_not_of_a_wait_for_the_start(place: Place):
    stage = place.stage
    stage.call("ann", waiting())
    stage.held = {do.AddChannel}
    stage.call("bob", stay())
    stage.now += 120
    for effect in stage.waiting:
        place.serve.observe_event(ev.ChannelEnteredBridge(effect.channel_id, effect.bridge_id), stage.now)
    found = values((await place.get("/metrics"))[1])
    assert found["ari_conf_join_seconds_count"] == 1
    assert found["ari_conf_join_seconds_sum"] == pytest.approx(0.12)


async def test_ready_as_long_as_asterisk_is_there(place: Place):
    assert (await place.get("/readyz"))[0] == 200
    place.steps.redis_unavailable = True
    assert (await place.get("/readyz"))[0] == 200
    place.connected = False
    assert (await place.get("/readyz"))[0] == 503
    assert (await place.get("/healthz"))[0] == 200


async def test_round_trips_are_measured_and_failures_are_not(place: Place):
    asked = asyncio.Event()

    async def well() -> None:
        asyncio.get_running_loop().call_soon(asked.set)

    async def badly() -> Any:
        raise OSError("away")

    probing = asyncio.create_task(place.serve.probe(well, badly))
    await asked.wait()
    probing.cancel()
    found = values((await place.get("/metrics"))[1])
    assert found["ari_conf_asterisk_seconds_count"] == 1
    assert found["ari_conf_redis_seconds_count"] == 0


async def test_a_port_that_is_taken_is_no_reason_not_to_start(place: Place):
    assert await place.serve.start("127.0.0.1", place.port) is None


async def test_a_standby_is_not_ready_and_names_the_owner(place: Place):
    place.lease.state, place.lease.current_owner = "standby", "pbx1 pid 42"
    status, text = await place.get("/readyz")
    assert status == 503
    assert "pbx1 pid 42 is the owner; this process takes over when the owner ends" in text
    assert values((await place.get("/metrics"))[1])["ari_conf_owner"] == 0
    place.lease.state = "owner"
    assert values((await place.get("/metrics"))[1])["ari_conf_owner"] == 1


async def test_a_hindered_server_names_the_reason(place: Place):
    place.hindered = "another serves this Asterisk already: stop it"
    assert await place.get("/readyz") == (503, '{"hindered": "another serves this Asterisk already: stop it"}')


async def test_before_asterisk_s_name_is_known_the_process_is_alive_and_not_ready():
    port = free_port()
    async with serve_not_ready(f"127.0.0.1:{port}"), aiohttp.ClientSession() as client:
        for path, status in (("/healthz", 200), ("/readyz", 503)):
            async with client.get(f"http://127.0.0.1:{port}{path}") as answer:
                assert answer.status == status


async def test_measurements_of_lines(place: Place):
    place.stage.call("ann", stay())
    place.stage.call("bob", stay())
    _, text = await place.get("/metrics")
    assert values(text)['ari_conf_line_loss_ratio_count{direction="out"}'] == 0, "exposed from the start on"
    for name, figures in (
        ("ann", LineFigures(2.0, loss_in=5.0, jitter_in_ms=12.0)),
        ("ann", LineFigures(2.0, loss_in=5.0, jitter_in_ms=12.0)),
        ("bob", LineFigures(4.4, 0.0, 0.4, 1.0, 2.0, 80.0)),
    ):
        event = ev.LineMeasured(name, LineMeasurement(10.0, figures, figures))
        place.serve.observe_event(event, place.stage.now)
        place.stage.tell(event)
    found = values((await place.get("/metrics"))[1])
    assert found["ari_conf_bad_lines"] == 1
    assert (found["ari_conf_line_mos_count"], found['ari_conf_line_mos_bucket{le="3.1"}']) == (3, 2)
    for name, direction, total in (
        ("loss_ratio", "in", 0.1),
        ("loss_ratio", "out", 0.004),
        ("jitter_seconds", "in", 0.025),
        ("jitter_seconds", "out", 0.002),
    ):
        assert found[f'ari_conf_line_{name}_sum{{direction="{direction}"}}'] == pytest.approx(total)
    assert found["ari_conf_line_round_trip_seconds_sum"] == pytest.approx(0.08)
    place.stage.hang_up("ann")
    assert values((await place.get("/metrics"))[1])["ari_conf_bad_lines"] == 0

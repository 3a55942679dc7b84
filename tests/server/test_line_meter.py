"""Line meter: the order and rate of measurements, and their figures from Asterisk's statistics."""

from __future__ import annotations

from typing import Any

import pytest

from ari_conf.core import events as ev
from ari_conf.core.quality import LineCounters
from ari_conf.errors import AriNotFound
from ari_conf.server import line_meter, rtp_monitor
from ari_conf.server.line_meter import INTERVAL_S, MAX_MEASUREMENTS, LineMeter, Statistics, counters_of
from tests.core.stage import players
from tests.server.test_rtp_monitor import Scene


class Asterisk:
    def __init__(self) -> None:
        self.asked: list[str] = []

    async def request(self, method: str, path: str, query: Any = None, **_: Any) -> Any:
        assert (method, query) == ("GET", {"variable": "CHANNEL(audionativeformat)"})
        self.asked.append(path.split("/")[2])
        return {"value": "(gsm|ulaw)"}


class Lines:
    """A meter with lines, whose statistics the test decides."""

    def __init__(self, *names: str) -> None:
        self.ari = Asterisk()
        self.events: list[ev.Event] = []
        self.meter = LineMeter(self.ari, self.events.append)  # type: ignore[arg-type]
        self.now = 1000.0
        for name in names:
            self.meter.add(name)

    async def after(
        self, seconds: float = INTERVAL_S, conference: str | None = "c1", **statistics: Any
    ) -> list[ev.Event]:
        """Return the events of the round after `seconds`; the statistics are those of each line."""
        self.now += seconds
        before = len(self.events)
        for name in self.meter.choose(self.now):
            await self.meter.process(name, conference, Statistics(**statistics), self.now)
        return self.events[before:]


def loss_in(events: list[ev.Event]) -> float | None:
    (event,) = events
    assert isinstance(event, ev.LineMeasured)
    return event.measurement.interval.loss_in


async def test_a_line_is_measured_every_interval() -> None:
    lines = Lines("ann")
    assert await lines.after(rxcount=100) == []
    assert await lines.after(INTERVAL_S / 2, rxcount=350) == []
    (event,) = await lines.after(INTERVAL_S / 2, rxcount=600)
    assert isinstance(event, ev.LineMeasured) and event.measurement.seconds == INTERVAL_S
    assert event.measurement.current.loss_in == 0.0
    assert lines.ari.asked == ["ann"], "the codec is asked once"
    assert event.measurement.current.mos < 3.8, "of GSM"


async def test_current_figures_are_of_half_a_minute_and_an_interval_of_itself() -> None:
    lines = Lines("ann")
    found = []
    for number in range(6):
        events = await lines.after(rxcount=500 * number, rxploss=50 * (number >= 2))
        for event in events:
            assert isinstance(event, ev.LineMeasured)
            found.append((event.measurement.interval.loss_in, event.measurement.current.loss_in))
    assert found == [(0.0, 0.0), (9.1, 4.8), (0.0, 3.2), (0.0, 3.2), (0.0, 0.0)]


async def test_the_rate_is_bounded_and_all_have_their_turn() -> None:
    names = [f"m{number}" for number in range(5 * MAX_MEASUREMENTS + 1)]
    lines = Lines(*names)
    chosen: list[str] = []
    for _ in range(12):
        lines.now += 1.0
        some = lines.meter.choose(lines.now)
        assert len(some) <= MAX_MEASUREMENTS
        chosen += some
    assert chosen[: len(names)] == names
    # In the second turn, those measured longest ago come first.
    assert chosen[len(names) :] == names[: len(chosen) - len(names)]


@pytest.mark.parametrize(
    "after",
    [
        {"rxcount": 700, "rxploss": 50, "remote_ssrc": 7},
        {"rxcount": 30},
        {"rxcount": 600, "rxploss": 45_536},
        {"rxcount": 600, "conference": "c2"},
    ],
    ids=["another stream", "counters that restart", "numbers that jump", "another membership"],
)
async def test_counters_that_do_not_continue_start_over(after: dict[str, Any]) -> None:
    lines = Lines("ann")
    await lines.after(rxcount=100)
    assert await lines.after(**after) == []
    more = after | {"rxcount": after["rxcount"] + 500}
    assert loss_in(await lines.after(**more)) == 0.0


async def test_a_caller_who_is_no_member_is_not_measured() -> None:
    lines = Lines("ann")
    for number in range(3):
        assert await lines.after(rxcount=500 * number, rxploss=100 * number, conference=None) == []
    assert lines.ari.asked == []
    await lines.after(rxcount=1500, rxploss=300)
    assert loss_in(await lines.after(rxcount=2000, rxploss=300)) == 0.0, "only what is lost in the membership"


@pytest.mark.parametrize(
    ("statistics", "counters"),
    [
        ({"rxcount": 5, "rxploss": 1, "txcount": 6, "txjitter": 0.002}, (5, 1, 2.0, 6, None, None, None)),
        (
            {"rxcount": 5, "txcount": 6, "txploss": 2, "rxjitter": 0.004, "rtt": 0.03, "txmes": 87.0},
            (5, 0, 0.0, 6, 2, 4.0, 30.0),
        ),
        ({"txploss": (1 << 24) - 3, "txmes": 87.0}, (0, 0, 0.0, 0, -3, 0.0, None)),
        ({"rtt": 65_535.99, "txmes": 87.0}, (0, 0, 0.0, 0, 0, 0.0, None)),
        ({"rxjitter": 0.002, "rtt": 0.03}, (0, 0, 0.0, 0, 0, None, 30.0)),
    ],
    ids=["no reports", "reports", "more arrived than was sent", "impossible round trip", "Asterisk 20.4"],
)
def test_counters_of_statistics(statistics: dict[str, Any], counters: tuple[Any, ...]) -> None:
    assert counters_of(Statistics(**statistics), 7.0) == LineCounters(7.0, *counters)


# In the monitor.


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    scene = Scene()
    monkeypatch.setattr(rtp_monitor, "_now", lambda: scene.now)
    return scene


async def test_members_are_measured_with_the_polls_that_are_made_anyway(scene: Scene) -> None:
    players(scene.stage, "ann", "bob")
    scene.phone("ann", "bob")
    await scene.round()
    polls = len(scene.ari.looks)
    for _ in range(24):
        scene.send("ann", lost=1)
        scene.send("bob")
        await scene.round()
    assert len(scene.ari.looks) == polls + 48
    measured = [event for event in scene.reported if isinstance(event, ev.LineMeasured)]
    assert [event.channel_id for event in measured] == ["ann", "bob"]
    conference = scene.stage.conference()
    assert conference is not None
    assert [m.quality and m.quality.current.loss_in for m in conference.members.values()] == [3.8, 0.0]


async def test_a_call_that_ends_while_it_is_measured_does_not_end_the_round(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    players(scene.stage, "ann", "bob")
    scene.phone("ann", "bob")
    answered = scene.ari.request

    async def request(method: str, path: str, query: Any = None, **more: Any) -> Any:
        if query == {"variable": line_meter.CODEC_VARIABLE} and "/ann/" in path:
            raise AriNotFound("Channel not found", 404)
        return await answered(method, path, query, **more)

    monkeypatch.setattr(scene.ari, "request", request)
    await scene.round()
    await scene.round()
    assert scene.ari.looks == ["ann", "bob", "bob"]

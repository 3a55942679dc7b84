"""Tests of the order after Asterisk returns: Asterisk's state first, then new calls, then effects that are most likely
done."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core import ids
from ari_conf.core.elements import Play
from ari_conf.core.messages import Outputs
from ari_conf.errors import AriError, AriNotFound, AriUnreachable
from ari_conf.server import reconciler as comparing_module
from ari_conf.server import takeover
from ari_conf.server.reconciler import DEFERRED_BATCH, Reconciler
from tests import lateness
from tests.core.stage import Stage, stay
from tests.fakes.asterisk import Bridge

MANY = 20


@pytest.fixture
def stage() -> Stage:
    return Stage()


class Asterisk:
    """Fake of ARI, in front of the stage's Asterisk."""

    app = "conf"
    connected = True

    def __init__(self, stage: Stage) -> None:
        self._has = stage.asterisk
        self.asked: list[str] = []
        self.answers_after = 0
        """The number of requests that are not answered."""
        self.held: asyncio.Event | None = None
        """Event to wait for before the list of channels is returned, or None."""
        self.untold: list[str] = []
        """Channels that exist, but about which Asterisk cannot answer."""

    async def request(self, method: str, path: str, *, kind: Any = Any) -> Any:
        self.asked.append(f"{method} {path}")
        if self.held is not None and path == "/channels":
            await self.held.wait()
        if self.answers_after:
            self.answers_after -= 1
            raise AriUnreachable("Asterisk did not answer")
        if path.startswith(("/playbacks/", "/channels/")):
            id = path.split("/")[2]
            if id in self.untold:
                return None
            if id not in (*self._has.playbacks, *self._has.channels):
                raise AriNotFound("not found", 404)
            reported = {
                "id": id,
                "name": "PJSIP/1",
                "state": "Up",
                "dialplan": {"app_name": "Stasis", "app_data": "conf,MA1"},
            }
            return msgspec.json.decode(json.dumps(reported), type=kind)
        if path == "/channels" and self.untold:
            raise AriError("Allocation failed", 500)
        stasis = {"app_name": "Stasis", "app_data": "conf,MA1"}
        answers: dict[str, Any] = {
            "/channels": [
                {"id": c.channel_id, "state": "Up" if c.up else "Ring", "dialplan": stasis}
                for c in self._has.channels.values()
            ],
            "/bridges": [
                {"id": b.bridge_id, "name": "ari_conf", "channels": list(b.channels)}
                for b in self._has.bridges.values()
            ],
            "/applications/conf": {
                "bridge_ids": list(self._has.bridges),
                "channel_ids": [*self._has.channels, *self.untold],
            },
        }
        return msgspec.json.decode(json.dumps(answers[path]), type=kind)


class Comparison:
    """Stand-in for the service and its effect runner, which records what happens, in order."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.happened: list[Any] = []
        self.given_up: list[set[str]] = []
        self.broken: set[str] = set()
        """Channels whose effects raise."""
        self.held: list[bool] = []
        """For each event, True if timers were blocked exactly when they should be."""
        self.asterisk = Asterisk(stage)
        self.comparing = Reconciler(
            self.asterisk,  # type: ignore[arg-type]
            stage.engine,
            self,  # type: ignore[arg-type]
            deliver=self.deliver,
            on_ari_message=lambda message: self.happened.append(message["channel"]["id"]),
            replay=self.again,
            abort=lambda keys: self.given_up.append(set(keys)),
            run=self.happened.append,
            deadlines_allowed=lambda: self.happened.append("time goes on"),
            taken_over=lambda: self.happened.append("taken over"),
        )

    def deliver(self, event: ev.Event) -> None:
        self.happened.append(event)
        # Timers must not fire yet, but new callers are served once everything is known.
        self.held.append(self.comparing.blocks_timers is not isinstance(event, ev.CallArrived))

    def again(self, out: Outputs) -> None:
        if self.broken.intersection(getattr(effect, "channel_id", "") for effect in out):
            raise ZeroDivisionError
        self.happened += out
        self.held.append(self.comparing.blocks_timers)

    def is_busy(self, key: str) -> bool:
        return False

    def remove_leftovers(self, channel_ids: Iterable[str]) -> None:
        self.swept = set(channel_ids)

    def is_left_behind(self, some_id: str) -> bool:
        return ids.tap_creator(some_id) == ("conf", "dead")

    async def wait_for_channels(self, channel_ids: Iterable[str]) -> None:
        self.happened.append(f"{len(list(channel_ids))} done")

    async def compare(self) -> None:
        self.comparing.start()
        self.comparing.arrival_gate.submit(ev.CallArrived("new", "call-new", "request", "A", "+4930", "100"))
        await self.comparing.reconcile()
        assert all(self.held) and not self.comparing.blocks_timers


def muted(stage: Stage) -> list[str]:
    names = [f"caller{n}" for n in range(MANY)]
    for name in names:
        stage.call(name, stay(muted=True))
    return names


async def test_new_calls_come_before_what_is_most_likely_so_already(stage: Stage) -> None:
    names = muted(stage)
    comparison = Comparison(stage)
    await comparison.compare()
    happened = comparison.happened
    came = next(n for n, what in enumerate(happened) if isinstance(what, ev.CallArrived))
    later = [what for what in happened[came + 1 :] if isinstance(what, do.MuteChannel)]
    assert {effect.channel_id for effect in later} == set(names) and len(later) == MANY
    assert not [what for what in happened[:came] if isinstance(what, do.MuteChannel)]
    assert f"{DEFERRED_BATCH} done" in happened, "a few at a time"
    assert comparison.comparing.done.is_set()


async def test_missed_hangups_come_before_deadlines_and_arrivals(stage: Stage) -> None:
    muted(stage)
    comparison = Comparison(stage)
    del stage.asterisk.channels["caller3"]
    await comparison.compare()
    happened = comparison.happened
    assert happened.index(ev.ChannelHungUp("caller3", 0)) < happened.index("time goes on")
    assert happened.index("time goes on") < next(n for n, e in enumerate(happened) if isinstance(e, ev.CallArrived))


async def test_an_unreported_call_has_arrived(stage: Stage) -> None:
    stage.call("ann", stay())
    stage.asterisk.call("lost")
    comparison = Comparison(stage)
    await comparison.compare()
    assert "lost" in comparison.happened and "ann" not in comparison.happened


async def test_the_channels_are_requested_once(stage: Stage) -> None:
    stage.call("ann", stay())
    comparison = Comparison(stage)
    await comparison.compare()
    assert comparison.asterisk.asked.count("GET /channels") == 1
    assert comparison.swept == {"ann"}


async def test_the_second_time_nothing_is_done_again(stage: Stage) -> None:
    muted(stage)
    comparison = Comparison(stage)
    await comparison.compare()
    comparison.happened.clear()
    await comparison.compare()
    assert not [what for what in comparison.happened if isinstance(what, do.MuteChannel)]


# Timers.


async def test_no_deadline_becomes_due_before_the_first_reconciliation(stage: Stage) -> None:
    comparison = Comparison(stage)
    comparison.asterisk.held = asyncio.Event()
    assert comparison.comparing.blocks_timers
    comparing = asyncio.create_task(comparison.compare())
    await asyncio.sleep(0)
    assert comparison.comparing.blocks_timers
    comparison.asterisk.held.set()
    await comparing
    assert not comparison.comparing.blocks_timers


async def test_nor_while_it_is_looked_what_happened_while_nobody_listened(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The block is temporary: an Asterisk that sends events but does not answer must not keep calls from ending."""
    comparison = Comparison(stage)
    await comparison.compare()
    asterisk, comparing = comparison.asterisk, comparison.comparing
    asterisk.held = asyncio.Event()
    again = asyncio.create_task(comparison.compare())
    await asyncio.sleep(0)
    assert comparing.blocks_timers
    clock = asyncio.get_running_loop().time() + comparing_module.MAX_HOLD_BACK_S
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: clock)
    assert not comparing.blocks_timers
    monkeypatch.undo()
    asterisk.held.set()
    await again
    assert not comparing.blocks_timers


# Exceptions.


async def test_error_in_the_comparison_costs_one_conference_alone(stage: Stage) -> None:
    """An exception in the part of one conference or call is a bug: all others are processed, and calls come in."""
    stage.held = {do.AddChannel}
    for name in ("ann", "bob", "cid"):
        stage.call(name, stay(f"room of {name}"))
    stage.asterisk.call("lost")
    comparison = Comparison(stage)
    comparison.broken = {"bob"}
    with capture_logs() as logged:
        await comparison.compare()
    added = {effect.channel_id for effect in comparison.happened if isinstance(effect, do.AddChannel)}
    assert added == {"ann", "cid"}
    (room,) = (key for key, c in stage.engine.conferences.items() if c.name == "room of bob")
    assert comparison.given_up == [{"call-bob", room}]
    assert "lost" in comparison.happened and "time goes on" in comparison.happened
    assert comparison.comparing.done.is_set()
    assert [line for line in logged if "internal error in ari_conf" in line.get("hint", "") and line.get("ids")]
    # The effects are processed: the next connection is not a takeover.
    comparison.happened.clear()
    await comparison.compare()
    assert not [effect for effect in comparison.happened if isinstance(effect, do.AddChannel)]


async def test_error_in_the_abort_stops_nobody_else(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.held = {do.AddChannel}
    for name in ("ann", "bob"):
        stage.call(name, stay(f"room of {name}"))
    comparison = Comparison(stage)
    comparison.broken = {"bob"}

    def breaks(_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(comparison, "given_up", type("Given", (), {"append": staticmethod(breaks)})())
    with capture_logs():
        await comparison.compare()
    added = {effect.channel_id for effect in comparison.happened if isinstance(effect, do.AddChannel)}
    assert added == {"ann"} and comparison.comparing.done.is_set()


async def test_a_comparison_that_broke_whole_is_done_again_as_the_first_one(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    muted(stage)
    comparison = Comparison(stage)

    async def breaks(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch, capture_logs() as logged:
        patch.setattr(takeover, "take_snapshot", breaks)
        await comparison.compare()
    assert [line for line in logged if "internal error in ari_conf" in line.get("hint", "")]
    assert comparison.comparing.done.is_set(), "waiters must not wait forever"
    assert "taken over" not in comparison.happened
    comparison.happened.clear()
    await comparison.compare()
    assert comparison.happened.count("taken over") == 1
    assert len([what for what in comparison.happened if isinstance(what, do.MuteChannel)]) == MANY


async def test_two_connections_at_once_do_what_was_left_undone_once(stage: Stage) -> None:
    """If a channel were added twice, it would leave the bridge in between."""
    stage.held = {do.AddChannel}
    stage.call("ann", stay())
    comparison = Comparison(stage)
    comparison.asterisk.held = asyncio.Event()
    comparison.comparing.start()
    comparison.comparing.start()
    both = [asyncio.create_task(comparison.comparing.reconcile()) for _ in range(2)]
    await asyncio.sleep(0)
    comparison.asterisk.held.set()
    await asyncio.gather(*both)
    assert len([effect for effect in comparison.happened if isinstance(effect, do.AddChannel)]) == 1


# Periodic comparisons.


class Minutes:
    """The minutes after which `keep` compares."""

    def __init__(self, comparison: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
        self.comparison = comparison
        monkeypatch.setattr(comparing_module, "INTERVAL_S", 0.01)
        monkeypatch.setattr(comparing_module, "ON_THE_WAY_S", 0.01)
        comparison.happened.clear()
        comparison.asterisk.asked.clear()
        self._keeping = asyncio.create_task(comparison.comparing.run())

    async def pass_some(self, count: int = 3) -> None:
        """Wait until Asterisk has been compared that many times."""
        asked = self.comparison.asterisk.asked
        until = asked.count("GET /channels") + count
        async with lateness.timeout():
            while asked.count("GET /channels") < until:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def end(self) -> None:
        self._keeping.cancel()
        await asyncio.wait([self._keeping])


@pytest.fixture
async def compared(stage: Stage) -> Comparison:
    """Return a comparison after a conference, a call and a playback."""
    muted(stage)
    stage.call("talks", stay())
    stage.talk("talks")
    stage.call("listens", Play("song"))
    comparison = Comparison(stage)
    await comparison.compare()
    return comparison


@pytest.fixture
async def minutes(compared: Comparison, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Minutes]:
    made = Minutes(compared, monkeypatch)
    yield made
    await made.end()


def reported(comparison: Comparison) -> list[Any]:
    return [what for what in comparison.happened if what != "time goes on"]


async def test_each_minute_it_is_compared_and_nothing_is_done_where_nothing_differs(
    compared: Comparison, minutes: Minutes
) -> None:
    await minutes.pass_some(5)
    assert reported(compared) == [] and not compared.comparing.blocks_timers


async def test_a_hang_up_that_was_lost_is_found(compared: Comparison, minutes: Minutes) -> None:
    with capture_logs() as logged:
        del compared.asterisk._has.channels["caller3"]
        await minutes.pass_some()
    assert ev.ChannelHungUp("caller3", 0) in reported(compared)
    assert all(compared.held), "no timer fired in between"
    assert [line for line in logged if line["event"] == "state difference corrected"]


async def test_a_channel_that_should_have_left_the_bridge_is_taken_out(compared: Comparison, minutes: Minutes) -> None:
    has = compared.asterisk._has
    has.call("astray")
    (bridge,) = has.bridges.values()
    bridge.channels.append("astray")
    await minutes.pass_some()
    assert do.RemoveChannel("astray", bridge.bridge_id) in reported(compared)


async def test_news_that_is_under_way_is_no_difference(
    compared: Comparison, monkeypatch: pytest.MonkeyPatch, stage: Stage
) -> None:
    """The hangup is reported, with its own cause, during the wait that decides if its event was lost."""
    monkeypatch.setattr(comparing_module, "INTERVAL_S", 0.0)
    looked = asyncio.Event()

    async def sleep(seconds: float) -> None:
        if seconds == comparing_module.ON_THE_WAY_S and not looked.is_set():
            stage.tell(ev.ChannelHungUp("caller3", 17))
            looked.set()
        await real(0.001)

    real = asyncio.sleep
    compared.happened.clear()
    compared.asterisk._has.hang_up("caller3")
    monkeypatch.setattr(asyncio, "sleep", sleep)
    keeping = asyncio.create_task(compared.comparing.run())
    await lateness.soon(looked.wait())
    for _ in range(20):
        await real(0.001)
    keeping.cancel()
    assert not [what for what in reported(compared) if getattr(what, "channel_id", "") == "caller3"]


async def test_an_unreported_call_is_found(compared: Comparison, minutes: Minutes) -> None:
    compared.asterisk._has.call("lost")
    await minutes.pass_some()
    assert "lost" in reported(compared)


async def test_one_that_has_come_and_gone_meanwhile_is_none(
    compared: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    asterisk = compared.asterisk
    asterisk._has.call("brief")

    async def sleep(seconds: float) -> None:
        if seconds == comparing_module.ON_THE_WAY_S:
            asterisk._has.channels.pop("brief", None)
        await real(0.001)

    real = asyncio.sleep
    monkeypatch.setattr(comparing_module, "INTERVAL_S", 0.0)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    keeping = asyncio.create_task(compared.comparing.run())
    async with lateness.timeout():
        while "GET /channels/brief" not in asterisk.asked:
            await real(0.001)
    keeping.cancel()
    assert "brief" not in reported(compared)


async def test_a_failed_reconciliation_is_retried_in_a_minute(compared: Comparison, minutes: Minutes) -> None:
    compared.asterisk.answers_after = 3
    with capture_logs() as logged:
        await minutes.pass_some(4)
    assert [line for line in logged if line["event"] == "reconciliation failed"]
    del compared.asterisk._has.channels["caller3"]
    await minutes.pass_some()
    assert ev.ChannelHungUp("caller3", 0) in reported(compared)


async def test_without_a_connection_nothing_is_compared(compared: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    compared.asterisk.connected = False
    minutes = Minutes(compared, monkeypatch)
    await asyncio.sleep(0.1)
    assert compared.asterisk.asked == []
    await minutes.end()


async def test_the_first_comparison_is_done_by_the_clock_if_it_broke(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    muted(stage)
    comparison = Comparison(stage)

    async def breaks(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch, capture_logs():
        patch.setattr(takeover, "take_snapshot", breaks)
        await comparison.compare()
    minutes = Minutes(comparison, monkeypatch)
    await minutes.pass_some(2)
    assert len([what for what in comparison.happened if isinstance(what, do.MuteChannel)]) == MANY
    await minutes.end()


async def test_one_of_which_asterisk_can_not_tell_blinds_nobody_and_is_refused(stage: Stage) -> None:
    stage.call("ann", stay())
    comparison = Comparison(stage)
    comparison.asterisk.untold = ["odd"]
    stage.asterisk.call("unknown")
    with capture_logs() as logged:
        await comparison.compare()
    refused = [what for what in comparison.happened if isinstance(what, do.HangUp)]
    assert refused == [do.HangUp("odd", "rejected")]
    assert not [what for what in comparison.happened if isinstance(what, ev.ChannelHungUp)], "ann is still there"
    assert "unknown" in comparison.happened, "the new caller, whose event was lost, is served"
    assert any("not UTF-8" in line.get("reason", "") for line in logged)


async def test_a_call_of_ours_of_which_asterisk_can_not_tell_any_more_goes_on(stage: Stage) -> None:
    stage.call("ann", stay())
    comparison = Comparison(stage)
    comparison.asterisk.untold = ["ann"]
    await comparison.compare()
    assert not [what for what in comparison.happened if isinstance(what, do.HangUp | ev.ChannelHungUp)]


async def test_an_asterisk_that_is_away_is_not_taken_for_one_that_can_not_list(stage: Stage) -> None:
    comparison = Comparison(stage)
    comparison.asterisk.answers_after = 1
    with pytest.raises(AriUnreachable):
        await takeover.take_snapshot(comparison.asterisk, {}, "conf", (), patient=False)  # type: ignore[arg-type]


async def test_strangers_are_found_by_themselves(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing_module, "UNREPORTED_POLL_S", 0.01)
    stage.call("ann", stay())
    comparison = Comparison(stage)
    await comparison.compare()
    comparison.asterisk.untold = ["odd"]
    stage.asterisk.call("unseen")
    looking = asyncio.create_task(comparison.comparing.watch_unreported_calls())
    async with lateness.timeout():
        while not ({do.HangUp("odd", "rejected"), "unseen"} <= set(comparison.happened)):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    looking.cancel()
    assert "ann" not in comparison.happened


async def test_requests_of_a_dead_process_that_asterisk_carries_out_late(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The takeover has looked for leftovers before they were there."""
    monkeypatch.setattr(comparing_module, "UNREPORTED_POLL_S", 0.01)
    stage.call("ann", stay())
    comparison = Comparison(stage)
    await comparison.compare()
    left, own = (ids.tap_ids("call", "conf", process, 1) for process in ("dead", "live"))
    bridges = [left.bridge_id, own.bridge_id, ids.bridge_id("nowhere"), "foreign"]
    for bridge_id in bridges:
        stage.asterisk.bridges[bridge_id] = Bridge(bridge_id)
    comparison.asterisk.untold = [left.snoop_channel_id, own.snoop_channel_id]
    looking = asyncio.create_task(comparison.comparing.watch_unreported_calls())
    removed = {do.HangUp(left.snoop_channel_id), do.DestroyBridge(left.bridge_id), do.DestroyBridge(bridges[2])}
    async with lateness.timeout():
        while not removed <= set(comparison.happened):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    looking.cancel()
    gone = {what for what in comparison.happened if isinstance(what, do.DestroyBridge | do.HangUp)}
    assert gone == removed, "what has an owner stays: the live conference, the tap of this process, a foreign bridge"

"""What comes first when Asterisk is back: what it has, then who calls, then what is most likely so already."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from ari_conf.comparing import LATER_AT_ONCE, Comparing
from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core.internal import Out
from tests.core.stage import Stage, stay

MANY = 20


@pytest.fixture
def stage() -> Stage:
    return Stage()


class Asterisk:
    """Over ARI, what the stage's has."""

    app = "conf"

    def __init__(self, stage: Stage) -> None:
        self._has = stage.asterisk
        self.asked: list[str] = []

    async def request(self, method: str, path: str, *, kind: Any = Any) -> Any:
        self.asked.append(f"{method} {path}")
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
            "/applications/conf": {"bridge_ids": list(self._has.bridges)},
        }
        return msgspec.json.decode(json.dumps(answers[path]), type=kind)


class Comparison:
    """In place of the service and its interpreter: what happens, in its order."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.happened: list[Any] = []
        self.held: list[bool] = []
        """Whether time stood still when it should, and went on when it should."""
        self.asterisk = Asterisk(stage)
        self.comparing = Comparing(
            self.asterisk,  # type: ignore[arg-type]
            stage.directory,
            self,  # type: ignore[arg-type]
            deliver=self.deliver,
            heard=lambda message: self.happened.append(message["channel"]["id"]),
            again=self.again,
            run=self.happened.append,
            worked_off=lambda: self.happened.append("time goes on"),
        )

    def deliver(self, event: ev.Event) -> None:
        self.happened.append(event)
        # What is due must not be done yet, but who came meanwhile is served when all is known.
        self.held.append(self.comparing.holds_time is not isinstance(event, ev.CallArrived))

    def again(self, out: Out) -> None:
        self.happened += out
        self.held.append(self.comparing.holds_time)

    def busy(self, key: str) -> bool:
        return False

    def sweep(self, channel_ids: Iterable[str]) -> None:
        self.swept = set(channel_ids)

    async def done(self, channel_ids: Iterable[str]) -> None:
        self.happened.append(f"{len(list(channel_ids))} done")

    async def compare(self) -> None:
        self.comparing.begin()
        self.comparing.arriving.take(ev.CallArrived("new", "call-new", "request", "A", "+4930", "100"))
        await self.comparing.compare()
        assert all(self.held) and not self.comparing.holds_time


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
    assert f"{LATER_AT_ONCE} done" in happened, "a few at a time"
    assert comparison.comparing.done.is_set()


async def test_who_left_meanwhile_has_left_before_time_goes_on_and_before_others_come(stage: Stage) -> None:
    muted(stage)
    comparison = Comparison(stage)
    del stage.asterisk.channels["caller3"]
    await comparison.compare()
    happened = comparison.happened
    assert happened.index(ev.ChannelHungUp("caller3", 0)) < happened.index("time goes on")
    assert happened.index("time goes on") < next(n for n, e in enumerate(happened) if isinstance(e, ev.CallArrived))


async def test_a_call_that_nobody_was_told_of_has_arrived(stage: Stage) -> None:
    stage.call("ann", stay())
    stage.asterisk.call("lost")
    comparison = Comparison(stage)
    await comparison.compare()
    assert "lost" in comparison.happened and "ann" not in comparison.happened


async def test_asterisk_is_asked_for_its_channels_once(stage: Stage) -> None:
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

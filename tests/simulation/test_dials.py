"""Documents that call people, whatever happens or fails: the caller talks to one person at most, each Dial has one
result, nobody is left ringing or alone, and a crash at any moment changes none of it."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from ari_conf.core import effects as do
from ari_conf.core import events as ev
from tests.simulation import observed
from tests.simulation.documents import DIALS
from tests.simulation.judge import Judge
from tests.simulation.mortal import Mortal, cut_everywhere
from tests.simulation.test_placed_crashes import MOMENTS
from tests.simulation.test_simulation import LONG, PHONES, PLACED, ROUGH, play
from tests.simulation.world import World

SEEDS, STEPS = (1000, 400) if LONG else (30, 250)
CRASH_SEEDS, EVERY = (200, 1) if LONG else (40, 3)
KINDS = {
    "smooth": (*PLACED, *("arrive", "phone") * 3),
    "phones": (*PHONES, *("arrive", "phone", "phone", "press") * 4),
    "rough": (*ROUGH, *("arrive", "phone", "phone") * 4),
    "minutes": (*PLACED, *("arrive", "phone") * 3, "minutes"),
}
STATUSES = {"completed", "busy", "failed", "timeout", "no-answer", "cancel"}


class Results:
    """Results of Dials, as the URLs were told."""

    def __init__(self) -> None:
        self.told: dict[str, list[str]] = {}
        """UUID of each second leg -> DialActions in order"""

    def observe(self, effect: do.Effect) -> None:
        if not isinstance(effect, do.PostCallback | do.FetchDocument):
            return
        params = dict(effect.params)
        if "DialAction" in params:
            assert params["DialALegUUID"] == params["CallUUID"], "the callbacks are about the caller's call"
            self._told(params["DialBLegUUID"], params["DialAction"])
        elif "DialStatus" in params:
            assert params["DialStatus"] in STATUSES
            assert (params["DialStatus"] == "completed") == ("connected" in self.told.get(params["DialBLegUUID"], ()))

    def _told(self, leg: str, action: str) -> None:
        so_far = self.told.setdefault(leg, [])
        assert "hangup" not in so_far, "the end is told once, and last"
        assert action == "digits" or action not in so_far, f"{action} is told once"
        assert action not in ("connected", "digits") or "answer" in so_far, "connected before the answer"
        so_far.append(action)

    def over(self, *, all_ends_are_told: bool = True) -> None:
        if all_ends_are_told:
            # A leg that the API has transferred is told no longer.
            assert all(actions[-1] == "hangup" for actions in self.told.values()), "an end that is not told"


class DialJudge(Judge):
    def __init__(self, *given: object) -> None:
        super().__init__(*given)  # type: ignore[arg-type]
        self.results = Results()

    def after(self, event: ev.Event, effects: list[do.Effect], now: int) -> None:
        super().after(event, effects, now)
        for effect in effects:
            self.results.observe(effect)
        rooms = Counter(c.name for c in self.engine.conferences.values() if c.is_private and not c.ending)
        assert all(number == 1 for number in rooms.values())
        for conference in self.engine.conferences.values():
            assert not conference.is_private or len(conference.members) <= 2, "more than two talk"
        for call in self.engine.calls.values():
            first = call.outgoing.first_leg if call.outgoing is not None else ""
            if first and not call.is_ending:
                caller = self.engine.calls.get(first)
                assert caller is not None and caller.dial is not None, "a leg without the call that dials it"
                assert call.call_uuid in caller.dial.legs
                assert caller.dial.connected in ("", call.call_uuid), "another one has won, and this one goes on"

    def over(self, names: dict[tuple[str, str], str]) -> None:
        super().over(names)
        self.results.over()


class Dialing(World):
    def __init__(self) -> None:
        super().__init__()
        self.judge = DialJudge(self.engine, self.asterisk)

    def arrive(self, number: int) -> None:
        super().arrive(number + DIALS)

    def use_up_minutes(self, number: int) -> None:
        """Let an account's minutes of the day be used up, as the dial meter reports it: its placed calls end."""
        auth_id = "B" if number % 5 == 0 else "A"
        placed = [
            call.call_uuid
            for call in self.engine.calls.values()
            if call.outgoing is not None and call.auth_id == auth_id and not call.is_ending
        ]
        for call_uuid in placed:
            self.receive(ev.MinutesUsedUp(call_uuid))
            call = self.engine.calls.get(call_uuid)
            assert call is None or call.is_ending, "a placed call goes on without minutes"


def dial_courses(kinds: str, seeds: int) -> None:
    connected = 0
    for seed in range(seeds):
        dice, world = Random(seed), Dialing()
        try:
            for _ in range(STEPS):
                what, number = dice.choice(KINDS[kinds]), dice.randrange(10_000)
                if what == "minutes":
                    world.use_up_minutes(number)
                else:
                    play(world, (what, number))
            world.end()
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
        connected += sum("connected" in told for told in world.judge.results.told.values())  # type: ignore[attr-defined]
    assert connected > seeds // 2, "hardly any Dial connects anybody"


@pytest.mark.parametrize("kinds", KINDS)
def test_each_dial_has_one_result_whatever_happens(kinds: str) -> None:
    dial_courses(kinds, SEEDS)


class MortalDialing(Mortal):
    """Mortal application whose documents call people."""

    def _call(self, channel_id: str, number: int) -> None:
        super()._call(channel_id, number + DIALS)

    def _others(self, at: int, what: str, number: int) -> None:
        if what == "phone":
            self.phone(number)
        else:
            super()._others(at, what, number)

    def run(self, course: list[tuple[str, int]]) -> None:
        for at, deed in enumerate(course):
            self.do(at, deed)  # type: ignore[arg-type]
        self.do(len(course), ("time", 12_000))
        self.finish_all()
        # Ring timeouts, and channels that may not have been dialed.
        self._wait(400_000)
        self.finish_all()


def course(seed: int) -> list[tuple[str, int]]:
    dice = Random(seed)
    kinds = ("arrive", *("phone",) * 6, "press", "time", "time", "finish", "hang up")
    deeds = [("arrive", dice.randrange(10_000))]
    for _ in range(14):
        kind = dice.choice(kinds)
        deeds.append((kind, dice.choice(MOMENTS) if kind == "time" else dice.randrange(10_000)))
    return deeds


def cut(seed: int, dies: frozenset[int], away: int = 0) -> MortalDialing:
    world = MortalDialing(dies, away)
    world.run(course(seed))
    assert observed.left(world) == []
    observed.fates(world)
    observed.history(world)
    results = Results()
    for effect in world.written.outbox:
        results.observe(effect)
    results.over()
    return world


def cut_dial_courses(seeds: range, every: int) -> None:
    for seed in seeds:
        cut_everywhere(cut, seed, every)


@pytest.mark.parametrize("part", range(2))
def test_wherever_it_dies_each_dial_has_one_result(part: int) -> None:
    cut_dial_courses(range(part, CRASH_SEEDS, 2), EVERY)

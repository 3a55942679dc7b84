"""A step may break anywhere, which is a defect: those whom it concerns are ended completely, and nobody else is."""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

import pytest

from ari_conf.core import directory
from ari_conf.core import effects as do
from ari_conf.core import events as ev
from tests.simulation import observed
from tests.simulation.mortal import Written
from tests.simulation.test_commands import Commanded, Lenient
from tests.simulation.test_simulation import LONG, SMOOTH, play

SEEDS, STEPS = (1000, 300) if LONG else (40, 250)
CORE = str(Path(directory.__file__).parent)
DOOR = ("receive", "_next_step", "<genexpr>")
"""Before a step begins nothing breaks; and what is raised while a generator is thrown away is ignored."""


class Broken(Exception):
    pass


class Patient(Lenient):
    def time_moved_on(self, now: int) -> None:
        # Where one deadline breaks, those of others come again at once.
        super().time_moved_on(min(now, self.directory.deadline or now))


class Breaking(Commanded):
    """Now and then one of the core's functions, whichever it is, raises when it is called."""

    def __init__(self, dice: Random) -> None:
        super().__init__()
        self._dice = dice
        self.judge: Patient = Patient(self.directory, self.asterisk)
        self._left: int | None = None
        """Calls until one raises."""
        self.broken = 0
        self.written = Written()
        self.recorded: list[str] = []

    def receive(self, event: ev.Event) -> None:
        self._left = int(self._dice.expovariate(0.03)) if self._dice.random() < 0.08 else None
        rooms = set(self.directory.conferences)
        try:
            effects = self._receive(event)
        except Broken:
            self.broken += 1
            effects = self.directory.give_up(event, self.now)
            self._spared(rooms)
            self.judge.effects = effects
            self.judge.fits()
        else:
            self.judge.after(event, effects, self.now)
        for effect in effects:
            self._under_way(effect)
            self._note(effect)
        self.judge.gone(self.names)

    def _receive(self, event: ev.Event) -> list[do.Effect]:
        try:
            sys.settrace(self._trace if self._left is not None else None)
            return self.directory.receive(event, self.now)
        finally:
            sys.settrace(None)

    def _trace(self, frame: FrameType, what: str, _: Any) -> None:
        code = frame.f_code
        if self._left is not None and code.co_filename.startswith(CORE) and code.co_name not in DOOR:
            self._left -= 1
            if self._left < 0:
                self._left = None
                raise Broken

    def _spared(self, rooms: set[str]) -> None:
        """Of the conferences those are ended that the step may concern."""
        ended = rooms & (self.directory._given_up | (rooms - set(self.directory.conferences)))
        assert len(ended - self.judge.tainted) <= 2, "that of the call, and one that it left or came to"
        # They are told to be out, and their channels and bridges go a little later.
        self.judge.provoked(*ended, *self.directory._given_up)
        self.judge.provoked(*(c.channel_id for c in self.directory.calls.values() if c.over))

    def _note(self, effect: do.Effect) -> None:
        match effect:
            case do.PostCallback() | do.StoreRecording() | do.Reply():
                self.written.outbox.append(effect)
            case do.ReleaseName():
                self._release(effect)
            case do.StartRecording(_, recording_id):
                self.recorded.append(recording_id)


def broken_courses(seeds: int) -> None:
    for seed in range(seeds):
        try:
            test_wherever_a_step_breaks_all_is_told_and_nothing_is_left(seed)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise


@pytest.mark.parametrize("seed", range(SEEDS))
def test_wherever_a_step_breaks_all_is_told_and_nothing_is_left(seed: int) -> None:
    dice = Random(seed)
    world = Breaking(dice)
    for _ in range(STEPS):
        if dice.random() < 0.12:
            world.command(dice)
        else:
            play(world, (dice.choice(SMOOTH), dice.randrange(10_000)))
    world.end()
    assert world.broken
    observed.sequences(world)  # type: ignore[arg-type]
    observed.fates(world)  # type: ignore[arg-type]

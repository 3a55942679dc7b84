"""Broken steps: a defect may raise anywhere; the calls and conferences of that step end completely, and no others."""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

import pytest

from ari_conf.core import effects as do
from ari_conf.core import engine
from ari_conf.core import events as ev
from ari_conf.core.step_failed import StepFailed
from tests.simulation import observed
from tests.simulation.mortal import Written
from tests.simulation.test_commands import Commanded, Lenient
from tests.simulation.test_simulation import LONG, SMOOTH, play

SEEDS, STEPS = (1000, 300) if LONG else (40, 250)
CORE = str(Path(engine.__file__).parent)
DOOR = ("handle_event", "begin_step", "<genexpr>")
"""Functions that never raise here: the step has not begun, or Python ignores the error (discarded generators)."""


class Broken(Exception):
    pass


class Patient(Lenient):
    def time_moved_on(self, now: int) -> None:
        # If one deadline raises, the deadlines of others come again immediately.
        super().time_moved_on(min(now, self.engine.deadline or now))


class Breaking(Commanded):
    """World in which any function of the core raises now and then when it is called."""

    def __init__(self, dice: Random) -> None:
        super().__init__()
        self._dice = dice
        self.judge: Patient = Patient(self.engine, self.asterisk)
        self._left: int | None = None
        """Number of function calls until one raises; None if none does."""
        self.broken = 0
        self.written = Written()
        self.recorded: list[str] = []

    def receive(self, event: ev.Event) -> None:
        self._left = int(self._dice.expovariate(0.03)) if self._dice.random() < 0.08 else None
        rooms = set(self.engine.conferences)
        try:
            effects = self._receive(event)
        except StepFailed as failure:
            assert isinstance(failure.__cause__, Broken)
            self.broken += 1
            effects = self.engine.abort_failed_step(failure, self.now)
            self._spared(rooms)
            self.judge.effects = effects
            self.judge.fits()
        else:
            self.judge.after(event, effects, self.now)
        for effect in effects:
            self._under_way(effect)
            self._note(effect)
        self.judge.gone(self.names)
        self.written.begun |= self.engine.calls.keys()

    def _receive(self, event: ev.Event) -> list[do.Effect]:
        try:
            sys.settrace(self._trace if self._left is not None else None)
            return self.engine.handle_event(event, self.now)
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
        """Check that only conferences that the step may concern are ended."""
        ended = rooms & (self.engine.abort_handler.aborted | (rooms - set(self.engine.conferences)))
        assert len(ended - self.judge.tainted) <= 2, "the call's conference, and one that it left or joined"
        # Their exits are reported first; their channels and bridges go a little later.
        self.judge.provoked(*ended, *self.engine.abort_handler.aborted)
        self.judge.provoked(*(c.channel_id for c in self.engine.calls.values() if c.is_ending))

    def _note(self, effect: do.Effect) -> None:
        match effect:
            case do.PostCallback() | do.StoreRecording() | do.CommandReply():
                self.written.outbox.append(effect)
            case do.ArchiveCall() | do.ArchiveMember() | do.ArchiveConference():
                self.written.outbox.append(effect)
            case do.ReleaseName():
                self._release(effect)
            case do.StartRecording(_, recording_id):
                self.recorded.append(recording_id)


def broken_courses(seeds: int) -> None:
    for seed in range(seeds):
        try:
            test_a_failure_in_any_step_completes_all_callbacks_and_leaves_nothing(seed)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_failure_in_any_step_completes_all_callbacks_and_leaves_nothing(seed: int) -> None:
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
    observed.history(world, broken=True)  # type: ignore[arg-type]

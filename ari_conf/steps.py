"""Of what was decided: the step that writes it, and what is run when it is written."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from ari_conf import member_fields, recordings
from ari_conf.core import effects as do
from ari_conf.core.conference import Conference
from ari_conf.core.directory import Directory
from ari_conf.log_fields import fields_of, tell
from ari_conf.settings import Settings
from ari_conf.store import Step
from ari_conf.takeover import NEXT_MEMBER_ID


class Steps:
    def __init__(
        self, directory: Directory, settings: Settings, answer: Callable[[do.Reply], Callable[[Any], Any]]
    ) -> None:
        """`answer` makes of the reply to a command what `Step.also` takes."""
        self._directory = directory
        self._settings = settings
        self._answer = answer
        self._member_id_written = 0

    def of(self, effects: list[do.Effect], now: int) -> tuple[Step, list[do.Effect]]:
        """What the directory has just decided, of which the log is told."""
        step, run = Step(now), list[do.Effect]()
        if self._directory.next_member_id != self._member_id_written:
            self._count(step)
        touched = self._directory.touched()
        step.state |= touched
        for key, thing in touched.items():
            if isinstance(thing, Conference):
                step.members[key] = thing.changed()
        for effect in effects:
            tell("effect", effect, fields_of(effect, self._directory.whose))
            match effect:
                case do.PostCallback():
                    step.callbacks.append(effect)
                case do.ReportProblem():
                    step.problems.append(effect)
                case do.ReleaseName():
                    step.released.append(effect)
                case do.StoreRecording():
                    # Twice is once: whoever stores it sees that it is stored.
                    step.jobs.append((recordings.QUEUE, *recordings.entry(effect, self._settings, now)))
                case do.NoteStay() | do.NoteTalk():
                    step.also.append(partial(recordings.note, effect=effect))
                case do.Reply():
                    step.also.append(self._answer(effect))
                case _:
                    run.append(effect)
        return step, run

    def of_rest(self, now: int) -> Step | None:
        """What the directory has changed since a step was last made; None: nothing."""
        step, _ = self.of([], now)
        return step if step.state else None

    def of_living(self, ids: Iterable[str], now: int) -> Step:
        """Those of these calls and conferences that live, for a Redis that came back empty, or as it was earlier."""
        step = Step(now)
        self._count(step)
        for id in ids:
            if (call := self._directory.calls.get(id)) is not None:
                step.state[id] = call
            elif (conference := self._directory.conferences.get(id)) is not None:
                step.state[id] = conference
                step.members[id] = dict(conference.members)
        # As it was earlier it may have some who are gone.
        step.also.append(partial(member_fields.forget, conference_ids=tuple(step.members)))
        return step

    def _count(self, step: Step) -> None:
        self._member_id_written = self._directory.next_member_id
        step.state[NEXT_MEMBER_ID] = str(self._member_id_written).encode()

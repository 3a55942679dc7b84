"""Step builder: turns the engine's decisions into the step to write and the effects to run once it is written."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from ari_conf.core import effects as do
from ari_conf.core.conferences.conference import Conference
from ari_conf.core.engine import Engine
from ari_conf.history import entries
from ari_conf.observability.log_fields import fields_of, log_item
from ari_conf.recordings import jobs
from ari_conf.server.takeover import NEXT_MEMBER_ID
from ari_conf.settings import Settings
from ari_conf.store import members
from ari_conf.store.step_batch import QueuedJob, Step


class StepBuilder:
    def __init__(
        self, engine: Engine, settings: Settings, reply_writer: Callable[[do.CommandReply], Callable[[Any], Any]]
    ) -> None:
        """Create the builder. `reply_writer` turns the reply to a command into a function for `Step.extra_commands`."""
        self._engine = engine
        self._settings = settings
        self._reply_writer = reply_writer
        self._member_id_written = 0

    def build(self, effects: list[do.Effect], now: int) -> tuple[Step, list[do.ExecutedEffect]]:
        """Return the step for what the engine has just decided, and the effects to run after its write; log them."""
        step, run = Step(now), list[do.ExecutedEffect]()
        if self._engine.registry.next_member_id != self._member_id_written:
            self._add_next_member_id(step)
        changes = self._engine.take_changes()
        step.state |= changes
        for key, owner in changes.items():
            if isinstance(owner, Conference):
                step.members[key] = owner.take_changed_members()
        for effect in effects:
            log_item("effect", effect, fields_of(effect, self._engine.log_context))
            match effect:
                case do.PostCallback():
                    step.callbacks.append(effect)
                case do.ReportProblem():
                    step.problems.append(effect)
                case do.ReleaseName():
                    step.released.append(effect)
                case do.StoreRecording():
                    # A repeated job does no harm: the worker sees that the recording is stored already.
                    partition, entry = jobs.enqueue_item(effect, self._settings, now)
                    step.jobs.append(QueuedJob(jobs.STORE_QUEUE, partition, entry))
                case do.AddAttendanceNote() | do.AddSpeechNote():
                    step.extra_commands.append(partial(jobs.add_note, effect=effect))
                case do.ArchiveCall() | do.ArchiveMember() | do.ArchiveTalks() | do.ArchiveConference():
                    archived = entries.Entry(now, effect, self._settings.asterisk_name or "")
                    step.history.append((effect.auth_id, entries.encode(archived)))
                case do.CommandReply():
                    step.extra_commands.append(self._reply_writer(effect))
                case _:
                    run.append(effect)
        return step, run

    def build_pending(self, now: int) -> Step | None:
        """Return a step with the engine's changes since the last step, or None if nothing has changed."""
        step, _ = self.build([], now)
        return step if step.state else None

    def build_rewrite(self, ids: Iterable[str], now: int) -> Step:
        """Return a step that writes those of `ids` that are live: Redis came back empty, or from an older copy."""
        step = Step(now)
        self._add_next_member_id(step)
        for id in ids:
            if (call := self._engine.calls.get(id)) is not None:
                step.state[id] = call
            elif (conference := self._engine.conferences.get(id)) is not None:
                step.state[id] = conference
                step.members[id] = dict(conference.members)
        # An older copy may contain members who have left.
        step.extra_commands.append(partial(members.delete, conference_ids=tuple(step.members)))
        return step

    def _add_next_member_id(self, step: Step) -> None:
        self._member_id_written = self._engine.registry.next_member_id
        step.state[NEXT_MEMBER_ID] = str(self._member_id_written).encode()

"""Batches of steps, each written to Redis in one script. Steps are encoded one by one as they arrive.

A batch is encoded once, and has an id: if it is written again after a lost answer, its callbacks are not duplicated.
While it waits for an unreachable Redis it is kept compressed: callbacks resemble each other, so an hour of them fits.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import msgspec

from ari_conf.core.conferences.conference import Conference
from ari_conf.core.conferences.member import Member
from ari_conf.core.effects import ClaimName, ExecutedEffect, PostCallback, ReleaseName, ReportProblem
from ari_conf.core.problem_kinds import ProblemKind
from ari_conf.errors import CallbackTooLong
from ari_conf.queues import history_inbox, outbox
from ari_conf.queues.partitioned_queue import prefix
from ari_conf.store import members as member_fields
from ari_conf.store import problems
from ari_conf.store.redis_script import Part
from ari_conf.store.state_codec import Aggregate, encode, encode_without_members

MAX_STEPS = 500
MAX_BYTES = 256 * 1024
"""A batch with as many steps or bytes takes no more: neither the event loop nor Redis is busy with one for long."""
MAX_ARGUMENTS = 2000
"""Maximum arguments of a command within a script: Lua accepts some 8000."""
MAX_WAKEUPS = 64
"""Maximum wake-ups that one batch issues."""
TEXT_OVERHEAD_BYTES = 64
"""Approximate memory of a text, beside its own bytes."""
_CALLBACKS = prefix(outbox.QUEUE)
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder().decode

Command = Sequence[Part]
"""Redis command: its name, key and other parts. CLAIM and RELEASE are commands of write_steps.lua for names."""
OnConflict = Callable[[str], None]
"""Function that gets the Asterisk that has a name."""


class NameClaim(NamedTuple):
    """Claim of a name that this server already uses."""

    claim: ClaimName
    on_conflict: OnConflict
    """Called after the write if another Asterisk has the name."""


class QueuedJob(NamedTuple):
    """Entry for a queue of workers other than the callbacks."""

    queue: str
    partition: str
    entry: bytes


class Item(NamedTuple):
    """Text that the script appends once, however often the batch is written."""

    destination: str
    """Key of a list, prefix of a queue's keys, or that of the history's inboxes."""
    partition: str
    """Partition of the queue; "" for a list; the account for an inbox."""
    text: bytes


@dataclass(slots=True)
class Step:
    """Step to be written: the state change, callbacks and other entries of one event."""

    now_ms: int
    state: dict[str, Aggregate | bytes | None] = field(default_factory=dict)
    """Field -> its new value; None deletes it."""
    callbacks: list[PostCallback] = field(default_factory=list)
    problems: list[ReportProblem] = field(default_factory=list)
    released: list[ReleaseName] = field(default_factory=list)
    claims: list[NameClaim] = field(default_factory=list)
    jobs: list[QueuedJob] = field(default_factory=list)
    history: list[tuple[str, bytes]] = field(default_factory=list)
    """(account, entry of the history)."""
    extra_commands: list[Callable[[Any], Any]] = field(default_factory=list)
    """Functions that add commands to a pipeline. These run before the rest, may run twice, and can't be scripts."""
    members: dict[str, dict[int, Member | None]] = field(default_factory=dict)
    """Conference id -> member id -> changed member; None if the member has left."""

    @property
    def has_more_than_state(self) -> bool:
        """True if the step has more than state and members."""
        return bool(
            self.callbacks
            or self.problems
            or self.released
            or self.claims
            or self.jobs
            or self.history
            or self.extra_commands
        )


class Destination(Protocol):
    """Destination of a batch: the keys and commands of `state_store`."""

    def pipeline(self) -> Any: ...
    def state_key(self) -> str: ...
    def claim_command(self, claim: ClaimName) -> Command: ...
    def release_command(self, released: ReleaseName) -> Command: ...
    def publish_command(self, auth_id: str, conference_id: str) -> Command: ...


class Batch:
    """Steps that are written together. Steps can be added until the batch is closed; then its content is final."""

    __slots__ = (
        "_commands", "_compressed", "_destination", "_extra_commands", "_items", "_members", "_name_commands",
        "_published", "_state", "bytes", "callbacks", "effects", "id", "jobs", "on_conflicts", "steps",
    )  # fmt: skip

    def __init__(self, id: str, destination: Destination) -> None:
        self.id = id
        self.steps = 0
        self.bytes = 0
        """Approximate size in memory."""
        self.callbacks: dict[str, int] = {}
        """Number of callbacks by account."""
        self.jobs = 0
        self.effects: list[ExecutedEffect] = []
        """Effects that wait until the batch is written."""
        self.on_conflicts: list[OnConflict] = []
        """Function of each claim, in the order of the claims."""
        self._destination = destination
        self._state: dict[str, bytes | None] = {}
        self._members: dict[str, dict[int, bytes | None]] = {}
        self._extra_commands: list[Command] = []
        self._name_commands: list[Command] = []
        self._published: set[tuple[str, str]] = set()
        self._commands: list[Command] = []
        self._items: list[Item] = []
        self._compressed: bytes | None = None
        """Commands and items while the batch is parked."""

    @property
    def is_full(self) -> bool:
        return self.steps >= MAX_STEPS or self.bytes >= MAX_BYTES

    def __bool__(self) -> bool:
        return self.steps > 0

    def add(self, step: Step) -> None:
        """Encode a step in its present state: later steps may change its objects. If this raises, nothing is added."""
        texts = {key: _encode_state(thing) for key, thing in step.state.items()}
        members = {key: member_fields.texts(changed) for key, changed in step.members.items()}
        extra_commands = _recorded_commands(step.extra_commands, self._destination) if step.extra_commands else ()
        items = _encode_items(step)
        self.steps += 1
        self._extra_commands += extra_commands
        self._items += items
        state, size = self._state, sum(len(item.text) + 3 * TEXT_OVERHEAD_BYTES for item in items)
        for key, text in texts.items():
            size += TEXT_OVERHEAD_BYTES + (len(text) if text else 0) - len(state.get(key) or b"")
            state[key] = text
        for key, changed in members.items():
            self._members.setdefault(key, {}).update(changed)
            size += sum(TEXT_OVERHEAD_BYTES + len(text or b"") for text in changed.values())
        self.bytes += size
        for callback in step.callbacks:
            self.callbacks[callback.auth_id] = self.callbacks.get(callback.auth_id, 0) + 1
        self.jobs += len(step.jobs)
        for id, thing in step.state.items():
            if isinstance(thing, Conference):
                self._published.add((thing.auth_id, id))
        for claim, on_conflict in step.claims:
            self._name_commands.append(self._destination.claim_command(claim))
            self.on_conflicts.append(on_conflict)
        for released in step.released:
            self._name_commands.append(self._destination.release_command(released))
            # An ended conference is only None in `state`, but it has released its name.
            self._published.add((released.auth_id, released.conference_id))

    def close(self) -> None:
        """Make the commands. The batch takes no more steps."""
        destination, commands = self._destination, self._extra_commands
        written = [part for key, text in self._state.items() if text is not None for part in (key, text)]
        deleted = [key for key, text in self._state.items() if text is None]
        state_commands: tuple[tuple[str, Sequence[Part]], ...] = (("HSET", written), ("HDEL", deleted))
        for name, arguments in state_commands:
            for first in range(0, len(arguments), MAX_ARGUMENTS):
                commands.append((name, destination.state_key(), *arguments[first : first + MAX_ARGUMENTS]))
        commands += member_fields.commands_of(self._members, deleted)
        commands += self._name_commands
        # In the same script as the state, so that a reader of the message finds this state.
        for auth_id, conference_id in sorted(self._published):
            commands.append(destination.publish_command(auth_id, conference_id))
        self._commands = commands
        self._state, self._members, self._published = {}, {}, set()
        self._extra_commands, self._name_commands = [], []

    def content(self) -> tuple[list[Command], list[Item]]:
        if self._compressed is None:
            return self._commands, self._items
        commands, items = _unpack(zlib.decompress(self._compressed))
        return commands, [Item(*item) for item in items]

    def park(self) -> None:
        """Compress the content until it is the batch's turn."""
        if self._compressed is None:
            self._compressed = zlib.compress(_pack((self._commands, self._items)), 1)
            self._commands, self._items = [], []
            self.bytes = len(self._compressed) + TEXT_OVERHEAD_BYTES

    def unpark(self) -> None:
        self._commands, self._items = self.content()
        self._compressed = None

    def halves(self) -> tuple[Batch, Batch] | None:
        """Return the half to write first, and the rest, which has the effects; None for a single command or entry."""
        commands, items = self.content()
        first, rest = Batch(f"{self.id}-1", self._destination), Batch(f"{self.id}-2", self._destination)
        if len(commands) > 1:
            half = len(commands) // 2
            first._commands, rest._commands = commands[:half], commands[half:]
            rest._items = items
        elif commands and items:
            first._commands, rest._items = commands, items
        elif len(items) > 1:
            half = len(items) // 2
            first._items, rest._items = items[:half], items[half:]
        else:
            return None
        claims = sum(command[0] == "CLAIM" for command in first._commands)
        first.on_conflicts, rest.on_conflicts = self.on_conflicts[:claims], self.on_conflicts[claims:]
        first.steps, rest.steps = 1, self.steps
        rest.bytes = self.bytes
        rest.effects = self.effects
        for half_batch in (first, rest):
            half_batch._count_items()
        return first, rest

    def _count_items(self) -> None:
        for item in self._items:
            if item.destination == _CALLBACKS:
                auth_id = item.partition.split(":")[0]
                self.callbacks[auth_id] = self.callbacks.get(auth_id, 0) + 1
            elif item.partition and item.destination != history_inbox.INBOX:
                self.jobs += 1


def encode_batch(batch: Batch, fencing_token: str, max_problems: int, wakeup_lost_ms: int) -> list[Part]:
    """Return a closed batch as the arguments of scripts/write_steps.lua, which lists them."""
    commands, items = batch.content()
    # One wake-up for each callback, at most; Redis knows how many threads are free.
    max_wakeups = min(sum(batch.callbacks.values()), MAX_WAKEUPS)
    found: list[Part] = [fencing_token, batch.id, max_problems, wakeup_lost_ms, max_wakeups, len(commands), len(items)]
    for command in commands:
        found += (len(command), *command)
    for item in items:
        found += item
    return found


def _encode_state(thing: Aggregate | bytes | None) -> bytes | None:
    if isinstance(thing, Conference):
        return encode_without_members(thing)
    return thing if thing is None or isinstance(thing, bytes) else encode(thing)


def _recorded_commands(add_commands: Sequence[Callable[[Any], Any]], destination: Destination) -> list[Command]:
    pipe = destination.pipeline()
    for add in add_commands:
        add(pipe)
    return [command for command, _ in pipe.command_stack]


def _encode_items(step: Step) -> list[Item]:
    items: list[Item] = []
    reports = step.problems
    for callback in step.callbacks:
        try:
            items.append(Item(_CALLBACKS, *outbox.enqueue_item(callback, step.now_ms)))
        except CallbackTooLong as error:
            call_uuid = dict(callback.params).get("CallUUID", "")
            too_long = ReportProblem(callback.auth_id, call_uuid, ProblemKind.CALLBACK_TOO_LONG, None, str(error))
            reports = [*reports, too_long]
    items += [Item(prefix(job.queue), job.partition, job.entry) for job in step.jobs]
    items += [Item(history_inbox.INBOX, auth_id, entry) for auth_id, entry in step.history]
    for report in reports:
        problem = problems.Problem(step.now_ms, report.call_uuid, report.kind, report.text, report.code)
        items.append(Item(problems.problems_key(report.auth_id), "", problems.encoded(problem)))
    return items

"""Batches of steps, each written to Redis in one script. Steps are encoded one by one as they arrive.

A batch is encoded once, and has an id: if it is written again after a lost answer, its callbacks are not duplicated.
While it waits for an unreachable Redis it is kept compressed: callbacks resemble each other, so an hour of them fits.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from ari_conf.core.conferences.conference import Conference
from ari_conf.core.conferences.member import Member
from ari_conf.core.effects import ClaimName, Effect, PostCallback, ReleaseName, ReportProblem
from ari_conf.errors import CallbackTooLong
from ari_conf.queues import outbox
from ari_conf.queues.partitioned_queue import prefix
from ari_conf.store import members as member_fields
from ari_conf.store import problems
from ari_conf.store.redis_script import Part
from ari_conf.store.state_codec import Aggregate, encode, encode_without_members

MOST_STEPS = 500
MOST_BYTES = 256 * 1024
"""A batch with as many steps or bytes takes no more: neither the event loop nor Redis is busy with one for long."""
MOST_PARTS = 2000
"""Maximum parts of a command within a script: Lua accepts some 8000."""
MAX_WAKEUPS = 64
"""Maximum wake-ups that one batch issues."""
EACH_BYTES = 64
"""Approximate memory of a text, beside its own bytes."""
_CALLBACKS = prefix(outbox.QUEUE)
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder().decode

Tell = Callable[[str], None]
Command = Sequence[Part]


@dataclass(slots=True)
class Step:
    """Step to be written: the state change, callbacks and other entries of one event."""

    now_ms: int
    state: dict[str, Aggregate | bytes | None] = field(default_factory=dict)
    """Field -> its new value; None deletes it."""
    callbacks: list[PostCallback] = field(default_factory=list)
    problems: list[ReportProblem] = field(default_factory=list)
    released: list[ReleaseName] = field(default_factory=list)
    claims: list[tuple[ClaimName, Tell]] = field(default_factory=list)
    """Names that this server already uses. If one has another owner, its function gets the owner after the write."""
    jobs: list[tuple[str, str, bytes]] = field(default_factory=list)
    """Other work for workers, as (queue, partition, entry)."""
    also: list[Callable[[Any], Any]] = field(default_factory=list)
    """Functions that add commands to a pipeline. These run before the rest, may run twice, and can't be scripts."""
    members: dict[str, dict[int, Member | None]] = field(default_factory=dict)
    """Conference id -> member id -> changed member; None if the member has left."""

    @property
    def more(self) -> bool:
        """True if the step has more than state and members."""
        return bool(self.callbacks or self.problems or self.released or self.claims or self.jobs or self.also)


class Place(Protocol):
    """Destination of a batch: the keys and commands of `state_store`."""

    def pipeline(self) -> Any: ...
    def state_key(self) -> str: ...
    def claim_command(self, claim: ClaimName) -> Command: ...
    def release_command(self, freed: ReleaseName) -> Command: ...
    def publish_command(self, auth_id: str, conference_id: str) -> Command: ...


class Batch:
    """Steps that are written together. Steps can be added until the batch is closed; then its content is final."""

    __slots__ = (
        "_also", "_commands", "_items", "_members", "_named", "_parked", "_place", "_published", "_state",
        "bytes", "callbacks", "effects", "id", "jobs", "steps", "tells",
    )  # fmt: skip

    def __init__(self, id: str, place: Place) -> None:
        self.id = id
        self.steps = 0
        self.bytes = 0
        """Approximate size in memory."""
        self.callbacks: dict[str, int] = {}
        """Number of callbacks by account."""
        self.jobs = 0
        self.effects: list[Effect] = []
        """Effects that wait until the batch is written."""
        self.tells: list[Tell] = []
        """Function of each claim, which gets the owner if that is another one."""
        self._place = place
        self._state: dict[str, bytes | None] = {}
        self._members: dict[str, dict[int, bytes | None]] = {}
        self._also: list[Command] = []
        self._named: list[Command] = []
        self._published: set[tuple[str, str]] = set()
        self._commands: list[Command] = []
        self._items: list[Part] = []
        """Three parts for each item: a list or the prefix of a queue's keys, "" or the partition, and the text."""
        self._parked: bytes | None = None

    @property
    def full(self) -> bool:
        return self.steps >= MOST_STEPS or self.bytes >= MOST_BYTES

    def __bool__(self) -> bool:
        return self.steps > 0

    def add(self, step: Step) -> None:
        """Encode a step in its present state: later steps may change its objects. If this raises, nothing is added."""
        texts = {key: _text(thing) for key, thing in step.state.items()}
        members = {key: member_fields.texts(changed) for key, changed in step.members.items()}
        also = _commands_of(step.also, self._place) if step.also else ()
        items = _items(step)
        self.steps += 1
        self._also += also
        self._items += items
        state, size = self._state, sum(map(len, items[2::3])) + EACH_BYTES * len(items)
        for key, text in texts.items():
            size += EACH_BYTES + (len(text) if text else 0) - len(state.get(key) or b"")
            state[key] = text
        for key, changed in members.items():
            self._members.setdefault(key, {}).update(changed)
            size += sum(EACH_BYTES + len(text or b"") for text in changed.values())
        self.bytes += size
        for callback in step.callbacks:
            self.callbacks[callback.auth_id] = self.callbacks.get(callback.auth_id, 0) + 1
        self.jobs += len(step.jobs)
        for id, thing in step.state.items():
            if isinstance(thing, Conference):
                self._published.add((thing.auth_id, id))
        for claim, tell in step.claims:
            self._named.append(self._place.claim_command(claim))
            self.tells.append(tell)
        for freed in step.released:
            self._named.append(self._place.release_command(freed))
            # An ended conference is only None in `state`, but it has released its name.
            self._published.add((freed.auth_id, freed.conference_id))

    def close(self) -> None:
        """Make the commands. The batch takes no more steps."""
        place, commands = self._place, self._also
        kept = [part for key, text in self._state.items() if text is not None for part in (key, text)]
        gone = [key for key, text in self._state.items() if text is None]
        names: tuple[tuple[str, Sequence[Part]], ...] = (("HSET", kept), ("HDEL", gone))
        for name, parts in names:
            for first in range(0, len(parts), MOST_PARTS):
                commands.append((name, place.state_key(), *parts[first : first + MOST_PARTS]))
        commands += member_fields.commands_of(self._members, gone)
        commands += self._named
        # In the same script as the state, so that a reader of the message finds this state.
        for auth_id, conference_id in sorted(self._published):
            commands.append(place.publish_command(auth_id, conference_id))
        self._commands = commands
        self._state, self._members, self._also, self._named, self._published = {}, {}, [], [], set()

    def arguments(self) -> list[Part]:
        """Return the arguments of `WRITE_STEPS`, from the commands on."""
        commands, items = self._whole()
        found: list[Part] = [len(commands)]
        for command in commands:
            found += (len(command), *command)
        # One wake-up for each callback, at most; Redis knows how many threads are free.
        return [*found, min(sum(self.callbacks.values()), MAX_WAKEUPS), len(items) // 3, *items]

    def park(self) -> None:
        """Compress the content until it is the batch's turn."""
        if self._parked is None:
            self._parked = zlib.compress(_pack((self._commands, self._items)), 1)
            self._commands, self._items = [], []
            self.bytes = len(self._parked) + EACH_BYTES

    def unpark(self) -> None:
        self._commands, self._items = self._whole()
        self._parked = None

    def _whole(self) -> tuple[list[Command], list[Part]]:
        if self._parked is None:
            return self._commands, self._items
        commands, items = _unpack(zlib.decompress(self._parked))
        return commands, items

    def halves(self) -> tuple[Batch, Batch] | None:
        """Return the half to write first, and the rest, which has the effects; None for a single command or entry."""
        commands, items = self._whole()
        first, rest = Batch(f"{self.id}-1", self._place), Batch(f"{self.id}-2", self._place)
        if len(commands) > 1:
            half = len(commands) // 2
            first._commands, rest._commands = commands[:half], commands[half:]
            rest._items = items
        elif commands and items:
            first._commands, rest._items = commands, items
        elif len(items) > 3:
            half = len(items) // 6 * 3
            first._items, rest._items = items[:half], items[half:]
        else:
            return None
        claims = sum(command[0] == "CLAIM" for command in first._commands)
        first.tells, rest.tells = self.tells[:claims], self.tells[claims:]
        first.steps, rest.steps = 1, self.steps
        rest.bytes = self.bytes
        rest.effects = self.effects
        for each in (first, rest):
            each._count()
        return first, rest

    def _count(self) -> None:
        for where, lane in zip(self._items[::3], self._items[1::3], strict=True):
            if where == _CALLBACKS:
                auth_id = str(lane).partition(":")[0]
                self.callbacks[auth_id] = self.callbacks.get(auth_id, 0) + 1
            elif lane:
                self.jobs += 1


def _text(thing: Aggregate | bytes | None) -> bytes | None:
    if isinstance(thing, Conference):
        return encode_without_members(thing)
    return thing if thing is None or isinstance(thing, bytes) else encode(thing)


def _commands_of(also: Sequence[Callable[[Any], Any]], place: Place) -> list[Command]:
    pipe = place.pipeline()
    for add in also:
        add(pipe)
    return [command for command, _ in pipe.command_stack]


def _items(step: Step) -> list[Any]:
    items: list[Part] = []
    reports = step.problems
    for callback in step.callbacks:
        try:
            lane, text = outbox.enqueue_item(callback, step.now_ms)
            items += (_CALLBACKS, lane, text)
        except CallbackTooLong as error:
            call_uuid = dict(callback.params).get("CallUUID", "")
            reports = [*reports, ReportProblem(callback.auth_id, call_uuid, None, str(error))]
    for queue, lane, text in step.jobs:
        items += (prefix(queue), lane, text)
    for report in reports:
        problem = problems.Problem(step.now_ms, report.call_uuid, report.text, report.code)
        items += (problems.problems_key(report.auth_id), "", problems.encoded(problem))
    return items

"""What goes to Redis in one script: steps that are written together, encoded one by one as they come.

A batch is encoded once, and has an id: written again, since the answer was lost, its callbacks are not doubled. While
it waits for a Redis that is away it is kept compressed: callbacks resemble each other, so that an hour of them fits.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from ari_conf import member_fields, outbox, problems
from ari_conf.core.conference import Conference
from ari_conf.core.effects import ClaimName, Effect, PostCallback, ReleaseName, ReportProblem
from ari_conf.core.member import Member
from ari_conf.errors import CallbackTooLong
from ari_conf.fenced import Part
from ari_conf.lanes import prefix
from ari_conf.written import Thing, encoded, without_members

MOST_STEPS = 500
MOST_BYTES = 256 * 1024
"""A batch that has as many steps or bytes takes no more: neither our loop nor Redis is busy with one for long."""
MOST_PARTS = 2000
"""Of a command within a script: Lua takes some 8000."""
MOST_LETTERS = 64
EACH_BYTES = 64
"""What a text takes beside its bytes, roughly."""
_CALLBACKS = prefix(outbox.QUEUE)
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder().decode

Tell = Callable[[str], None]
Command = Sequence[Part]


@dataclass(slots=True)
class Step:
    """What one decision changes."""

    now_ms: int
    state: dict[str, Thing | bytes | None] = field(default_factory=dict)
    """None: delete it."""
    callbacks: list[PostCallback] = field(default_factory=list)
    problems: list[ReportProblem] = field(default_factory=list)
    released: list[ReleaseName] = field(default_factory=list)
    claims: list[tuple[ClaimName, Tell]] = field(default_factory=list)
    """Names that are taken for ours; if one is another's, whose it is is told, once the rest is written."""
    jobs: list[tuple[str, str, bytes]] = field(default_factory=list)
    """(queue, lane, entry): what else workers are to do."""
    also: list[Callable[[Any], Any]] = field(default_factory=list)
    """Each is called with a pipeline, and adds commands that may be done twice, before the rest is; no scripts."""
    members: dict[str, dict[int, Member | None]] = field(default_factory=dict)
    """conference id -> member id -> who has changed; None: he is gone."""

    @property
    def more(self) -> bool:
        """Than state."""
        return bool(self.callbacks or self.problems or self.released or self.claims or self.jobs or self.also)


class Place(Protocol):
    """Where a batch goes: how `store` names things in Redis."""

    def pipeline(self) -> Any: ...
    def state_key(self) -> str: ...
    def claim_command(self, claim: ClaimName) -> Command: ...
    def release_command(self, freed: ReleaseName) -> Command: ...
    def publish_command(self, auth_id: str, conference_id: str) -> Command: ...
    def letter(self, token: str) -> str | None: ...


class Batch:
    """Either steps are added to it, or it is closed: then it is as it will be written."""

    __slots__ = (
        "_also", "_commands", "_items", "_letters", "_members", "_named", "_parked", "_place", "_published", "_state",
        "bytes", "callbacks", "effects", "id", "jobs", "steps", "tells",
    )  # fmt: skip

    def __init__(self, id: str, place: Place) -> None:
        self.id = id
        self.steps = 0
        self.bytes = 0
        """Roughly what it takes in memory."""
        self.callbacks: dict[str, int] = {}
        """How many there are, by account."""
        self.jobs = 0
        self.effects: list[Effect] = []
        """They wait until it is written."""
        self.tells: list[Tell] = []
        """Of each claim in it, who is told of another owner."""
        self._place = place
        self._state: dict[str, bytes | None] = {}
        self._members: dict[str, dict[int, bytes | None]] = {}
        self._also: list[Command] = []
        self._named: list[Command] = []
        self._published: set[tuple[str, str]] = set()
        self._commands: list[Command] = []
        self._letters: list[str] = []
        self._items: list[Part] = []
        """Three for each: a list or the prefix of a queue's lanes, "" or the lane, and the text."""
        self._parked: bytes | None = None

    @property
    def full(self) -> bool:
        return self.steps >= MOST_STEPS or self.bytes >= MOST_BYTES

    def __bool__(self) -> bool:
        return self.steps > 0

    def add(self, step: Step) -> None:
        """As it is now: later steps may change what it names. All of it, or it raises."""
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
            # One that is gone had its name, and released it.
            self._published.add((freed.auth_id, freed.conference_id))

    def close(self) -> None:
        """It takes no more steps."""
        place, commands = self._place, self._also
        kept = [part for key, text in self._state.items() if text is not None for part in (key, text)]
        gone = [key for key, text in self._state.items() if text is None]
        names: tuple[tuple[str, Sequence[Part]], ...] = (("HSET", kept), ("HDEL", gone))
        for name, parts in names:
            for first in range(0, len(parts), MOST_PARTS):
                commands.append((name, place.state_key(), *parts[first : first + MOST_PARTS]))
        commands += member_fields.commands_of(self._members, gone)
        commands += self._named
        # In one with the state: who then reads reads this.
        for auth_id, conference_id in sorted(self._published):
            commands.append(place.publish_command(auth_id, conference_id))
        self._commands = commands
        if self.callbacks:
            self._letters = self._letters_for(sum(self.callbacks.values()))
        self._state, self._members, self._also, self._named, self._published = {}, {}, [], [], set()

    def _letters_for(self, callbacks: int) -> list[str]:
        """For each callback one, with its token; Redis knows how many workers have room for."""
        letters: list[str] = []
        for n in range(min(callbacks, MOST_LETTERS)):
            token = f"{self.id}.{n}"
            if (letter := self._place.letter(token)) is None:
                break
            letters += (token, letter)
        return letters

    def arguments(self) -> list[Part]:
        """Of the script, as it takes them."""
        commands, letters, items = self._whole()
        found: list[Part] = [len(commands)]
        for command in commands:
            found += (len(command), *command)
        return [*found, len(letters) // 2, *letters, len(items) // 3, *items]

    def park(self) -> None:
        """Compressed, until it is its turn."""
        if self._parked is None:
            self._parked = zlib.compress(_pack((self._commands, self._letters, self._items)), 1)
            self._commands, self._letters, self._items = [], [], []
            self.bytes = len(self._parked) + EACH_BYTES

    def unpark(self) -> None:
        self._commands, self._letters, self._items = self._whole()
        self._parked = None

    def _whole(self) -> tuple[list[Command], list[str], list[Part]]:
        if self._parked is None:
            return self._commands, self._letters, self._items
        commands, letters, items = _unpack(zlib.decompress(self._parked))
        return commands, letters, items

    def halves(self) -> tuple[Batch, Batch] | None:
        """What is to be written first, and the rest, which has its effects; None: it is one command, or one entry."""
        commands, letters, items = self._whole()
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
        rest._letters, rest.effects = letters, self.effects
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


def _text(thing: Thing | bytes | None) -> bytes | None:
    if isinstance(thing, Conference):
        return without_members(thing)
    return thing if thing is None or isinstance(thing, bytes) else encoded(thing)


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
            lane, text = outbox.entry(callback, step.now_ms)
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

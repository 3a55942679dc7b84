"""Redis, as the application sees it: accounts, the state of its calls and conferences, names, problems, the outbox.

Redis is written, never asked, to decide; the one exception is claiming a name, one atomic step.

| key | is |
|---|---|
| ari_conf:accounts | hash, auth id -> account |
| ari_conf:state:ASTERISK | hash, a call's UUID or a conference's -> its JSON |
| ari_conf:members:CONFERENCE | see `member_fields` |
| ari_conf:names:ACCOUNT | hash, conference name -> "conference_id owner" |
| ari_conf:problems:ACCOUNT | list of JSON, the newest first |
| ari_conf:written:ASTERISK | the id of the last step written |
| ari_conf:owner:, lease:, standby:ASTERISK | see `lease` |
| ari_conf:changes:ACCOUNT | pub/sub: "conference_id owner" of each conference whose state has just been written |
| ari_conf:callbacks:… | see `lanes` |
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from itertools import count
from secrets import token_hex
from typing import Any, TypeVar, cast

import msgspec
import redis.asyncio
from redis import RedisError

from ari_conf import accounts, member_fields, outbox
from ari_conf.accounts import AccountRecord
from ari_conf.core.conference import Conference
from ari_conf.core.effects import ClaimName, PostCallback, ReleaseName, ReportProblem
from ari_conf.core.member import Member
from ari_conf.errors import LeaseLost, StoreUnavailable
from ari_conf.fenced import Fenced, Part
from ari_conf.lanes import PREFIX, TOKEN_MS, prefix
from ari_conf.lease import lease_key, owner_key
from ari_conf.problems import Problem, problems_key
from ari_conf.store_scripts import CLAIM, WRITE
from ari_conf.written import Thing, encoded, is_conference, without_members

T = TypeVar("T")
ACCOUNT_CACHE_S = 5.0
CONNECT_S, ANSWER_S = 2.0, 5.0
LOADED_AT_ONCE = 1000
MOST_PARTS = 2000
"""Of a command within a script: Lua takes some 8000."""
MOST_LETTERS = 64
_CALLBACKS = prefix(outbox.QUEUE)

_process = token_hex(8)
_steps = count(1)


@dataclass(slots=True)
class Step:
    """What one decision changes. `id` tells a step that is written again from a new one: Redis' answer may be lost."""

    now_ms: int
    state: dict[str, Thing | bytes | None] = field(default_factory=dict)
    """None: delete it. A call or a conference is written as it is when its step is: steps that are written together
    have all their state in one."""
    callbacks: list[PostCallback] = field(default_factory=list)
    problems: list[ReportProblem] = field(default_factory=list)
    released: list[ReleaseName] = field(default_factory=list)
    claims: list[tuple[ClaimName, Callable[[str], None]]] = field(default_factory=list)
    """Names that are taken for ours; if one is another's, whose it is is told, once the rest is written."""
    jobs: list[tuple[str, str, bytes]] = field(default_factory=list)
    """(queue, lane, entry): what else workers are to do."""
    also: list[Callable[[Any], Any]] = field(default_factory=list)
    """Each is called with a pipeline, and adds commands that may be done twice, before the rest is; no scripts."""
    members: dict[str, dict[int, Member | None]] = field(default_factory=dict)
    """conference id -> member id -> who has changed; None: he is gone."""
    id: str = field(default_factory=lambda: f"{_process}-{next(_steps)}")

    @property
    def more(self) -> bool:
        """Than state."""
        return bool(self.callbacks or self.problems or self.released or self.claims or self.jobs or self.also)


def connect(url: str) -> redis.asyncio.Redis:
    """Fails within seconds, and doesn't try again by itself: who writes decides that."""
    return redis.asyncio.from_url(
        url, socket_connect_timeout=CONNECT_S, socket_timeout=ANSWER_S, retry=None, health_check_interval=0
    )


class Store:
    """Each method may raise StoreUnavailable; what was asked may then have been done or not, and can be asked again."""

    def __init__(
        self,
        client: redis.asyncio.Redis,
        asterisk_name: str,
        problems_kept: int = 200,
        *,
        token: Callable[[], str] = lambda: "",
        names_kept_s: float = 900.0,
        letter: Callable[[str], str | None] = lambda token: None,
    ) -> None:
        """`token`: of the lease under which is written; "" if nobody else may be writing. `letter`: Celery's message
        that brings a worker this token; None if workers are told otherwise."""
        self._redis = client
        self._name = asterisk_name
        self._problems_kept = problems_kept
        self._token = token
        self._names_kept_ms = int(names_kept_s * 1000)
        self._letter = letter
        self._fenced = Fenced(client, WRITE)
        self._accounts: dict[str, tuple[float, AccountRecord]] = {}

    async def close(self) -> None:
        await self._fenced.close()

    async def account(self, auth_id: str) -> AccountRecord | None:
        """At most 5 s old; while Redis can't be reached as it was last, or StoreUnavailable if it was never seen."""
        read_at, record = self._accounts.get(auth_id, (float("-inf"), None))
        now = time.monotonic()
        if record and now - read_at < ACCOUNT_CACHE_S:
            return record
        try:
            found = await self._asked(self._redis.hget(accounts.KEY, auth_id))
        except StoreUnavailable:
            if record is None:
                raise
            self._accounts[auth_id] = (now, record)  # asked again in 5 s: else each call would wait for a dead Redis
            return record
        if found is None:
            self._accounts.pop(auth_id, None)
            return None
        record = accounts.decode(cast(bytes, found))
        self._accounts[auth_id] = (now, record)
        return record

    async def claim(self, auth_id: str, name: str, conference_id: str, owner: str | None = None) -> str | None:
        """None: the name is ours, for this conference. Else who owns it. `owner` is this asterisk_name if not given."""
        keys = names_key(auth_id), owner_key(self._name)
        rest = self._token(), *self._claim(name, conference_id, owner or self._name)
        asked = self._redis.eval(*cast(Any, (CLAIM, len(keys), *keys, *rest)))
        holder = await self._asked(cast("Awaitable[bytes | None]", asked))
        return holder.decode() if holder else None

    def _claim(self, name: str, conference_id: str, owner: str) -> tuple[str | int, ...]:
        return name, conference_id, owner, lease_key(""), self._names_kept_ms

    async def names(self, auth_id: str) -> dict[str, tuple[str, str]]:
        """The account's map of conference names: name -> (conference_id, owner)."""
        found = await self._asked(cast("Awaitable[dict[bytes, bytes]]", self._redis.hgetall(names_key(auth_id))))
        return {name.decode(): holder(text) for name, text in found.items()}

    def write(self, steps: Sequence[Step]) -> Coroutine[Any, Any, None]:
        """All of it or nothing, in one step of Redis'. Steps must be written in their order; after StoreUnavailable the
        same ones come first in the next write: what was written all the same is then not written twice.
        What is written is the state at the time of the call, not of the await: that of all steps so far, no later one.
        Raises LeaseLost if another process owns these calls now.
        """
        arguments: list[Part] = [self._token(), self._problems_kept, TOKEN_MS]
        commands = self._commands(steps)
        arguments.append(len(commands))
        for command in commands:
            arguments += (len(command), *command)
        letters = self._letters(steps)
        arguments += (len(letters) // 2, *letters)
        for step in steps:
            if step.callbacks or step.problems or step.jobs:
                arguments += _items(step)
        return self._written(arguments, [tell for step in steps for _, tell in step.claims])

    def _commands(self, steps: Sequence[Step]) -> list[Sequence[Part]]:
        state = {key: thing for step in steps for key, thing in step.state.items()}
        commands: list[Sequence[Part]] = []
        if adds := [add for step in steps for add in step.also]:
            pipe = self._redis.pipeline(transaction=False)
            for add in adds:
                add(pipe)
            commands += [command for command, _ in pipe.command_stack]
        place = state_key(self._name)
        kept = [part for key, thing in state.items() if thing is not None for part in (key, _text(thing))]
        gone = [key for key, thing in state.items() if thing is None]
        for name, parts in (("HSET", kept), ("HDEL", gone)):
            for first in range(0, len(parts), MOST_PARTS):
                commands.append((name, place, *parts[first : first + MOST_PARTS]))
        members: dict[str, dict[int, Member | None]] = {}
        for step in steps:
            for key, changed in step.members.items():
                members.setdefault(key, {}).update(changed)
        commands += member_fields.commands(members, gone)
        for step in steps:
            for claim, _ in step.claims:
                what = self._claim(claim.name, claim.conference_id, self._name)
                commands.append(("CLAIM", names_key(claim.auth_id), *what))
            for freed in step.released:
                commands.append(("RELEASE", names_key(freed.auth_id), freed.name, freed.conference_id))
        # In one with the state: who then reads reads this. One that is gone had its name, and released it.
        published = {(thing.auth_id, key) for key, thing in state.items() if isinstance(thing, Conference)}
        published |= {(name.auth_id, name.conference_id) for step in steps for name in step.released}
        for auth_id, conference_id in sorted(published):
            commands.append(("PUBLISH", changes_key(auth_id), f"{conference_id} {self._name}"))
        return commands

    def _letters(self, steps: Sequence[Step]) -> list[str]:
        """For each callback one, with its token; Redis knows how many workers have room for."""
        letters: list[str] = []
        for step in steps:
            for n in range(len(step.callbacks)):
                token = f"{step.id}.{n}"
                if len(letters) == 2 * MOST_LETTERS or (letter := self._letter(token)) is None:
                    return letters
                letters += (token, letter)
        return letters

    async def _written(self, arguments: Sequence[Part], claims: Sequence[Callable[[str], None]]) -> None:
        keys = _CALLBACKS, f"{PREFIX}written:{self._name}", owner_key(self._name), outbox.QUEUE
        owners = await self._asked(self._fenced.run(keys, arguments))
        for tell, owner in zip(claims, owners, strict=True):
            if owner:
                tell(owner.decode())

    async def load(self) -> dict[str, bytes]:
        """The state of this asterisk_name. Nobody else may be writing it."""
        found: dict[str, bytes] = {}
        async for part in self.parts():
            found.update(part)
        return found

    async def parts(self) -> AsyncGenerator[dict[str, bytes]]:
        """What `load` loads; some of it may come twice. What is next is on its way while one part is worked on.

        In parts, since all of it at once may take Redis and us longer than a single answer is waited for.
        """
        asked: asyncio.Task[tuple[int, dict[bytes, bytes]]] | None = asyncio.create_task(self._part(0))
        try:
            while asked is not None:
                cursor, part = await asked
                asked = asyncio.create_task(self._part(cursor)) if cursor else None
                yield {key.decode(): snapshot for key, snapshot in part.items()}
        finally:
            if asked is not None:
                asked.cancel()

    async def _part(self, cursor: int) -> tuple[int, dict[bytes, bytes]]:
        return await self._asked(self._read(cursor))

    async def _read(self, cursor: int) -> tuple[int, dict[bytes, bytes]]:
        scan = self._redis.hscan(state_key(self._name), cursor, count=LOADED_AT_ONCE)
        cursor, part = await cast("Awaitable[tuple[int, dict[bytes, bytes]]]", scan)
        conferences = {key: text for key, text in part.items() if is_conference(text)}
        return cursor, part | await member_fields.whole(self._redis, conferences)

    async def _asked(self, answer: Awaitable[T]) -> T:
        try:
            return await answer
        except (RedisError, OSError) as error:
            if str(error).startswith("LOST"):
                raise LeaseLost("another process has taken over") from None
            if str(error).startswith("FORGOTTEN"):
                raise StoreUnavailable("Redis has forgotten whose the calls are: it is about to be told") from None
            raise StoreUnavailable(f"Redis can't be used: {error or type(error).__name__}") from error


def _text(thing: Thing | bytes) -> bytes:
    if isinstance(thing, Conference):
        return without_members(thing)
    return thing if isinstance(thing, bytes) else encoded(thing)


def state_key(asterisk_name: str) -> str:
    return f"{PREFIX}state:{asterisk_name}"


def holder(text: bytes) -> tuple[str, str]:
    """(conference id, owner), as a name's field and a change's message have them."""
    conference_id, _, owner = text.decode().partition(" ")
    return conference_id, owner


def names_key(auth_id: str) -> str:
    return f"{PREFIX}names:{auth_id}"


def changes_key(auth_id: str) -> str:
    return f"{PREFIX}changes:{auth_id}"


def _items(step: Step) -> list[Part]:
    flat: list[Part] = [step.id, len(step.callbacks) + len(step.jobs) + len(step.problems)]
    for callback in step.callbacks:
        flat += (_CALLBACKS, *outbox.entry(callback, step.now_ms))
    for queue, lane, entry in step.jobs:
        flat += (prefix(queue), lane, entry)
    for report in step.problems:
        problem = Problem(step.now_ms, report.call_uuid, report.text, report.code)
        flat += (problems_key(report.auth_id), "", msgspec.json.encode(problem))
    return flat

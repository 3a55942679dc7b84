"""The API's commands on their way to the process that owns the conference, and the replies on their way back.

| key | is |
|---|---|
| ari_conf:commands:ASTERISK | stream: commands for the owner, in order |
| ari_conf:commands-done:ASTERISK | the stream's id up to which they are done |
| ari_conf:reply:COMMAND | a command's reply, for a quarter of an hour |
| ari_conf:replies:ASKER | pub/sub: "COMMAND REPLY" to the process that asked |

Exactly once: a reply, how far the owner has come, and what the command has changed are one transaction. A command that
the owner's death leaves undone is done by the next process, unless whoever asked waits no longer. A command that comes
again under its id, since Redis took long to say what became of it, gets the first one's reply.

Until when a command may be begun with is a time of Redis' clock, which both sides ask: their own may differ. Whoever
asked then says that it came too late, so that it must not be done any more.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import msgspec
import redis.asyncio
import structlog
from redis import RedisError

from ari_conf import redis_client
from ari_conf.core.commands import Command
from ari_conf.core.effects import Reply
from ari_conf.core.events import AccountWatched, CommandReceived
from ari_conf.core.snapshot import restore, snapshot
from ari_conf.lanes import PREFIX
from ari_conf.lease import boottime
from ari_conf.seldom import Seldom

log = structlog.get_logger()

KEPT = 10_000
"""Commands that a stream holds."""
REPLY_KEPT_S = 15 * 60
"""For those who repeat a command whose process died, or gave up, before it had the reply; `web` keeps what it has
answered longer. At 100 commands a second of an account, which is the API's rate, these are 90,000 replies of some 300
bytes."""
BLOCK_MS = 2000
"""Less than the time after which a silent connection counts as dead."""
TRY_AGAIN_S = 0.5
MOST_PLACE = 2**64
AT_ONCE = 100
GRACE_S = 1.0
REMEMBERED = 2000
"""Replies: of a minute in which much is asked."""


@dataclass(frozen=True, slots=True)
class Watch:
    """No command of the API: said to every owner while somebody looks at an account's conferences. Gets no reply, and
    told twice is the same."""


class Queued(msgspec.Struct, frozen=True):
    command_id: str
    auth_id: str
    conference_name: str
    command: Any
    """As `snapshot` writes it."""
    expires_at: int
    """Epoch milliseconds, by Redis' clock."""
    asker: str
    within_ms: int = 0
    """How far away that was when it was asked for: if it is farther now, Redis' clock was set back. 0: not told."""


def connect(url: str) -> redis.asyncio.Redis:
    """For the web: many requests at once share some connections, and wait for one rather than fail."""
    return redis_client.connect_waiting(url, 50, 2.0, socket_connect_timeout=2.0, socket_timeout=5.0, retry=None)


def queue_key(asterisk_name: str) -> str:
    return f"{PREFIX}commands:{asterisk_name}"


def reply_key(command_id: str) -> str:
    return f"{PREFIX}reply:{command_id}"


def replies_key(asker: str) -> str:
    return f"{PREFIX}replies:{asker}"


def _done_key(asterisk_name: str) -> str:
    return f"{PREFIX}commands-done:{asterisk_name}"


def encode(
    command: Command | Watch, command_id: str, auth_id: str, name: str, expires_at: int, asker: str, within_ms: int = 0
) -> bytes:
    return msgspec.json.encode(Queued(command_id, auth_id, name, snapshot(command), expires_at, asker, within_ms))


def encode_reply(reply: Reply) -> bytes:
    return msgspec.json.encode({"command_id": reply.command_id, "status": reply.status, "body": dict(reply.body)})


def decode_reply(text: bytes) -> Reply:
    told = msgspec.json.decode(text)
    body = ((name, tuple(value) if isinstance(value, list) else value) for name, value in told["body"].items())
    return Reply(told["command_id"], told["status"], tuple(body))


class Commands:
    """The owner's side: commands in their order, each delivered once."""

    def __init__(
        self,
        client: redis.asyncio.Redis,
        asterisk_name: str,
        deliver: Callable[[CommandReceived | AccountWatched], None],
        asterisk_is_there: Callable[[], bool],
        reply: Callable[[Reply], None],
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        """`reply` writes a reply to what is not delivered. `now_ms` is the clock by which events are delivered."""
        self._redis = client
        self._name = asterisk_name
        self._deliver = deliver
        self._asterisk_is_there = asterisk_is_there
        self._reply = reply
        self._now_ms = now_ms
        self._place: str | None = None
        """The stream's id of the last one that was read."""
        self._askers: dict[str, tuple[str, str]] = {}
        """command id -> (its place in the stream, who asked), until it is replied to"""
        self._replied: dict[str, Reply] = {}
        """The latest: a command that was given twice, since its reply came too late, is done once."""

    async def run(self) -> None:
        away = Seldom()
        while True:
            try:
                await self._read()
                away.well()
            except (RedisError, OSError) as error:
                if away.due():
                    log.warning("commands can't be read", reason=str(error) or type(error).__name__)
                await asyncio.sleep(TRY_AGAIN_S)

    async def _read(self) -> None:
        if self._place is None:
            self._place = await self._done()
        streams: dict[Any, Any] = {queue_key(self._name): self._place}
        found = cast(Any, await self._redis.xread(streams, count=AT_ONCE, block=BLOCK_MS))
        if not found:
            return
        asked = boottime()
        redis_ms = await _redis_ms(self._redis)
        for _, entries in found.items() if isinstance(found, dict) else found:
            # As of RESP3 the entries of a stream come in one more list.
            for entry in entries[0] if entries and isinstance(entries[0], list) else entries:
                self._place = entry[0].decode()
                # It is not later than that there, however long we were stopped since we asked.
                self._take(self._place, entry[1].get(b"command", b""), redis_ms + int((boottime() - asked) * 1000) + 1)

    async def _done(self) -> str:
        """The place until which commands are done, if it is one of this stream: what was still on its way to Redis when
        Redis forgot is noted in the new one, and would hide all that comes."""
        done = await cast(Any, self._redis.get(_done_key(self._name)))
        if not done:
            return "0"
        newest = await cast(Any, self._redis.xrevrange(queue_key(self._name), count=1))
        return done.decode() if newest and _numbers(done) <= _numbers(newest[0][0]) else "0"

    def begin_anew(self) -> None:
        """Redis has forgotten: its stream may have begun anew, with lower ids. What comes again has expired."""
        self._place = None
        # Their places are those of the old stream: what comes in the new one is not done by them.
        self._askers = {command_id: ("", asker) for command_id, (_, asker) in self._askers.items()}

    def _take(self, place: str, text: bytes, redis_ms: int) -> None:
        """`redis_ms`: what Redis' clock shows now, at most."""
        try:
            queued = msgspec.json.decode(text, type=Queued)
            command: Command | Watch = restore(queued.command, cast(Any, Command | Watch))
        except (msgspec.MsgspecError, KeyError, TypeError, ValueError, RecursionError) as error:
            # Of a web process of another version.
            log.error("a command can't be read", reason=str(error))
            return
        left_ms = queued.expires_at - redis_ms
        if queued.within_ms and left_ms > queued.within_ms:
            left_ms = 0
        expires_at = self._now_ms() + left_ms
        if isinstance(command, Watch):
            self._hand_in(AccountWatched(queued.auth_id, expires_at))
            return
        self._askers[queued.command_id] = (place, queued.asker)
        if not self._asterisk_is_there():
            # "503 with Retry-After when the call's Asterisk can't be reached"
            away = (("error", "the call's Asterisk can't be reached: try again"),)
            self._reply(Reply(queued.command_id, 503, away))
            return
        if (reply := self._replied.get(queued.command_id)) is not None:
            self._reply(reply)
            return
        names = (queued.command_id, queued.auth_id, queued.conference_name)
        self._hand_in(CommandReceived(*names, command, expires_at))

    def _hand_in(self, event: CommandReceived | AccountWatched) -> None:
        try:
            self._deliver(event)
        except Exception as error:
            # The others' commands must not wait for ever because of one.
            self._askers.pop(getattr(event, "command_id", ""), None)
            log.error("a command broke: this is a defect of ari_conf, please report it", exc_info=error)

    def answer(self, reply: Reply) -> Callable[[Any], Any]:
        """Adds to the transaction of the command's step what may be done twice."""
        place, asker = self._askers.pop(reply.command_id, ("", ""))
        if reply.status != 503:
            self._replied[reply.command_id] = reply
            if len(self._replied) > REMEMBERED:
                del self._replied[next(iter(self._replied))]
        text = encode_reply(reply)

        def add(pipe: Any) -> None:
            pipe.set(reply_key(reply.command_id), text, ex=REPLY_KEPT_S)
            if place:
                pipe.set(_done_key(self._name), place)
            if asker:
                pipe.publish(replies_key(asker), f"{reply.command_id} ".encode() + text)

        return add


class Asker:
    """The web's side: asks owners, and hears their replies. Its methods raise RedisError."""

    def __init__(self, client: redis.asyncio.Redis, name: str) -> None:
        self._redis = client
        self._name = name
        self._waiting: dict[str, asyncio.Future[Reply]] = {}
        self._subscribed = asyncio.Event()

    async def listen(self) -> None:
        """For ever."""
        away = Seldom()
        while True:
            pubsub = self._redis.pubsub(ignore_subscribe_messages=True)
            try:
                await pubsub.subscribe(replies_key(self._name))
                self._subscribed.set()
                away.well()
                while True:
                    message = await pubsub.get_message(timeout=BLOCK_MS / 1000)
                    if message is not None:
                        self._heard(message["data"])
            except (RedisError, OSError) as error:
                if away.due():
                    log.warning("replies can't be heard", reason=str(error) or type(error).__name__)
                await asyncio.sleep(TRY_AGAIN_S)
            finally:
                self._subscribed.clear()
                await pubsub.aclose()  # type: ignore[no-untyped-call]

    async def ask(
        self, asterisk_name: str, command: Command, command_id: str, auth_id: str, name: str, deadline_s: float
    ) -> Reply | None:
        """None: no reply in time; then it is not done any more either.

        `deadline_s`: until when the owner may begin with it; the reply is awaited a second longer.
        """
        self._waiting[command_id] = waiting = asyncio.get_running_loop().create_future()
        began = boottime()
        try:
            # Longer than the owner may take to decide: what was decided at the last moment is heard of.
            async with asyncio.timeout(deadline_s + GRACE_S):
                await self._subscribed.wait()
                redis_ms = await _redis_ms(self._redis)
                # However long Redis takes to give it to the owner: by then we still wait.
                within_ms = int((deadline_s - (boottime() - began)) * 1000)
                if within_ms <= 0:
                    return None
                text = encode(command, command_id, auth_id, name, redis_ms + within_ms, self._name, within_ms)
                await self._redis.xadd(queue_key(asterisk_name), {"command": text}, maxlen=KEPT, approximate=True)
                reply: Reply | None = await waiting
        except TimeoutError:
            # It may have been said while the subscription was broken.
            reply = await self.replied(command_id)
        finally:
            del self._waiting[command_id]
        return reply

    async def watch(self, asterisk_name: str, auth_id: str, for_ms: int) -> None:
        """Says to an owner that the account's conferences are looked at for so long."""
        until = await _redis_ms(self._redis) + for_ms
        text = encode(Watch(), "", auth_id, "", until, self._name, for_ms)
        await self._redis.xadd(queue_key(asterisk_name), {"command": text}, maxlen=KEPT, approximate=True)

    async def replied(self, command_id: str) -> Reply | None:
        found = await cast(Any, self._redis.get(reply_key(command_id)))
        return decode_reply(found) if found else None

    def _heard(self, message: bytes) -> None:
        command_id, _, text = message.partition(b" ")
        waiting = self._waiting.get(command_id.decode(errors="replace"))
        if waiting is None or waiting.done():
            return
        try:
            waiting.set_result(decode_reply(text))
        except (msgspec.MsgspecError, KeyError, TypeError, AttributeError) as error:
            # Of an owner of another version. The asker gives up in time; all others' replies are heard.
            log.error("a reply can't be read", reason=str(error))


async def _redis_ms(client: redis.asyncio.Redis) -> int:
    """Epoch milliseconds, by Redis' clock."""
    seconds, micros = await client.time()
    return int(seconds) * 1000 + int(micros) // 1000


def _numbers(place: bytes) -> tuple[int, ...]:
    """A place in a stream, to be compared; of what is none, one after all."""
    numbers = place.split(b"-")
    return tuple(map(int, numbers)) if all(map(bytes.isdigit, numbers)) else (MOST_PLACE,)

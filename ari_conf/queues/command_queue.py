"""Command queue: the API's commands on their way to the server that owns the conference or call, and the replies.

| key | content |
|---|---|
| ari_conf:commands:ASTERISK | stream: commands for the owner, in order |
| ari_conf:commands-done:ASTERISK | stream id up to which commands are done |
| ari_conf:reply:COMMAND | reply to a command, for a quarter of an hour |
| ari_conf:replies:PROCESS | pub/sub: "COMMAND REPLY" to the web process that sent the command |

Each command is executed exactly once: its reply, the owner's position in the stream, and the command's changes are one
transaction. A command that the owner's death leaves undone is executed by the next owner, unless it has expired. A
command that is sent again under its id, because Redis was slow to answer, gets the first reply.

The expiry of a command is a time of Redis' clock, which both sides ask: their own clocks may differ. When it has
passed, the web process reports that the command was too late, so the command must not be executed any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, cast

import msgspec
import redis
import redis.asyncio
import structlog
from redis import RedisError

from ari_conf.common import redis_client
from ari_conf.common.log_throttle import LogThrottle
from ari_conf.common.redis_keys import PREFIX
from ari_conf.core.commands import Addressed, ForAccount, ForCall, ForConference, ForNode, WatchAccount
from ari_conf.core.effects import CommandReply
from ari_conf.core.events import AccountWatched, CommandReceived
from ari_conf.errors import REPORT_HINT
from ari_conf.ownership.lease import boottime

log = structlog.get_logger()

MAX_STREAM_LENGTH = 10_000
"""Maximum commands in a stream."""
REPLY_KEPT_S = 15 * 60
"""Seconds to keep a reply, for API clients that repeat a command whose web process died, or gave up, before the reply.
`web` keeps its own responses longer. At 100 commands per second and account, which is the API's rate, these are 90,000
replies of some 300 bytes."""
BLOCK_MS = 2000
"""Milliseconds of a blocking read: less than the time after which a silent connection counts as dead."""
RETRY_DELAY_S = 0.5
INVALID_POSITION = 2**64
"""Compares as greater than every number of a stream id."""
READ_BATCH = 100
REPLY_GRACE_S = 1.0
MAX_CACHED_REPLIES = 2000
"""Replies of a busy minute."""


FIRST_CONNECTION_S = 3.0
"""Maximum seconds for which commands wait for this process's first connection to Asterisk. The commands that a dead
owner left expire in about that time."""


class CommandMessage(msgspec.Struct, frozen=True):
    command_id: str
    addressed: Addressed
    expires_at: int
    """Epoch milliseconds of the expiry, by Redis' clock."""
    sender: str
    within_ms: int = 0
    """Milliseconds until the expiry at the time of sending: if more are left, Redis' clock was set back. 0: unknown."""


def connect(url: str) -> redis.asyncio.Redis:
    """Return a client for web processes: concurrent requests share 50 connections, and wait up to 2 s for one."""
    return redis_client.connect_waiting(url, 50, 2.0, socket_connect_timeout=2.0, socket_timeout=5.0, retry=None)


def queue_key(asterisk_name: str) -> str:
    return f"{PREFIX}commands:{asterisk_name}"


def reply_key(command_id: str) -> str:
    return f"{PREFIX}reply:{command_id}"


def replies_key(sender: str) -> str:
    return f"{PREFIX}replies:{sender}"


def _done_key(asterisk_name: str) -> str:
    return f"{PREFIX}commands-done:{asterisk_name}"


def encode(addressed: Addressed, command_id: str, expires_at: int, sender: str, within_ms: int = 0) -> bytes:
    return msgspec.json.encode(CommandMessage(command_id, addressed, expires_at, sender, within_ms))


class CommandOrigin(NamedTuple):
    position: str
    """Stream id of the command; "" if the stream no longer has it."""
    sender: str
    """Name of the web process; "" if it is unknown."""


class CommandConsumer:
    """Consumer in the owner: delivers commands in order, each one once."""

    def __init__(
        self,
        client: redis.asyncio.Redis,
        asterisk_name: str,
        deliver: Callable[[CommandReceived | AccountWatched], None],
        is_asterisk_reachable: Callable[[], bool],
        reply: Callable[[CommandReply], None],
        first_connection: Callable[[], Awaitable[object]],
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        """Create a consumer. `reply` writes the reply to an undelivered command. `first_connection` waits until
        Asterisk has been connected. `now_ms` is the clock of events."""
        self._redis = client
        self._name = asterisk_name
        self._deliver = deliver
        self._is_asterisk_reachable = is_asterisk_reachable
        self._reply = reply
        self._first_connection = first_connection
        self._now_ms = now_ms
        self._position: str | None = None
        """Stream id of the last command that was read."""
        self._origins: dict[str, CommandOrigin] = {}
        """Command id -> its origin, until the reply."""
        self._cached_replies: dict[str, CommandReply] = {}
        """Latest replies: a command that is sent twice, because its reply came too late, is executed once."""

    async def run(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_CONNECTION_S):
                # A reply of 503 now would be the end of the commands that the previous owner left undone.
                await self._first_connection()
        outage = LogThrottle()
        while True:
            try:
                await self._read()
                outage.reset()
            except (RedisError, OSError) as error:
                if outage.should_log():
                    log.warning("command read failed", reason=str(error) or type(error).__name__)
                await asyncio.sleep(RETRY_DELAY_S)

    async def _read(self) -> None:
        if self._position is None:
            self._position = await self._done()
        streams: dict[Any, Any] = {queue_key(self._name): self._position}
        found = cast(Any, await self._redis.xread(streams, count=READ_BATCH, block=BLOCK_MS))
        if not found:
            return
        asked_at = boottime()
        redis_ms = await _redis_ms(self._redis)
        for _, entries in found.items() if isinstance(found, dict) else found:
            # With RESP3 the entries of a stream are in one more list.
            for entry in entries[0] if entries and isinstance(entries[0], list) else entries:
                self._position = entry[0].decode()
                # Redis' clock is not beyond this, however long this process was suspended since it asked.
                self._on_message(
                    self._position, entry[1].get(b"command", b""), redis_ms + int((boottime() - asked_at) * 1000) + 1
                )

    async def _done(self) -> str:
        """Return the stream id up to which commands are done, or "0" if it is not one of this stream.

        A write that was on its way when Redis lost its data leaves an id of the old stream, which would hide all new
        commands."""
        done = await cast(Any, self._redis.get(_done_key(self._name)))
        if not done:
            return "0"
        newest = await cast(Any, self._redis.xrevrange(queue_key(self._name), count=1))
        return done.decode() if newest and _position_numbers(done) <= _position_numbers(newest[0][0]) else "0"

    def reset_position(self) -> None:
        """Read the position again after Redis lost its data: the new stream may have lower ids. Old commands expire."""
        self._position = None
        # Their ids are those of the old stream, and must not mark commands of the new one as done.
        self._origins = {command_id: CommandOrigin("", origin.sender) for command_id, origin in self._origins.items()}

    def _on_message(self, position: str, text: bytes, redis_ms: int) -> None:
        """Deliver a command. `redis_ms` is the latest time that Redis' clock may show now."""
        try:
            queued = msgspec.json.decode(text, type=CommandMessage)
        except (ValueError, RecursionError) as error:
            # A web process of another version has sent it.
            log.error("command undecodable", reason=str(error))
            return
        addressed, left_ms = queued.addressed, queued.expires_at - redis_ms
        if queued.within_ms and left_ms > queued.within_ms:
            left_ms = 0
        expires_at = self._now_ms() + left_ms
        if isinstance(addressed, ForNode):
            self._deliver_event(AccountWatched(addressed.command.auth_id, expires_at))
            return
        self._origins[queued.command_id] = CommandOrigin(position, queued.sender)
        if not self._is_asterisk_reachable():
            # Spec: "503 with Retry-After when the call's Asterisk can't be reached"
            unreachable = (("error", "the call's Asterisk is unreachable: try again"),)
            self._reply(CommandReply(queued.command_id, 503, unreachable))
            return
        if (reply := self._cached_replies.get(queued.command_id)) is not None:
            self._reply(reply)
            return
        self._deliver_event(CommandReceived(queued.command_id, addressed, expires_at))

    def _deliver_event(self, event: CommandReceived | AccountWatched) -> None:
        try:
            self._deliver(event)
        except Exception as error:
            # One command that raises must not block all others.
            self._origins.pop(getattr(event, "command_id", ""), None)
            log.error("command raised", exc_info=error, hint=REPORT_HINT)

    def reply_writer(self, reply: CommandReply) -> Callable[[Any], Any]:
        """Return a function that adds the reply to the transaction of the command's step, and may run twice."""
        position, sender = self._origins.pop(reply.command_id, CommandOrigin("", ""))
        if reply.status != 503:
            self._cached_replies[reply.command_id] = reply
            if len(self._cached_replies) > MAX_CACHED_REPLIES:
                del self._cached_replies[next(iter(self._cached_replies))]
        text = msgspec.json.encode(reply)

        def add(pipe: Any) -> None:
            pipe.set(reply_key(reply.command_id), text, ex=REPLY_KEPT_S)
            if position:
                pipe.set(_done_key(self._name), position)
            if sender:
                pipe.publish(replies_key(sender), f"{reply.command_id} ".encode() + text)

        return add


class CommandClient:
    """Client in a web process: sends commands to owners and receives their replies. Its methods raise RedisError."""

    def __init__(self, client: redis.asyncio.Redis, name: str) -> None:
        self._redis = client
        self._name = name
        self._waiting: dict[str, asyncio.Future[CommandReply]] = {}
        self._subscribed = asyncio.Event()

    async def receive_replies(self) -> None:
        """Receive replies, indefinitely."""
        outage = LogThrottle()
        while True:
            pubsub = self._redis.pubsub(ignore_subscribe_messages=True)
            try:
                await pubsub.subscribe(replies_key(self._name))
                self._subscribed.set()
                outage.reset()
                while True:
                    message = await pubsub.get_message(timeout=BLOCK_MS / 1000)
                    if message is not None:
                        self._on_reply(message["data"])
            except (RedisError, OSError) as error:
                if outage.should_log():
                    log.warning("reply read failed", reason=str(error) or type(error).__name__)
                await asyncio.sleep(RETRY_DELAY_S)
            finally:
                self._subscribed.clear()
                await pubsub.aclose()  # type: ignore[no-untyped-call]

    async def send(
        self, asterisk_name: str, addressed: ForConference | ForCall | ForAccount, command_id: str, deadline_s: float
    ) -> CommandReply | None:
        """Send a command and return its reply; None if no reply came in time. Then it is not executed later either.

        The owner may start the command within `deadline_s` seconds; the reply is awaited a second longer.
        """
        self._waiting[command_id] = waiting = asyncio.get_running_loop().create_future()
        began = boottime()
        try:
            # Longer than the owner may take to decide, so that the reply to a decision at the last moment arrives.
            async with asyncio.timeout(deadline_s + REPLY_GRACE_S):
                await self._subscribed.wait()
                redis_ms = await _redis_ms(self._redis)
                # The wait outlasts the expiry, however long Redis takes to pass the command on.
                within_ms = int((deadline_s - (boottime() - began)) * 1000)
                if within_ms <= 0:
                    return None
                text = encode(addressed, command_id, redis_ms + within_ms, self._name, within_ms)
                try:
                    await self._redis.xadd(
                        queue_key(asterisk_name), {"command": text}, maxlen=MAX_STREAM_LENGTH, approximate=True
                    )
                except RedisError as error:
                    # The connection may have broken after Redis got the command, which is then executed. "Not carried
                    # out" is only true of a command that has had its time and got no reply.
                    log.warning("command write unconfirmed", reason=str(error) or type(error).__name__)
                reply: CommandReply | None = await waiting
        except TimeoutError:
            # The reply may have been published while the subscription was broken.
            reply = await self.stored_reply(command_id)
        finally:
            del self._waiting[command_id]
        return reply

    async def watch(self, asterisk_name: str, auth_id: str, for_ms: int) -> None:
        """Tell an owner that the account's conferences have viewers for `for_ms` milliseconds."""
        until = await _redis_ms(self._redis) + for_ms
        text = encode(ForNode(WatchAccount(auth_id)), "", until, self._name, for_ms)
        await self._redis.xadd(queue_key(asterisk_name), {"command": text}, maxlen=MAX_STREAM_LENGTH, approximate=True)

    async def stored_reply(self, command_id: str) -> CommandReply | None:
        found = await cast(Any, self._redis.get(reply_key(command_id)))
        return msgspec.json.decode(found, type=CommandReply) if found else None

    def _on_reply(self, message: bytes) -> None:
        command_id, _, text = message.partition(b" ")
        waiting = self._waiting.get(command_id.decode(errors="replace"))
        if waiting is None or waiting.done():
            return
        try:
            waiting.set_result(msgspec.json.decode(text, type=CommandReply))
        except (ValueError, RecursionError) as error:
            # An owner of another version has sent it. Its command times out; all other replies are received.
            log.error("reply undecodable", reason=str(error))


def send_and_wait(
    client: redis.Redis, asterisk_name: str, addressed: ForAccount, command_id: str, deadline_s: float
) -> CommandReply | None:
    """Send a command like `CommandClient.send`, and block until its reply. Raises RedisError."""
    sender = f"sync-{command_id}"
    until = boottime() + deadline_s + REPLY_GRACE_S
    with client.pubsub(ignore_subscribe_messages=True) as pubsub:  # type: ignore[no-untyped-call]
        pubsub.subscribe(replies_key(sender))
        pubsub.get_message(timeout=REPLY_GRACE_S)  # until Redis has confirmed it
        seconds, micros = client.time()
        within_ms = int(deadline_s * 1000)
        text = encode(addressed, command_id, seconds * 1000 + micros // 1000 + within_ms, sender, within_ms)
        client.xadd(queue_key(asterisk_name), {"command": text}, maxlen=MAX_STREAM_LENGTH, approximate=True)
        while (left_s := until - boottime()) > 0:
            message = pubsub.get_message(timeout=left_s)
            if message is not None:
                return msgspec.json.decode(message["data"].partition(b" ")[2], type=CommandReply)
    # The reply may have been published while the subscription was broken.
    found = cast("bytes | None", client.get(reply_key(command_id)))
    return msgspec.json.decode(found, type=CommandReply) if found else None


async def _redis_ms(client: redis.asyncio.Redis) -> int:
    """Return epoch milliseconds, by Redis' clock."""
    seconds, micros = await client.time()
    return int(seconds) * 1000 + int(micros) // 1000


def _position_numbers(position: bytes) -> tuple[int, ...]:
    """Return a stream id in a comparable form. A text that is none compares as the greatest."""
    numbers = position.split(b"-")
    return tuple(map(int, numbers)) if all(map(bytes.isdigit, numbers)) else (INVALID_POSITION,)

"""The API as a process serves it, on a real Redis; behind it the real core, whose Asterisk is the strict fake."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from redis import Redis

from ari_conf.core import effects as do
from ari_conf.core.conferences.conference import Conference
from ari_conf.core.events import AccountWatched, CommandReceived
from ari_conf.local.processes import free_port
from ari_conf.queues.command_queue import CommandConsumer, connect
from ari_conf.settings import Settings, from_environment
from ari_conf.store import accounts, members, state_store
from ari_conf.store.state_codec import encode, encode_without_members
from ari_conf.web.app import create
from ari_conf.web.server import WebServer
from tests import redis as redis_of
from tests.core.stage import START, Stage, stay

ASTERISK = "fake"


class Owner:
    """`serve` without an Asterisk: its conferences are in Redis after each step."""

    def __init__(self, url: str) -> None:
        self.stage = Stage()
        self.stage.now = START
        self.redis = Redis.from_url(url)
        self.url = url
        self.lock = threading.Lock()
        self.commands: list[CommandReceived] = []
        self.asterisk_is_there = True
        self.deaf = False
        """True: the owner takes commands, and never replies."""
        self.late = False
        """True: the owner writes its replies after the clients have stopped waiting."""
        self._late: list[Any] = []
        self.written = 0
        """The number of effects that are written already."""

    def joins(self, name: str, conference: str = "standup", auth: str = "A", **attributes: Any) -> str:
        """Let the caller join, and return their member id."""
        with self.lock:
            self.stage.call(name, stay(conference, **attributes), auth=auth)
            self._write()
            live = self.stage.conference(conference, auth)
            assert live is not None
            return str(max(live.members))

    def hears(self, name: str) -> set[str]:
        with self.lock:
            return self.stage.hears(name)

    @property
    def channels(self) -> set[str]:
        with self.lock:
            return set(self.stage.asterisk.channels)

    def plays(self, what: Callable[[Stage], Any]) -> None:
        with self.lock:
            what(self.stage)
            self._write()

    def _write(self) -> None:
        changed: list[tuple[str, str]] = []
        for key, thing in self.stage.engine.take_changes().items():
            where = f"ari_conf:state:{ASTERISK}"
            if thing is None:
                self.redis.hdel(where, key)
            elif isinstance(thing, Conference):
                with self.redis.pipeline() as pipe:
                    pipe.hset(where, key, encode_without_members(thing))
                    for command in members.write_commands({key: thing.take_changed_members()}, []):
                        pipe.execute_command(*command)
                    pipe.execute()
                changed.append((thing.auth_id, key))
            else:
                self.redis.hset(where, key, encode(thing))
        live = [c for c in self.stage.engine.conferences.values() if not c.ending]
        for key in self.redis.scan_iter("ari_conf:names:*"):
            self.redis.delete(key)
        for c in live:
            self.redis.hset(state_store.names_key(c.auth_id), c.name, f"{c.conference_id} {ASTERISK}")
        for effect in self.stage.effects[self.written :]:
            if isinstance(effect, do.ReleaseName):
                changed.append((effect.auth_id, effect.conference_id))
        self.written = len(self.stage.effects)
        for auth_id, conference_id in changed:
            self.redis.publish(state_store.changes_key(auth_id), f"{conference_id} {ASTERISK}")

    async def run(self) -> None:
        client = connect(self.url)
        queue = CommandConsumer(
            client,
            ASTERISK,
            lambda event: self._obey(event, queue),
            lambda: self.asterisk_is_there,
            lambda reply: self._reply(reply, queue),
            lambda: asyncio.sleep(0),
        )
        try:
            await queue.run()
        finally:
            await client.aclose()

    def _obey(self, event: CommandReceived | AccountWatched, queue: CommandConsumer) -> None:
        if isinstance(event, AccountWatched):
            lease = event.until - round(time.time() * 1000)
            self.plays(lambda stage: stage.tell(AccountWatched(event.auth_id, stage.now + lease)))
            return
        self.commands.append(event)
        if self.deaf:
            return
        # The stage has its own clock, while the deadline uses the real one.
        late = event.expires_at <= time.time() * 1000
        with self.lock:
            now = self.stage.now
            patient = CommandReceived(event.command_id, event.addressed, now + (0 if late else 1))
            (reply,) = [effect for effect in self.stage.tell(patient) if isinstance(effect, do.CommandReply)]
            self._write()
        self._reply(reply, queue)

    def _reply(self, reply: do.CommandReply, queue: CommandConsumer) -> None:
        pipe = self.redis.pipeline(transaction=True)
        queue.reply_writer(reply)(pipe)
        if self.late:
            self._late.append(pipe)
        else:
            pipe.execute()

    def write_late_ones(self) -> None:
        for pipe in self._late:
            pipe.execute()


class Answered:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.text = response.read()

    @property
    def json(self) -> Any:
        return json.loads(self.text)


class Api:
    """Client that sends requests exactly as given: it neither normalizes a path nor corrects a body."""

    def __init__(self, port: int, auth_id: str, token: str) -> None:
        self.port, self.auth_id, self.token = port, auth_id, token

    def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        account: str | None = None,
        raw: bytes | None = None,
        **headers: str,
    ) -> Answered:
        """Send a request. `path`: percent-encoded, below the account's path unless it starts with a slash."""
        whole = path if path.startswith("/") else f"/v1/Account/{account or self.auth_id}/{path}"
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        named.setdefault("Authorization", basic(self.auth_id, self.token))
        sent = raw if raw is not None else json.dumps(body).encode() if body is not None else None
        if sent is not None:
            named.setdefault("Content-Type", "application/json")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=90)
        try:
            connection.request(method, whole, sent, {name: value for name, value in named.items() if value})
            return Answered(connection.getresponse())
        finally:
            connection.close()

    def get(self, path: str, **more: Any) -> Answered:
        return self.send("GET", path, **more)

    def post(self, path: str, body: Any = None, **more: Any) -> Answered:
        return self.send("POST", path, body, **more)

    def delete(self, path: str, body: Any = None, **more: Any) -> Answered:
        return self.send("DELETE", path, body, **more)


def basic(auth_id: str, token: str) -> str:
    return "Basic " + b64encode(f"{auth_id}:{token}".encode()).decode()


def part(text: str) -> str:
    """Return the text as one part of a path."""
    return quote(text, safe="")


class Served:
    """`ari-conf web` in a thread of its own, beside the owner."""

    def __init__(self, settings: Settings, owner: Owner) -> None:
        self.settings, self.owner = settings, owner
        self.port = free_port()
        self.server = WebServer(create(settings), settings, host="127.0.0.1", port=self.port)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    async def _run(self) -> None:
        self.loop = asyncio.get_running_loop()
        owning = asyncio.create_task(self.owner.run())
        try:
            await self.server.serve()
        finally:
            owning.cancel()
            with suppress(asyncio.CancelledError):
                await owning

    def __enter__(self) -> Served:
        self._thread.start()
        while not self.server.started:
            time.sleep(0.01)
            assert self._thread.is_alive()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self._thread.join(15)


@pytest.fixture(scope="session")
def redis_for_web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis_of.RedisServer]:
    server = redis_of.start(tmp_path_factory.mktemp("web") / "redis")
    yield server
    server.kill()


@pytest.fixture
def variables() -> dict[str, str]:
    """Return the test's own settings. A test may also set them by `within`."""
    return {}


def within(seconds: int) -> pytest.MarkDecorator:
    """Set the deadline for a test in which an owner does not answer in time: the test takes that long."""
    return pytest.mark.parametrize("variables", [{"ARI_CONF_COMMAND_DEADLINE": str(seconds)}], ids=[""])


@pytest.fixture
def owner(redis_for_web: redis_of.RedisServer) -> Iterator[Owner]:
    redis_for_web.client.flushall()
    owner = Owner(redis_for_web.url)
    yield owner
    owner.redis.close()


@pytest.fixture
def served(owner: Owner, variables: dict[str, str], tmp_path: Path) -> Iterator[Served]:
    given = {"ARI_CONF_REDIS_URL": owner.url, "ARI_CONF_API_RATE": "0", "ARI_CONF_COMMAND_DEADLINE": "10"}
    given |= {"ARI_CONF_DATABASE_URL": f"sqlite:///{tmp_path}/history.db", **variables}
    settings = from_environment(given)
    with Served(settings, owner) as served:
        yield served


@pytest.fixture
def api(served: Served) -> Api:
    """Return the client of the account A."""
    return account(served, "A")


def account(served: Served, auth_id: str) -> Api:
    token = accounts.add(served.owner.redis, 0, auth_id).token
    return Api(served.port, auth_id, token)

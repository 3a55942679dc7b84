"""Compared variants: each with a fresh Asterisk, whose configuration is the same for all."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs

from redis import Redis

from ari_conf.ari.translate import BRIDGE_TYPE
from ari_conf.local import asterisk as parts_asterisk
from ari_conf.local import processes
from ari_conf.store import accounts
from tests.bench.receiver import ANSWER, FastReceiver
from tests.bench.sip_asterisk import ANSWERED, BARE, BARE_APP, NATIVE, OURS, BenchAsterisk, BenchSystem

Entries = dict[str, float]
"""Caller -> epoch ms at which the application received the event that the caller is in the bridge."""

CALLBACKS_A_CALL = 2
"""Enter and exit."""


@dataclass
class Stand:
    """A running variant."""

    name: str
    asterisk: BenchAsterisk
    prefix: str
    """The prefix of numbers to dial for the variant."""
    pids: dict[str, int]
    """Process ids of all measured processes, by name."""
    entries: Callable[[], Entries]
    outside: FastReceiver | None = None
    """The answer server and callback receiver."""
    redis_url: str = ""

    def redis_bytes(self) -> int:
        """Return the memory that Redis reports; 0 without one."""
        if not self.redis_url:
            return 0
        with Redis.from_url(self.redis_url) as redis:
            return int(redis.info("memory")["used_memory"])


@asynccontextmanager
async def native(folder: Path) -> AsyncGenerator[Stand]:
    """Run ConfBridge() in the dialplan."""
    with parts_asterisk.running(_asterisk(folder)) as asterisk:
        assert asterisk.process is not None
        yield Stand("ConfBridge", asterisk, NATIVE, {"asterisk": asterisk.process.pid}, dict)


@asynccontextmanager
async def bare(folder: Path, bridge_type: str = "mixing", errands: tuple[str, ...] = ()) -> AsyncGenerator[Stand]:
    """Run the bare Stasis application, the lower bound for any."""
    with parts_asterisk.running(_asterisk(folder)) as asterisk:
        assert asterisk.process is not None
        application = await processes.start(
            "bare",
            [sys.executable, "-m", "tests.bench.bare", asterisk.url, BARE_APP, asterisk.user, bridge_type, *errands],
            folder / "bare.log",
            ready=processes.log_matches("ready"),
            environment=os.environ | {"BARE_PASSWORD": asterisk.password},
        )
        pids = {"asterisk": asterisk.process.pid, "application": application.pid}
        try:
            yield Stand("bare", asterisk, BARE, pids, lambda: _entries(application.read_log()))
        finally:
            await processes.stop(application)


@asynccontextmanager
async def errands(folder: Path) -> AsyncGenerator[Stand]:
    """Run the lower bound for an application that fetches documents and persists its decisions, and does
    nothing else."""
    with FastReceiver(answer=lambda request: _answer(request, floor=False)) as outside:
        async with BenchSystem(folder / "redis", {}, ("redis",)) as system:
            redis = system.settings.redis_url.get_secret_value()
            async with bare(folder, errands=(f"{outside.url}/answer", redis)) as stand:
                stand.pids["redis"] = system.process("redis").pid
                yield stand


@asynccontextmanager
async def ours(folder: Path) -> AsyncGenerator[Stand]:
    async with _ours(folder, floor=False) as stand:
        yield stand


@asynccontextmanager
async def answered(folder: Path) -> AsyncGenerator[Stand]:
    """Run ari_conf with a dialplan that answers before it hands the call over, as ConfBridge() does."""
    async with _ours(folder, floor=False) as stand:
        stand.prefix = ANSWERED
        yield stand


@asynccontextmanager
async def floor(folder: Path) -> AsyncGenerator[Stand]:
    async with _ours(folder, floor=True) as stand:
        yield stand


VARIANTS = {
    "ConfBridge": native,
    "bare": bare,
    "bare, always mixed": partial(bare, bridge_type=BRIDGE_TYPE),
    "bare, with errands": errands,
    "ours": ours,
    "ours, floor events": floor,
    "ours, answered first": answered,
}
"""The variants by name. "Always mixed" is ari_conf's bridge type; otherwise Asterisk mixes from the third member on."""


@asynccontextmanager
async def _ours(folder: Path, *, floor: bool) -> AsyncGenerator[Stand]:
    """Run all of ari_conf: answer URL, callbacks by a worker, state in Redis; each component as `ari-conf up` starts
    it."""
    entered = folder / "entered"
    entered.touch()
    with FastReceiver(answer=lambda request: _answer(request, floor, entered)) as outside:
        configured = {"ARI_CONF_ALLOWED_NETWORKS": "127.0.0.0/8"}
        system = BenchSystem(folder, configured, ("redis", "asterisk", "worker", "serve"))
        async with system:
            redis_url = system.settings.redis_url.get_secret_value()
            redis = Redis.from_url(redis_url)
            accounts.update(redis, system.account, answer_url=f"{outside.url}/answer")
            redis.close()
            names = {"asterisk": "asterisk", "serve": "application", "worker": "worker", "redis": "redis"}
            pids = {name: system.process(part).pid for part, name in names.items()}
            yield Stand("ours", system.asterisk, OURS, pids, lambda: _entries(entered.read_text()), outside, redis_url)


def _answer(request: bytes, floor: bool, entered: Path | None = None) -> bytes:
    """Return a document for a request to the answer URL, and an empty response to a callback.

    `entered` gets a line for each `enter` callback: the caller, and its Timestamp in epoch ms.
    """
    head, _, body = request.partition(b"\r\n\r\n")
    if not head.startswith(b"POST /answer"):
        if entered is not None and b"Event=ConferenceEnter&" in body + b"&":
            params = parse_qs(body.decode())
            with entered.open("a") as file:
                file.write(f"{params['From'][0]} {float(params['Timestamp'][0])}\n")
        return ANSWER
    to = parse_qs(body.decode())["To"][0]
    host = next(line[5:].strip() for line in head.split(b"\r\n") if line.lower().startswith(b"host:")).decode()
    attributes = f'callbackUrl="http://{host}/callback" floorEvent="{"true" if floor else "false"}"'
    document = f"<Response><Conference {attributes}>conference {to}</Conference></Response>".encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: %d\r\n\r\n%s" % (len(document), document)


def _asterisk(folder: Path) -> BenchAsterisk:
    # No process listens for its WebSocket here: outbound, Asterisk would try forever to connect.
    return BenchAsterisk(folder / "asterisk", parts_asterisk.find(), outbound=False)


def _entries(log: str) -> Entries:
    return {caller: float(at) for caller, at in re.findall(r"^(\d+) (\d+\.\d+)$", log, re.MULTILINE)}


@asynccontextmanager
async def standing(variant: str) -> AsyncGenerator[Stand]:
    """Run the variant in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="ari_conf-bench-") as folder:
        async with VARIANTS[variant](Path(folder)) as stand:
            stand.name = variant
            yield stand

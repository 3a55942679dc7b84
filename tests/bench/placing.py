"""`make bench-placing`: the time from a request for a call to its INVITE, and calls placed while others arrive.

Part `invite`: the time from a request to the INVITE at the phone, of three variants in turns within one run: `POST
Call/`; the bare `POST /ari/channels` of the same Asterisk; and a small application that does what is needed to neither
lose a call nor dial it twice: it takes the request by HTTP, reads the account and the limits from Redis, writes the
call there, creates the channel, writes that, and dials. Part `both`: calls are placed and joined to conferences at
one rate while as many arrive. Each of them is followed by its UUID until it has entered its conference, and those that
fail are counted, with the reason.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Self
from urllib.parse import parse_qs
from uuid import uuid4

import aiohttp
import redis.asyncio
from aiohttp import web
from redis import Redis
from rich.console import Console

from ari_conf.dialing import trunk_store, trunks
from ari_conf.store import accounts
from tests.bench import sip_load
from tests.bench.receiver import ANSWER, FastReceiver
from tests.bench.sip_asterisk import OURS, BenchSystem
from tests.integration.answering_phones import Phones

APP = "bench-originate"
CALLER = "4930123456"
PAUSE_S = 0.15
"""Seconds between two requests of the part `invite`: nothing of the one before runs any more."""
HOLD_S = 8.0
"""Seconds that a call of the part `both` lasts, whether it was placed or has arrived."""
MEMBERS = 20
"""Members of a conference: as many as an account may have in one by default."""
GOAL = 2.0
"""Most that the ratio of `POST Call/` to another variant should be."""
OTHERS = {"bare": "a bare originate", "errands": "an application that loses no call"}
STATE = b"x" * 2000
"""The state of a call."""
WAIT_S = 20.0

console = Console(highlight=False)


@dataclass
class Figures:
    """Result. Times in milliseconds, one list per variant: `ours`, `bare` and `errands`."""

    invite_ms: dict[str, list[float]] = field(default_factory=dict)
    placed: int = 0
    arrived: int = 0
    joined: int = 0
    """Calls of both kinds that have entered a conference."""
    rate: float = 0.0
    failures: dict[str, int] = field(default_factory=dict)
    """Reason -> number of calls. A call fails once, at the first thing that does not happen."""

    def ratio(self, of: str, beside: str) -> float:
        return _figure(self.invite_ms["ours"], of) / _figure(self.invite_ms[beside], of)


def _figure(values: list[float], of: str) -> float:
    return median(values) if of == "median" else quantiles(values, n=20)[-1]


@dataclass(frozen=True)
class Asked:
    """CallUUIDs that the application was asked about."""

    inbound: frozenset[str] = frozenset()
    """Calls that have arrived, and whose document was requested."""
    outbound: frozenset[str] = frozenset()
    """Calls that were placed, and whose document was requested."""
    entered: frozenset[str] = frozenset()
    """Calls that are reported to have entered a conference."""


class Application:
    """Answers of the receiver, which runs in its own process, and its log of the calls that it was asked about."""

    def __init__(self, log: Path) -> None:
        self._log = log
        log.touch()

    def answer(self, request: bytes) -> bytes:
        head, _, body = request.partition(b"\r\n\r\n")
        params = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        if not head.startswith(b"POST /answer"):
            if params.get("ConferenceAction") == "enter":
                self._note("entered", params)
            return ANSWER
        self._note(params["Direction"], params)
        host = next(line[5:].strip() for line in head.split(b"\r\n") if line.lower().startswith(b"host:")).decode()
        room = room_of(params["To"], params["Direction"])
        document = f'<Response><Conference callbackUrl="http://{host}/callback">{room}</Conference></Response>'
        return b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: %d\r\n\r\n%s" % (
            len(document),
            document.encode(),
        )

    def _note(self, what: str, params: Mapping[str, str]) -> None:
        with self._log.open("a") as log:
            log.write(f"{what} {params['CallUUID']}\n")

    def asked(self) -> Asked:
        found: dict[str, set[str]] = {"inbound": set(), "outbound": set(), "entered": set()}
        for line in self._log.read_text().splitlines():
            what, _, call_uuid = line.partition(" ")
            found[what].add(call_uuid)
        return Asked(*map(frozenset, found.values()))


def room_of(to: str, direction: str) -> str:
    """Return the name of the conference of a call, for MEMBERS calls each.

    A caller dials the conference's number. Placed calls have consecutive numbers, of which only the user part of a SIP
    URI counts: its port would be the same for all."""
    digits = re.sub(r"\D", "", to.partition("@")[0])
    return f"in {digits}" if direction == "inbound" else f"out {int(digits) // MEMBERS}"


def failures_of(
    placed: Mapping[str, str], dialed: Mapping[str, int], asked: Asked, arriving: int, answered: int
) -> Counter[str]:
    """Return reason -> number of calls, for those that the API has accepted and those that arrive.

    `placed`: CallUUID -> number called. `dialed`: number called -> times that it was dialed."""
    found = Counter[str]()
    for call_uuid, number in placed.items():
        if (times := dialed.get(number, 0)) != 1:
            found["a placed call was not dialed" if times == 0 else "a placed call was dialed more than once"] += 1
        elif call_uuid not in asked.outbound:
            found["the document of a placed call was not requested"] += 1
        elif call_uuid not in asked.entered:
            found["a placed call did not enter its conference"] += 1
    # Callers do not know the UUIDs of their calls, so those who got no further are differences.
    without_document, outside = arriving - len(asked.inbound), len(asked.inbound - asked.entered)
    found["the document of an arriving call was not requested"] = without_document
    found["an arriving call did not enter its conference"] = outside
    found["an arriving call was not answered"] = arriving - answered - without_document - outside
    return +found


class Bench:
    def __init__(
        self, system: BenchSystem, phones: Phones, outside: FastReceiver, application: Application,
        api: aiohttp.ClientSession, ari: aiohttp.ClientSession,
    ) -> None:  # fmt: skip
        self.system, self.phones, self.outside, self.application = system, phones, outside, application
        self.api, self.ari = api, ari
        self._number = 0

    def next_number(self) -> str:
        self._number += 1
        return f"49151{self._number:06}"

    def uri(self, number: str) -> str:
        return f"sip:{number}@{self.phones.host}"

    async def place(self, number: str) -> tuple[int, str]:
        """Place a call by the API; return the status and the reply."""
        body = {"from": CALLER, "to": self.uri(number), "answer_url": f"{self.outside.url}/answer"}
        url = f"{self.system.settings.public_url}/v1/Account/{self.system.account}/Call/"
        async with self.api.post(url, json=body) as response:
            return response.status, await response.text()

    async def originate(self, number: str) -> None:
        """Place a call as a bare ARI application does."""
        query = {"endpoint": f"PJSIP/anonymous/{self.uri(number)}", "app": APP, "callerId": CALLER}
        async with self.ari.post(f"{self.system.asterisk.url}/channels", params=query) as response:
            if response.status != 200:
                raise RuntimeError(f"originate: status {response.status}, {await response.text()}")

    async def hang_up(self, call_uuid: str) -> None:
        """Hang up a placed call that may have ended already."""
        url = f"{self.system.settings.public_url}/v1/Account/{self.system.account}/Call/{call_uuid}/"
        async with self.api.delete(url) as response:
            if response.status not in (204, 404):
                raise RuntimeError(f"hanging up: status {response.status}, {await response.text()}")

    async def hang_up_all(self) -> None:
        url = f"{self.system.settings.public_url}/v1/Account/{self.system.account}/Call/"
        async with self.api.delete(url):
            pass
        async with self.ari.get(f"{self.system.asterisk.url}/channels") as response:
            channels = await response.json()
        for channel in channels:
            async with self.ari.delete(f"{self.system.asterisk.url}/channels/{channel['id']}"):
                pass


@asynccontextmanager
async def bench() -> AsyncGenerator[Bench]:
    with tempfile.TemporaryDirectory(prefix="ari_conf-bench-") as folder, _receiving(Path(folder)) as received:
        outside, application = received
        # No queue for calls beyond a rate: the rate is what is measured.
        configured = {"ARI_CONF_ALLOWED_NETWORKS": "127.0.0.0/8", "ARI_CONF_DIALS_PER_SECOND": "0"}
        parts = ("redis", "asterisk", "worker", "serve", "web")
        async with BenchSystem(Path(folder), configured, parts) as system, Phones() as phones:
            token = _allow(system, phones, outside)
            asterisk = system.asterisk
            api_login = {"Authorization": aiohttp.encode_basic_auth(system.account, token)}
            ari_login = {"Authorization": aiohttp.encode_basic_auth(asterisk.user, asterisk.password)}
            async with aiohttp.ClientSession(headers=api_login) as api, aiohttp.ClientSession(headers=ari_login) as ari:
                yield Bench(system, phones, outside, application, api, ari)


@contextmanager
def _receiving(folder: Path) -> Generator[tuple[FastReceiver, Application]]:
    application = Application(folder / "asked.log")
    with FastReceiver(answer=application.answer) as outside:
        yield outside, application


def _allow(system: BenchSystem, phones: Phones, outside: FastReceiver) -> str:
    """Let the account call the phones, and return its token."""
    client = Redis.from_url(system.settings.redis_url.get_secret_value())
    try:
        trunk = {"dial": "PJSIP/{number}@anonymous", "hosts": [phones.host], "calls": 0, "per_second": 0}
        trunk_store.add(client, trunks.make("bench", trunk), (), lambda *_: None)
        accounts.update(
            client, system.account, answer_url=f"{outside.url}/answer", dial_prefixes=f"sip:{phones.host}",
            dial_caller_ids="+4930*", dial_calls=10_000, dial_calls_per_minute=100_000, dial_minutes_per_day=100_000,
        )  # fmt: skip
        record = accounts.get(client, system.account)
        assert record is not None
        return record.token
    finally:
        client.close()


class Errands:
    """Application that does what is needed so that no call is lost or dialed twice, and nothing else."""

    def __init__(self, run: Bench) -> None:
        self._run = run
        self._created: dict[str, asyncio.Event] = {}
        self._url = ""

    async def __aenter__(self) -> Self:
        self._redis: Any = redis.asyncio.Redis.from_url(self._run.system.settings.redis_url.get_secret_value())
        self._socket = await self._run.ari.ws_connect(
            f"{self._run.system.asterisk.url}/events?app={APP}&subscribeAll=false"
        )
        self._events = asyncio.create_task(self._listen())
        application = web.Application()
        application.router.add_post("/call", self._answer)
        self._runner = web.AppRunner(application)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self._url = "http://{}:{}/call".format(*self._runner.addresses[0])
        return self

    async def __aexit__(self, *_: object) -> None:
        self._events.cancel()
        await asyncio.gather(self._events, return_exceptions=True)
        await self._runner.cleanup()
        await self._socket.close()
        await self._redis.aclose()

    async def place(self, number: str) -> None:
        async with self._run.api.post(self._url, json={"to": number}) as response:
            response.raise_for_status()

    async def _listen(self) -> None:
        async for message in self._socket:
            event = json.loads(message.data)
            if event["type"] == "StasisStart" and event["channel"]["id"] in self._created:
                self._created.pop(event["channel"]["id"]).set()

    async def _answer(self, request: web.Request) -> web.Response:
        number, channel_id, ari = (await request.json())["to"], str(uuid4()), self._run.ari
        await self._redis.hget(accounts.KEY, self._run.system.account)
        await self._redis.incr("bench:calls")
        await self._redis.hset("bench:state", channel_id, STATE)
        created = self._created[channel_id] = asyncio.Event()
        query = {"endpoint": f"PJSIP/anonymous/{self._run.uri(number)}", "app": APP, "channelId": channel_id}
        async with ari.post(f"{self._run.system.asterisk.url}/channels/create", params=query) as response:
            response.raise_for_status()
        await created.wait()
        await self._redis.hset("bench:state", channel_id, STATE)
        async with ari.post(f"{self._run.system.asterisk.url}/channels/{channel_id}/dial") as response:
            response.raise_for_status()
        return web.json_response({"request_uuid": channel_id}, status=201)


async def measure_invite(run: Bench, calls: int) -> dict[str, list[float]]:
    """Measure the milliseconds from a request to its INVITE, of the variants in turns."""
    found: dict[str, list[float]] = {"ours": [], "bare": [], "errands": []}
    async with Errands(run) as errands:
        variants = {"ours": run.place, "bare": run.originate, "errands": errands.place}
        for turn in range(calls + 5):
            for variant, place in variants.items():
                number, began = run.next_number(), time.time() * 1000
                _, at_ms = await asyncio.gather(place(number), run.phones.invite_of(number))
                if turn >= 5:  # those before have opened the connections
                    found[variant].append(at_ms - began)
                await asyncio.sleep(PAUSE_S)
        await run.hang_up_all()
    return found


async def measure_both(run: Bench, rate: float, seconds: float, result: Figures) -> None:
    """Place calls, and let as many arrive, at `rate` per second; count those that fail, with the reason."""
    count, failures = round(rate * seconds), Counter[str]()
    callers = sip_load.Callers(run.system.asterisk, sip_load.lines(OURS, count, MEMBERS), rate, HOLD_S)
    await callers.start()
    placed: dict[str, str] = {}
    numbers = [run.next_number() for _ in range(count)]
    began = time.monotonic()

    async def place(at: int, number: str) -> None:
        await asyncio.sleep(max(0.0, began + at / rate - time.monotonic()))
        try:
            status, text = await run.place(number)
        except (TimeoutError, aiohttp.ClientError) as error:
            failures[f"placing: {type(error).__name__}"] += 1
            return
        if status != 201:
            failures[f"placing: {status}: {text[:100]}"] += 1
            return
        call_uuid = json.loads(text)["request_uuid"]
        placed[call_uuid] = number
        await asyncio.sleep(HOLD_S)
        await run.hang_up(call_uuid)

    await asyncio.gather(*(place(at, number) for at, number in enumerate(numbers)))
    await callers.ended()
    # The callbacks about the last calls may still be on their way.
    end = time.monotonic() + WAIT_S

    def not_entered() -> int:
        asked = run.application.asked()
        return len(placed.keys() - asked.entered) + count - len(asked.inbound & asked.entered)

    while not_entered() and time.monotonic() < end:  # noqa: ASYNC110 -- another process counts
        await asyncio.sleep(0.2)
    asked = run.application.asked()
    dialed = {number: len(run.phones.calls[number]) for number in numbers}
    answered = sum(call.answered_ms is not None for call in callers.calls())
    failures.update(failures_of(placed, dialed, asked, count, answered))
    await run.hang_up_all()
    result.placed, result.arrived, result.rate = count, count, rate
    result.joined = len(asked.entered & (asked.inbound | placed.keys()))
    result.failures = dict(failures)


async def run(parts: list[str], calls: int, rate: float, seconds: float) -> Figures:
    result = Figures()
    async with bench() as running:
        if "invite" in parts:
            result.invite_ms = await measure_invite(running, calls)
        if "both" in parts:
            await measure_both(running, rate, seconds, result)
    return result


def told(found: Figures) -> list[str]:
    """Return the figures in words."""
    lines = []
    if found.invite_ms:
        for of in ("median", "p95"):
            for beside, name in OTHERS.items():
                ours, other = (_figure(found.invite_ms[variant], of) for variant in ("ours", beside))
                holds = "yes" if round(found.ratio(of, beside), 2) <= GOAL else "no"
                ratio = f"{found.ratio(of, beside):.2f} times {name} ({ours:.1f} and {other:.1f} ms)"
                lines.append(f"API request to INVITE, {of}: {ratio}; goal {GOAL:g}: {holds}")
    if found.placed:
        total, failed = found.placed + found.arrived, sum(found.failures.values())
        rates = f"{found.rate:g} placed and {found.rate:g} arriving calls per second"
        lines.append(f"{rates}: {failed} of {total} failed, {found.joined} entered their conference")
        lines += [f"  {number} times: {reason}" for reason, number in found.failures.items()]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench-placing", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=("invite", "both", []), help="parts to run; all if none is given")
    parser.add_argument("--calls", type=int, default=100, metavar="N", help="calls of each variant in `invite` (100)")
    parser.add_argument("--rate", type=float, default=20.0, help="calls placed, and arriving, per second (20)")
    parser.add_argument("--seconds", type=float, default=15.0, help="seconds for which calls are placed (15)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file as well")
    given = parser.parse_args()
    console.print(f"on {os.cpu_count()} cores", style="dim")
    found = asyncio.run(run(given.parts or ["invite", "both"], given.calls, given.rate, given.seconds))
    if given.json is not None:
        given.json.write_text(json.dumps(asdict(found), indent=2))
    for line in told(found):
        console.print(line)


if __name__ == "__main__":
    main()

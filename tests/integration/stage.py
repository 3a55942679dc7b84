"""Where a scenario plays: a whole system, an account of its own, a receiver of its own, and phones that call.

async with stage.callers(2) as (ann, bob):
    await stage.call(ann, '<Conference callbackUrl="{url}/events">standup</Conference>')
    await stage.event("ConferenceEnter", ConferenceFirstMember="true")
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import numpy as np
from redis import Redis

from ari_conf import accounts, identity
from ari_conf.ari.client import Client, Server
from ari_conf.media.beeps import wav
from ari_conf.parts import asterisk
from ari_conf.problems import read_problems
from ari_conf.takeover import NEXT_MEMBER_ID
from ari_conf.up import System
from demo import listen
from demo.g711 import RATE
from demo.heard import Samples
from demo.phone import Phone, Switchboard, now_ms
from tests.chaos.witness import prefer
from tests.integration.receiver import Receiver, Request
from tests.lateness import SOON_S, Patience, late_ms, stalled_ms

ON_ITS_WAY_MS = 60
"""Until what is said now has been heard."""
LATE_MS = 100
PATIENT = "ct=10000&rc=5"
"""The policy of a callback where workers may be late for a connection of their own: they yield to what else runs."""
JUST_NOW_MS = 1000
GAP_MS = 100.0
"""The longest pause in somebody's voice that nobody notices."""
KEPT = re.compile(
    r"ari_conf:(accounts$|owner:|lease:|clock:|standby:|problems:|written:|state:|recording|commands|repl|idempotency:"
    r"|login:|logins:|auth-failures:|api-rate:|strangers$|celery:|transcribers$"
    r"|(callbacks|recordings|transcriptions):(counts|threads|token|workers|dead:.*|delivered:.*)$)"
)
"""What Redis is to keep: accounts, what is told of them and their recordings; workers; the answers of commands and
log-ins, for a while. `state:` holds the next member's id; what else it holds is looked at by itself."""
SETTLED_S = 20.0
"""By then nothing of a scenario may be left anywhere."""
ALLOWED = {"ARI_CONF_ALLOWED_NETWORKS": "127.0.0.0/8", "ARI_CONF_LOG_LEVEL": "debug"}
"""So that a system may ask the tests' own servers, and each event and effect is in its log."""


class PartEnded(AssertionError):
    """A part of the system ended, and no scenario had asked for it."""


def _music() -> list[Path]:
    root = asterisk.DEFAULT_ROOT if (asterisk.DEFAULT_ROOT / ".complete").exists() else Path("/")
    return sorted((root / "usr/share/asterisk/moh").glob("*.wav"))


MUSIC = _music()


class Stage:
    last_music: ClassVar[Path | None] = None
    """Asterisk mostly begins with the same file: looked for first."""

    def __init__(self, system: System, receiver: Receiver, redis: Redis, ari: Client) -> None:
        self.system = system
        self.receiver = receiver
        self.redis = redis
        self.ari = ari
        self.account = f"T{uuid4().hex[:12]}"
        self.token = accounts.add(redis, int(time.time() * 1000), self.account).token
        receiver.token = self.token
        receiver.still_of_use = self.all_run
        self.calls = 0
        self.asterisk_name = ""
        self.seen: list[str] = []
        """What the scenario reports of itself, for the table."""

    def saw(self, what: str) -> None:
        """For the table of conformance."""
        self.seen.append(what)

    @property
    def url(self) -> str:
        return self.receiver.url("")

    def set_account(self, **fields: str) -> None:
        """Of the account: answer_url, fallback_url, hangup_url, …; `{url}` in them is the receiver."""
        accounts.update(self.redis, self.account, **{name: self._filled(text) for name, text in fields.items()})

    def document(self, path: str, body: str) -> str:
        """Puts a document up: `body` is what stands in <Response>; `{url}` in it is the receiver. Returns its URL."""
        self.receiver.documents[path] = f"<Response>{self._filled(body)}</Response>"
        return self.receiver.url(path)

    def tones(self, path: str, *parts: tuple[int, int]) -> str:
        """Puts a sound file up: (Hz, ms) one after another, 0 Hz is silence. Returns its URL."""
        at = np.concatenate([np.full(ms * RATE // 1000, hz) for hz, ms in parts])
        pcm = np.round(np.sin(2 * np.pi * np.cumsum(at) / RATE) * 8000).astype("<i2")
        self.receiver.documents[path] = wav(pcm.tobytes(), RATE)
        return self.receiver.url(path)

    def _filled(self, text: str) -> str:
        return text.replace("{url}", self.url)

    @asynccontextmanager
    async def callers(self, count: int) -> AsyncGenerator[tuple[Phone, ...]]:
        async with Switchboard(count) as phones:
            yield phones

    async def call(self, phone: Phone, body: str, *, account: str | None = None, **more: Any) -> float:
        """The phone calls, its document is `body`. Returns when it is answered: epoch ms of that."""
        self.calls += 1
        source = self.document(f"/document/{self.calls}", body)
        await self.dial(phone, source, account=account, **more)
        return now_ms()

    async def dial(self, phone: Phone, document: str | None, *, account: str | None = None, **more: Any) -> None:
        """`document`: a URL, a kept document's name, or None for the account's answer URL."""
        more.setdefault("from_user", self.number(phone))
        headers = dict(more.pop("headers", {}))
        headers["X-Ari-Conf-Account"] = account or self.account
        if document is not None:
            headers["X-Ari-Conf-Document"] = document
        to = more.pop("to", "15550100")
        await phone.call(f"sip:{to}@{self.system.sip_address}", headers=headers, **more)

    def number(self, phone: Phone) -> str:
        """That the phone calls from: From in the requests."""
        return f"1555{phone.name.split()[-1]:0>4}"

    async def event(self, name: str, timeout: float = SOON_S, of: Phone | None = None, **params: str) -> Request:
        """The first request of that Event: about that phone's call, with those parameters."""
        who = {"From": self.number(of)} if of else {}
        return await self.receiver.event(name, timeout, **who, **params)

    async def enters(self, phone: Phone, **params: str) -> Request:
        return await self.event("ConferenceEnter", of=phone, **params)

    async def leaves(self, phone: Phone, **params: str) -> Request:
        return await self.event("ConferenceExit", of=phone, **params)

    def events(self, name: str) -> list[Request]:
        return [request for request in self.receiver.requests if request.params.get("Event") == name]

    def problems(self) -> list[str]:
        return [problem.text for problem in read_problems(self.redis, self.account)]

    async def asterisk(self) -> str:
        """Which one it is."""
        return f"Asterisk {(await self.ari.request('GET', '/asterisk/info'))['system']['version']}"

    async def until(self, what: Callable[[], Any], within: float = SOON_S, told: str = "") -> Any:
        """Waits for what no event tells, such as enough audio; looks every 20 ms."""
        patience = Patience(within)
        while not (found := what()):
            self.all_run()
            assert not patience.over, f"not within {within} s: {told or what}"
            await asyncio.sleep(0.02)
        return found

    # What is heard.

    async def listen(self, phone: Phone, ms: float = 1000) -> Samples:
        """What the phone hears in the next `ms`."""
        start = now_ms()
        # In real time. By the clock, since Asterisk sends nothing at all while there is nothing to be heard.
        await asyncio.sleep((ms + ON_ITS_WAY_MS) / 1000)
        if phone.heard.end_ms < start + ms:
            # What a late machine has still to bring.
            await asyncio.sleep(stalled_ms(start, now_ms()) / 1000)
        return phone.heard.between(start, start + ms)

    async def hears(self, phone: Phone, hz: int, within: float = SOON_S, after: float = 0.0) -> float:
        """Waits until the phone hears that tone; epoch ms since when (of what it heard since `after`, epoch ms)."""

        def since() -> float | None:
            heard = phone.heard
            start = max(after, heard.start_ms)
            spans = listen.intervals_of(heard.since(start), hz)
            return start + spans[0][0] if spans else None

        return float(await self.until(since, within, f"{phone.name} does not hear {hz} Hz"))

    async def goes_quiet(self, phone: Phone, for_ms: float = 400, within: float = SOON_S) -> float:
        """Waits until the phone has heard nothing for so long; epoch ms since when."""

        def quiet() -> float | None:
            now, heard = now_ms(), phone.heard
            since = now - for_ms - ON_ITS_WAY_MS
            # Nothing may also come because the machine is late.
            if now - since - stalled_ms(since, now) < for_ms or not listen.silent(heard.between(since, now)):
                return None
            before = heard.between(now - 10_000, now)
            loud = [at for at in range(0, len(before), 160) if not listen.silent(before[at : at + 160])]
            return now - 10_000 + (loud[-1] + 160) * 1000 / RATE if loud else now - for_ms

        return float(await self.until(quiet, within, f"{phone.name} still hears something"))

    def gaps(self, ear: Phone, hz: int, since: float, voice: Phone | None = None) -> listen.Spans:
        """Where that tone, of `voice`, was not heard for over 100 ms; less what this machine was late itself."""
        late = [*ear.late, *(voice.late if voice else ())]
        start = max(since, ear.heard.start_ms)

        def own(from_ms: float, to_ms: float) -> float:
            first, last = start + from_ms - 100, start + to_ms + 100
            return max([stalled_ms(first, last), *(by for at, by in late if first <= at <= last)])

        found = listen.gaps(ear.heard.since(start), hz, longest_ms=GAP_MS)
        return [(a, b) for a, b in found if b - a - own(a, b) > GAP_MS]

    def is_music(self, heard: Samples) -> bool:
        """The default music on hold, known by its samples, of which a late machine leaves out some."""
        slip_ms = slip_of(heard)
        for path in sorted(MUSIC, key=lambda path: path != Stage.last_music):
            if listen.contains(heard, listen.wav(path), slip_ms).score > listen.FOUND:
                Stage.last_music = path
                return True
        return False

    # The end.

    def all_run(self) -> None:
        """Raises PartEnded, with the last words of that part."""
        if ended := ended_parts(self.system, "during this scenario"):
            raise PartEnded(ended)

    def all_there(self) -> None:
        """Raises PartEnded also for what the scenario itself has stopped."""
        if stopped := [part for part in self.system.parts if not _has(self.system, part)]:
            raise PartEnded(f"this scenario stopped {' and '.join(stopped)}, and did not start it again")

    async def ends_well(self) -> None:
        """No part has ended by itself, nothing is left, and all requests were signed."""
        self.all_run()
        try:
            await self.nothing_left()
        except Exception:
            self.all_run()
            raise
        self.receiver.all_signed()

    async def nothing_left(self) -> None:
        """No channel (a recording or a playback is one), bridge, state, name or waiting callback of anybody's."""
        patience = Patience(SETTLED_S)
        while left := await self._left():
            self.all_run()
            assert not patience.over, f"left after the scenario: {left}"
            await asyncio.sleep(0.05)

    def _files(self) -> list[str]:
        """What is unfinished, and recordings that Asterisk still has: each is handed on and deleted there."""
        settings = self.system.settings
        folders = [settings.sounds_folder / "parts"]
        if {"worker", "s3"} <= set(self.system.parts) and settings.recording_folder is not None:
            folders.append(settings.recording_folder)
        return [str(path) for folder in folders for path in folder.rglob("*") if path.is_file()]

    def _state(self) -> list[str]:
        keys = self.redis.hkeys(f"ari_conf:state:{self.asterisk_name}")
        return [key.decode() for key in keys if key.decode() != NEXT_MEMBER_ID]

    async def _left(self) -> dict[str, Any]:
        there = {path: await self.ari.request("GET", path) for path in ("/channels", "/bridges")}
        left: dict[str, Any] = {path: [o.get("id") or o.get("name") for o in found] for path, found in there.items()}
        left["state"] = self._state()
        left["names"] = self.redis.hgetall(f"ari_conf:names:{self.account}")
        keys = [key.decode() for key in self.redis.scan_iter("ari_conf:*")]
        left["keys"] = [key for key in keys if not KEPT.match(key)]
        left["files"] = self._files()
        return {what: found for what, found in left.items() if found}


@asynccontextmanager
async def staged(system: System) -> AsyncGenerator[Stage]:
    """Raises if a part ends meanwhile, or if something is left in the end."""
    if "asterisk" in system.parts:
        prefer(system.process("asterisk").pid)
    redis = Redis.from_url(system.settings.redis_url.get_secret_value())
    ari = ari_of(system)
    await ari.start()
    try:
        async with Receiver() as receiver:
            stage = Stage(system, receiver, redis, ari)
            stage.asterisk_name = identity.checked(await ari.request("GET", "/asterisk/info"))
            yield stage
            await stage.ends_well()
    finally:
        await ari.close()
        redis.close()


def _has(system: System, part: str) -> bool:
    try:
        return bool(system.process(part))
    except KeyError:
        return False


def ended_parts(system: System, when: str) -> str:
    """Those that nobody had asked to end, how they ended, and their last words; "" if there are none."""
    return "\n".join(f"{part.end} {when}; its last words:\n{part.last_words(3)}" for part in system.ended())


def spans_of(samples: Samples, hz: int, hole_ms: float = LATE_MS) -> listen.Spans:
    """When the tone sounds, in ms from the start. On a busy machine packets come late: such a hole is no pause."""
    spans: listen.Spans = []
    for start, end in listen.intervals_of(samples, hz):
        if spans and start - spans[-1][1] < hole_ms:
            start, _ = spans.pop()
        spans.append((start, end))
    return spans


def slip_of(heard: Samples) -> float:
    """By how many ms what was heard just now may have slipped: Asterisk leaves out what the machine was late for."""
    ms, now = len(heard) / 8, now_ms()
    return listen.SLIP_MS + late_ms(now - ms - JUST_NOW_MS, now)


def ari_of(system: System) -> Client:
    """A client of the test's own: for requests only."""
    s = system.settings
    nobody = Server(
        s.ari_url, "nobody", s.ari_user, s.ari_password.get_secret_value(), ("127.0.0.1", 0), patience=86400.0
    )
    return Client(nobody, _ignore)


def _ignore(_event: dict[str, Any]) -> None:
    pass

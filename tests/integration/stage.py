"""The stage of a scenario: a whole system, the scenario's own account and receiver, and phones that call.

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

from ari_conf.ari.address import AriConfig
from ari_conf.ari.client import Client
from ari_conf.local import asterisk
from ari_conf.local.system import LocalSystem
from ari_conf.media.tones import wav
from ari_conf.ownership import asterisk_identity
from ari_conf.queues import queue_names
from ari_conf.server.takeover import NEXT_MEMBER_ID
from ari_conf.store import accounts
from ari_conf.store.problems import read_problems
from demo import audio_analysis
from demo.g711 import RATE
from demo.phone import Phone, Switchboard, now_ms
from demo.received_audio import Samples
from tests.chaos.witness import prefer
from tests.integration.receiver import Receiver, Request
from tests.lateness import SOON_S, Patience, late_ms, stalled_ms

ON_ITS_WAY_MS = 60
"""ms until audio that a phone sends now has been heard."""
LATE_MS = 100
PATIENT = "ct=10000&rc=5"
"""The policy of callbacks whose workers may connect late: workers yield the processor to everything else."""
JUST_NOW_MS = 1000
GAP_MS = 100.0
"""The longest pause in somebody's voice that nobody notices."""
KEPT = re.compile(
    r"ari_conf:(accounts$|asterisks$|trunks$|dialing-|owner:|lease:|clock:|standby:|problems:|last-batch:|state:|state-version$|recording|commands|repl|idempotency:"
    r"|history-(entries|files)$|(admin-)?sessions?|removals$|audit$|auth-failures:|api-rate:|unknown-accounts$|celery:|transcribers$"
    rf"|({'|'.join(queue_names.ALL)}):(counts|threads|workers|health|dead-letters:.*|delivered:.*)$)"
)
"""Keys that stay in Redis: accounts, their problems and recordings; workers; for a while, the replies of commands and
sessions. `state:` holds the next member's id; the rest of its content is checked separately."""
SETTLED_S = 20.0
"""Seconds after which nothing of a scenario may be left anywhere."""
ADMIN_KEY = "administrator-of-the-tests-0123456789"
ALLOWED = {
    "ARI_CONF_ALLOWED_NETWORKS": "127.0.0.0/8",
    "ARI_CONF_LOG_LEVEL": "debug",
    "ARI_CONF_ADMIN_KEY": ADMIN_KEY,
}
"""Settings that let a system use the tests' own servers and log each event and effect."""


class PartEnded(AssertionError):
    """A part of the system that ended without a scenario's request."""


def _music() -> list[Path]:
    root = asterisk.DEFAULT_ROOT if (asterisk.DEFAULT_ROOT / ".complete").exists() else Path("/")
    return sorted((root / "usr/share/asterisk/moh").glob("*.wav"))


MUSIC = _music()


class Stage:
    last_music: ClassVar[Path | None] = None
    """The file to look for first, because Asterisk mostly begins with the same one."""

    def __init__(self, system: LocalSystem, receiver: Receiver, redis: Redis, ari: Client) -> None:
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
        """The scenario's own results, for the table of conformance."""

    def saw(self, what: str) -> None:
        """Report a result for the table of conformance."""
        self.seen.append(what)

    @property
    def url(self) -> str:
        return self.receiver.url("")

    def set_account(self, **fields: str) -> None:
        """Set fields of the account: answer_url, fallback_url, hangup_url, …; `{url}` in them is the receiver."""
        accounts.update(self.redis, self.account, **{name: self._filled(text) for name, text in fields.items()})

    def document(self, path: str, body: str) -> str:
        """Add a document and return its URL. `body` is the content of <Response>; `{url}` in it is the receiver."""
        self.receiver.documents[path] = f"<Response>{self._filled(body)}</Response>"
        return self.receiver.url(path)

    def tones(self, path: str, *parts: tuple[int, int]) -> str:
        """Add a sound file and return its URL: (Hz, ms) one after another, where 0 Hz is silence."""
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
        """Call from the phone, with `body` as its document, and return the epoch ms of the answer."""
        self.calls += 1
        source = self.document(f"/document/{self.calls}", body)
        await self.dial(phone, source, account=account, **more)
        return now_ms()

    async def dial(self, phone: Phone, document: str | None, *, account: str | None = None, **more: Any) -> None:
        """Call from the phone. `document`: a URL, a stored document's name, or None for the account's answer URL."""
        more.setdefault("from_user", self.number(phone))
        headers = dict(more.pop("headers", {}))
        headers["X-Ari-Conf-Account"] = account or self.account
        if document is not None:
            headers["X-Ari-Conf-Document"] = document
        to = more.pop("to", "15550100")
        await phone.call(f"sip:{to}@{self.system.sip_address}", headers=headers, **more)

    def number(self, phone: Phone) -> str:
        """Return the number that the phone calls from: From in the requests."""
        return f"1555{phone.name.split()[-1]:0>4}"

    async def event(self, name: str, timeout: float = SOON_S, of: Phone | None = None, **params: str) -> Request:
        """Return the first request with that Event, about that phone's call and with those parameters."""
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
        """Return the version of the system's Asterisk."""
        return f"Asterisk {(await self.ari.request('GET', '/asterisk/info'))['system']['version']}"

    async def until(self, what: Callable[[], Any], within: float = SOON_S, description: str = "") -> Any:
        """Wait for a condition that no event reports, such as enough audio; checks every 20 ms."""
        patience = Patience(within)
        while not (found := what()):
            self.all_run()
            assert not patience.over, f"not within {within} s: {description or what}"
            await asyncio.sleep(0.02)
        return found

    # Received audio.

    async def listen(self, phone: Phone, ms: float = 1000) -> Samples:
        """Return the audio that the phone receives in the next `ms`."""
        start = now_ms()
        # The clock decides, since Asterisk sends no packets at all while there is nothing to hear.
        await asyncio.sleep((ms + ON_ITS_WAY_MS) / 1000)
        if phone.heard.end_ms < start + ms:
            # A late machine delivers the rest later.
            await asyncio.sleep(stalled_ms(start, now_ms()) / 1000)
        return phone.heard.between(start, start + ms)

    async def hears(self, phone: Phone, hz: int, within: float = SOON_S, after: float = 0.0) -> float:
        """Wait until the phone hears that tone after `after` (epoch ms); return the epoch ms of the tone's start."""

        def since() -> float | None:
            heard = phone.heard
            start = max(after, heard.start_ms)
            spans = audio_analysis.intervals_of(heard.since(start), hz)
            return start + spans[0][0] if spans else None

        return float(await self.until(since, within, f"{phone.name} does not hear {hz} Hz"))

    async def goes_quiet(self, phone: Phone, for_ms: float = 400, within: float = SOON_S) -> float:
        """Wait until the phone has heard nothing for this long; return the epoch ms of the silence's start."""

        def quiet() -> float | None:
            now, heard = now_ms(), phone.heard
            since = now - for_ms - ON_ITS_WAY_MS
            # A late machine also delivers nothing for a while.
            if now - since - stalled_ms(since, now) < for_ms or not audio_analysis.silent(heard.between(since, now)):
                return None
            before = heard.between(now - 10_000, now)
            loud = [at for at in range(0, len(before), 160) if not audio_analysis.silent(before[at : at + 160])]
            return now - 10_000 + (loud[-1] + 160) * 1000 / RATE if loud else now - for_ms

        return float(await self.until(quiet, within, f"{phone.name} still hears something"))

    def gaps(self, ear: Phone, hz: int, since: float, voice: Phone | None = None) -> audio_analysis.Intervals:
        """Return the gaps of over 100 ms in that tone, sent by `voice`, except those due to this machine's delays."""
        late = [*ear.late, *(voice.late if voice else ())]
        start = max(since, ear.heard.start_ms)

        def own(from_ms: float, to_ms: float) -> float:
            first, last = start + from_ms - 100, start + to_ms + 100
            return max([stalled_ms(first, last), *(by for at, by in late if first <= at <= last)])

        found = audio_analysis.gaps(ear.heard.since(start), hz, longest_ms=GAP_MS)
        return [(a, b) for a, b in found if b - a - own(a, b) > GAP_MS]

    def is_music(self, heard: Samples) -> bool:
        """Return True for the default music on hold, found by its samples, of which a late machine drops some."""
        slip_ms = slip_of(heard)
        for path in sorted(MUSIC, key=lambda path: path != Stage.last_music):
            if audio_analysis.find_reference(heard, audio_analysis.wav(path), slip_ms).score > audio_analysis.FOUND:
                Stage.last_music = path
                return True
        return False

    # End of the scenario.

    def all_run(self) -> None:
        """Check that no part has ended unasked. Raises PartEnded with the end of that part's log."""
        if ended := ended_parts(self.system, "during this scenario"):
            raise PartEnded(ended)

    def all_there(self) -> None:
        """Check that all parts run. Raises PartEnded for a part that the scenario stopped and did not start again."""
        if stopped := [part for part in self.system.components if not _has(self.system, part)]:
            raise PartEnded(f"this scenario stopped {' and '.join(stopped)}, and did not start it again")

    async def ends_well(self) -> None:
        """Assert that no part has ended unasked, that nothing is left, and that all requests were signed."""
        self.all_run()
        try:
            await self.nothing_left()
        except Exception:
            self.all_run()
            raise
        self.receiver.all_signed()

    async def nothing_left(self) -> None:
        """Assert that no channel (a recording or a playback is one), bridge, state, name or queued callback is left."""
        patience = Patience(SETTLED_S)
        while left := await self._left():
            self.all_run()
            assert not patience.over, f"left after the scenario: {left}"
            await asyncio.sleep(0.05)

    def _files(self) -> list[str]:
        """Return unfinished files and recordings in Asterisk's folder: each must be handed on and deleted there."""
        settings = self.system.settings
        folders = [settings.sounds_folder / "parts"]
        if {"worker", "s3"} <= set(self.system.components) and settings.recording_folder is not None:
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
        if "worker" not in self.system.components:
            # Nobody writes what has ended into the database.
            keys = [key for key in keys if not key.startswith("ari_conf:history")]
        left["keys"] = [key for key in keys if not KEPT.match(key)]
        left["files"] = self._files()
        return {what: found for what, found in left.items() if found}


@asynccontextmanager
async def staged(system: LocalSystem) -> AsyncGenerator[Stage]:
    """Yield a stage. Raises if a part ends during the scenario, or if something is left at its end."""
    if "asterisk" in system.components:
        prefer(system.process("asterisk").pid)
    redis = Redis.from_url(system.settings.redis_url.get_secret_value())
    ari = ari_of(system)
    await ari.start()
    try:
        async with Receiver() as receiver:
            stage = Stage(system, receiver, redis, ari)
            stage.asterisk_name = asterisk_identity.entity_id(await ari.request("GET", "/asterisk/info"))
            yield stage
            await stage.ends_well()
    finally:
        await ari.close()
        redis.close()


def _has(system: LocalSystem, part: str) -> bool:
    try:
        return bool(system.process(part))
    except KeyError:
        return False


def ended_parts(system: LocalSystem, when: str) -> str:
    """Return the parts that ended unasked, how they ended, and the end of their logs; "" if there are none."""
    return "\n".join(f"{part.end} {when}; its last words:\n{part.log_tail(3)}" for part in system.exited_processes())


def spans_of(samples: Samples, hz: int, hole_ms: float = LATE_MS) -> audio_analysis.Intervals:
    """Return the tone's intervals in ms from the start. A hole due to late packets of a busy machine is no pause."""
    spans: audio_analysis.Intervals = []
    for start, end in audio_analysis.intervals_of(samples, hz):
        if spans and start - spans[-1][1] < hole_ms:
            start, _ = spans.pop()
        spans.append((start, end))
    return spans


def slip_of(heard: Samples) -> float:
    """Return the ms by which recent audio may have slipped: Asterisk drops as much as the machine was late."""
    ms, now = len(heard) / 8, now_ms()
    return audio_analysis.SLIP_MS + late_ms(now - ms - JUST_NOW_MS, now)


def ari_of(system: LocalSystem) -> Client:
    """Return an ARI client for the test, for requests only."""
    s = system.settings
    nobody = AriConfig(
        s.ari_url,
        "nobody",
        s.ari_user,
        s.ari_password.get_secret_value(),
        ("127.0.0.1", 0),
        own_socket_timeout_s=86400.0,
    )
    return Client(nobody, _ignore)


def _ignore(_event: dict[str, Any]) -> None:
    pass

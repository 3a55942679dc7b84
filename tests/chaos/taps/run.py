"""A run of one candidate: receivers die, stall and end beside a conference, and everything is counted."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

from ari_conf.ari.address import AriConfig
from ari_conf.ari.client import Client
from ari_conf.errors import AriError, AriUnreachable
from ari_conf.local.asterisk import LocalAsterisk
from ari_conf.local.processes import free_port
from demo.phone import now_ms
from tests.chaos import hearing
from tests.chaos.taps import receiver
from tests.chaos.taps.phones import Phones, number
from tests.chaos.taps.transports import HOST, TRANSPORTS, Slot
from tests.chaos.witness import Witness, prefer

SLOTS = 4
"""The number of concurrent receivers. Each has a caller who waits outside the conference."""
MEMBERS = 3
"""The number of conference members; receivers receive their audio too."""
Phase = Literal["idle", "starting", "streaming", "ending"]
PHASES: tuple[Phase, ...] = ("idle", "starting", "streaming", "ending")
WITHIN_S = {"idle": (0.0, 0.05), "starting": (0.0, 0.06), "streaming": (0.3, 0.9), "ending": (0.0, 0.04)}
"""Seconds from the start of the phase within which the receiver is killed or stopped."""
LISTENS_S = (0.3, 0.6)
"""Seconds of receiving before the end."""
STALLED = 0.25
"""The share of receivers that are stopped first, for STALL_S seconds."""
STALL_S = (0.3, 8.0)
IDLE_S = 15.0
"""Seconds within which a receiver connects."""
GONE_S = 5.0
"""Seconds within which the receiver's objects are gone after their removal was requested."""
EDGE_MS = 200.0
"""Milliseconds before Asterisk's death that are not judged."""
APP = "taps"
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.chaos.taps.receiver"])


@dataclass
class Result:
    candidate: str
    socket: str
    """The event WebSocket: inbound if the receiver opens it, outbound if Asterisk does."""
    kills: Counter[str] = field(default_factory=Counter)
    """Killed receivers by phase."""
    stalls: Counter[str] = field(default_factory=Counter)
    """Killed receivers that were stopped before, by phase."""
    signals: list[int] = field(default_factory=list)
    """The signals that ended Asterisk."""
    unanswered: int = 0
    """Requests that a living Asterisk did not answer within 5 s; it was then killed and restarted."""
    slowest_answer_s: float = 0.0
    stuck: int = 0
    """Channels that could not be removed."""
    gaps: int = 0
    """Gaps of more than 100 ms in a member's voice."""
    own_gaps: int = 0
    longest_gap_ms: float = 0.0
    pair_seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return not (self.signals or self.unanswered or self.stuck or self.gaps or self.wrong)

    def json(self) -> dict[str, Any]:
        return {name: dict(value) if isinstance(value, Counter) else value for name, value in vars(self).items()} | {
            "passed": self.passed
        }

    def line(self) -> str:
        ended = ", ".join(signal.Signals(number).name for number in self.signals) or "never"
        killed = f"{self.kills.total():4} killed ({self.stalls.total()} stopped before)"
        return (
            f"{self.candidate:17} {self.socket:8} {killed}; "
            f"Asterisk ended {len(self.signals)} times ({ended}), {self.unanswered} times no answer "
            f"(slowest {self.slowest_answer_s:.2f} s), {self.stuck} channels stuck; {self.gaps} gaps "
            f"(longest {self.longest_gap_ms:.0f} ms; {self.own_gaps} of the machine's own), "
            f"{self.pair_seconds:.0f} pair-seconds"
        )


class Tested(LocalAsterisk):
    """An Asterisk with all candidates' modules, and each receiver's WebSockets."""

    slots: tuple[Slot, ...] = ()
    asterisk_connects = False

    def _configure(self) -> None:
        super()._configure()
        etc = self.folder / "etc"
        loaded = (etc / "modules.conf").read_text()
        # The order matters: chan_rtp needs symbols that res_rtp_multicast exports.
        wanted = dict.fromkeys(name for transport in TRANSPORTS.values() for name in transport.modules)
        lines = [f"load = {name}\n" for name in wanted if f"load = {name}\n" not in loaded]
        (etc / "modules.conf").write_text(loaded + "".join(lines))
        with (etc / "ari.conf").open("a") as ari:
            ari.writelines(self._application(slot) for slot in self.slots if self.asterisk_connects)
        (etc / "websocket_client.conf").write_text("".join(self._websockets(slot) for slot in self.slots))

    def _application(self, slot: Slot) -> str:
        return (
            f"\n[{slot.app}_websocket]\ntype = outbound_websocket\nwebsocket_client_id = {slot.app}\n"
            f"apps = {slot.app}\nsubscribe_all = no\nlocal_ari_user = {self.user}\n"
        )

    def _websockets(self, slot: Slot) -> str:
        common = "connection_timeout = 500\nreconnect_interval = 100\nreconnect_attempts = 120\n"
        return (
            f"[{slot.app}]\ntype = websocket_client\nconnection_type = persistent\n"
            f"uri = ws://{HOST}:{slot.events_port}/ari\nprotocols = ari\n"
            f"username = {self.user}\npassword = {self.password}\n{common}"
            f"[{slot.media}]\ntype = websocket_client\nconnection_type = per_call_config\n"
            f"uri = ws://{HOST}:{slot.media_port}/media\nprotocols = media\n{common}"
        )


class Run:
    def __init__(
        self, candidate: str, kills: int, seed: int, folder: Path, where: str, asterisk_connects: bool = False
    ) -> None:
        """Prepare a run. `asterisk_connects`: Asterisk opens the event WebSockets."""
        self.result = Result(candidate, "outbound" if asterisk_connects else "inbound")
        self._asterisk_connects = asterisk_connects
        self._left = kills
        self._dice = random.Random(f"{candidate} {seed}")
        self._folder, self._where = folder, where
        self._channels: dict[str, str] = {}
        """Channel ids by the caller's number."""
        self._arrived = asyncio.Event()
        self._died_ms = 0.0
        self._over = False

    async def run(self, tell: Callable[[str], None]) -> Result:
        while self._left > 0:
            await self._life()
            tell(self.result.line())
        return self.result

    async def _life(self) -> None:
        """Run one life of Asterisk, until it dies or all receivers were killed."""
        slots = tuple(Slot(number, free_port(), free_port()) for number in range(SLOTS))
        self._asterisk = Tested(self._folder, self._where, app=APP, outbound=False)
        self._asterisk.slots = slots
        self._asterisk.asterisk_connects = self._asterisk_connects
        self._channels, self._died_ms, self._over = {}, 0.0, False
        await asyncio.to_thread(self._asterisk.start)
        try:
            await self._with_asterisk(slots)
        finally:
            await asyncio.to_thread(self._asterisk.stop)

    async def _with_asterisk(self, slots: tuple[Slot, ...]) -> None:
        own = self._asterisk
        assert own.process is not None, "it has been started"
        prefer(own.process.pid)
        self._ari = Client(AriConfig(own.url, APP, own.user, own.password), self._heard)
        await self._ari.start()
        watching = asyncio.create_task(self._watch())
        try:
            with Witness() as witness, Phones(f"{HOST}:{own.sip_port}", MEMBERS + SLOTS, MEMBERS) as phones:
                await self._conference(phones)
                telling = asyncio.create_task(self._send_events(slots))
                await asyncio.gather(*(self._slot(slot) for slot in slots))
                telling.cancel()
                legs = await phones.over(self._died_ms - EDGE_MS if self._died_ms else now_ms())
                self._judge(hearing.judge(legs, [], witness.stalls()))
        finally:
            watching.cancel()
            await self._ari.close()

    async def _watch(self) -> None:
        process = self._asterisk.process
        assert process is not None, "it has been started"
        while process.poll() is None:  # noqa: ASYNC110  nothing tells of it
            await asyncio.sleep(0.01)
        self._died_ms, self._over = now_ms(), True
        self.result.signals.append(-process.returncode)

    def _heard(self, event: dict[str, Any]) -> None:
        if event["type"] == "StasisStart" and event["channel"]["name"].startswith("PJSIP/"):
            self._channels[event["channel"]["caller"]["number"]] = event["channel"]["id"]
            self._arrived.set()

    async def _conference(self, phones: Phones) -> None:
        await self._ari.request("POST", "/bridges", {"type": "mixing,dtmf_events", "bridgeId": "conference"})
        answered: set[str] = set()
        while len(answered) < MEMBERS + SLOTS:
            await asyncio.wait_for(self._arrived.wait(), 20)
            self._arrived.clear()
            for caller, channel_id in [*self._channels.items()]:
                if caller not in answered:
                    answered.add(caller)
                    await self._ari.request("POST", f"/channels/{channel_id}/answer")
                    if caller in [number(member) for member in range(MEMBERS)]:
                        await self._ari.request("POST", "/bridges/conference/addChannel", {"channel": channel_id})
        await phones.answered()

    def _judge(self, listened: hearing.Listened) -> None:
        result = self.result
        result.gaps += listened.gaps
        result.own_gaps += listened.own_gaps
        result.longest_gap_ms = max(result.longest_gap_ms, listened.longest_gap_ms)
        result.pair_seconds += listened.pair_seconds
        result.wrong += [finding.text for finding in listened.findings]

    # Receivers.

    async def _send_events(self, slots: Sequence[Slot]) -> None:
        """Send events to all receivers, one after another, so that Asterisk has many to send whenever one of
        them dies."""
        while not self._over:
            for slot in slots:
                await self._ask("POST", f"/events/user/noise?application={slot.app}")

    async def _slot(self, slot: Slot) -> None:
        while self._left > 0 and not self._over:
            self._left -= 1
            await self._receiver(slot, PHASES[self._left % len(PHASES)])

    async def _receiver(self, slot: Slot, phase: Phase) -> None:
        own, dice = self._asterisk, self._dice
        waits = number(MEMBERS + slot.number)
        caller = dice.choice([waits, number(dice.randrange(MEMBERS))])
        channel_id = self._channels[caller]
        place = receiver.Place(
            self.result.candidate, self._asterisk_connects, slot, own.url, own.user, channel_id, own.password
        )
        ours, theirs = FORKS.Pipe()
        process = FORKS.Process(target=receiver.main, args=(theirs, place), daemon=True)
        process.start()
        theirs.close()
        try:
            await self._until(phase, ours)
            assert process.pid is not None, "it has been started"
            await self._end(process.pid, phase)
        except (TimeoutError, EOFError, OSError) as error:
            if not self._over:
                self.result.wrong.append(f"a receiver did not come to be {phase}: {error!r}")
        finally:
            process.kill()
            await asyncio.to_thread(process.join)
            ours.close()
        await self._clean(slot)

    async def _until(self, phase: Phase, pipe: Connection) -> None:
        await _word(pipe)
        if phase == "idle":
            return
        pipe.send("go on")
        await _word(pipe)
        if phase == "ending":
            await asyncio.sleep(self._dice.uniform(*LISTENS_S))
            pipe.send("go on")
            await _word(pipe)

    async def _end(self, pid: int, phase: Phase) -> None:
        await asyncio.sleep(self._dice.uniform(*WITHIN_S[phase]))
        if self._dice.random() < STALLED:
            os.kill(pid, signal.SIGSTOP)
            self.result.stalls[phase] += 1
            await asyncio.sleep(self._dice.uniform(*STALL_S))
            if self._dice.random() < 0.5:
                os.kill(pid, signal.SIGCONT)
                await asyncio.sleep(self._dice.uniform(0.0, 0.3))
        os.kill(pid, signal.SIGKILL)
        self.result.kills[phase] += 1

    async def _clean(self, slot: Slot) -> None:
        """Remove the receiver's objects as the next process would."""
        end = time.monotonic() + GONE_S
        while not self._over:
            left = await self._left_of(slot)
            if not left:
                return
            if time.monotonic() > end:
                self.result.stuck += len(left)
                return
            for path in left:
                await self._ask("DELETE", path)

    async def _left_of(self, slot: Slot) -> list[str]:
        found = []
        for path in ("/channels", "/bridges"):
            those = await self._ask("GET", path) or []
            found += [f"{path}/{one['id']}" for one in those if one["id"].startswith(f"{slot.app}.")]
        return found

    async def _ask(self, method: str, path: str) -> Any:
        began = time.monotonic()
        try:
            return await self._ari.request(method, path)
        except AriUnreachable:
            # Asterisk's death is noticed a moment later.
            await asyncio.sleep(0.2)
            if not self._over:
                self._over = True
                self.result.unanswered += 1
        except AriError:
            pass
        finally:
            self.result.slowest_answer_s = max(self.result.slowest_answer_s, time.monotonic() - began)
        return None


async def _word(pipe: Connection) -> None:
    if not await asyncio.to_thread(pipe.poll, IDLE_S):
        raise TimeoutError
    pipe.recv()

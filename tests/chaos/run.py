"""A chaos run: starts the system, callers and faults, then judges everything that can be judged."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from math import inf
from pathlib import Path

from redis import Redis

from ari_conf.local.processes import free_port
from ari_conf.local.system import LocalSystem
from ari_conf.ownership import asterisk_identity
from ari_conf.queues import dead_letters
from ari_conf.recordings.bucket import Bucket
from ari_conf.settings import from_environment
from demo.phone import now_ms
from tests.chaos import callback_judge, hearing, remains
from tests.chaos.applications import two
from tests.chaos.callers import BEEP_MS, BEEP_TOLD_MS, OF_ONE, Where, number, role_of, room_of
from tests.chaos.calling import Calling
from tests.chaos.faults import Faults
from tests.chaos.hearing import BEEP_HZ, WAIT_HZ, Finding
from tests.chaos.placing import Placing, placing
from tests.chaos.report import Report
from tests.chaos.schedule import BY_NAME, Fault
from tests.chaos.seen import Counts, Injected, Leg, Stall, stood_still
from tests.chaos.socket_proxy import SocketProxy
from tests.chaos.witness import Witness, prefer
from tests.integration.receiver import Receiver
from tests.integration.stage import PATIENT, Stage, ari_of

EVENTS = b"GET /ari/events"
"""The start of the connection that becomes the event WebSocket."""
WAIT_MS = 3000
EVERYBODY_S = 2.0
"""Seconds after the first callbacks after which the callers have heard each other for a while."""
PLANTED_S = 2.0
LOST_MS = 500.0
ATTRIBUTES = {
    "plain": "",
    "recorded": 'record="true" recordFileFormat="wav" ',
    "waiting": 'startConferenceOnEnter="false" waitSound="{url}/wait" ',
    "host": 'endConferenceOnExit="true" record="true" recordFileFormat="mp3" ',
    "muted": "",
    "two": "",
    "digits": 'digitsMatch="5" relayDTMF="false" enterSound="beep:1" exitSound="beep:2" ',
}
"""Attributes of <Conference>, by role."""
BEEPS = "/beeps"
"""The document of callers who are asked for a beep: it is requested again at each beep."""
BESIDE_A_FAULT_MS = 6000.0
TAKES_OVER = (
    "application killed",
    "application killed listening",
    "application killed rendering",
    "application stopped",
)
TAKEN_OVER_S = 5.0
LAST_S = 5.0
"""Seconds for which the callers continue after the last fault."""


@dataclass(frozen=True)
class Plan:
    seed: int = 1
    minutes: float = 2.0
    callers: int = 25
    kinds: Sequence[str] = tuple(BY_NAME)
    plant: frozenset[str] = frozenset()
    """Names from PLANTS: failures that the run causes and must find."""
    settles_s: float = remains.SETTLED_S


@asynccontextmanager
async def prepared(folder: Path) -> AsyncGenerator[tuple[Stage, SocketProxy]]:
    """Start a system that may be killed, and a proxy that damages the event WebSocket."""
    system = LocalSystem(folder, {"ARI_CONF_ALLOWED_NETWORKS": "127.0.0.0/8"})
    assert system._asterisk is not None, "it has one of its own"
    port = free_port()
    system.values["ARI_CONF_ARI_URL"] = f"http://127.0.0.1:{port}/ari"
    system.settings = from_environment(system.values)
    proxy = SocketProxy(port, system._asterisk.http_port, EVENTS)
    async with proxy, system, Receiver() as receiver:
        redis = Redis.from_url(system.settings.redis_url.get_secret_value())
        ari = ari_of(system)
        await ari.start()
        try:
            stage = Stage(system, receiver, redis, ari)
            stage.asterisk_name = asterisk_identity.entity_id(await ari.request("GET", "/asterisk/info"))
            yield stage, proxy
        finally:
            await ari.close()
            redis.close()


async def run(plan: Plan, folder: Path, planned: Sequence[Fault], tell: Callable[[str], None] = print) -> Report:
    async with prepared(folder) as (stage, proxy), two(stage.system) as applications, placing(stage) as placed:
        stage.set_account(hangup_url=f"{{url}}/hangup#{PATIENT}")
        with Witness() as witness, Calling(_where(plan, stage)) as calling:
            faults = Faults(stage.system, applications, proxy, calling.say, tell)
            prefer(stage.system.process("asterisk").pid)
            watching = asyncio.create_task(faults.watch())
            report = Report(plan.seed, plan.minutes, plan.callers, -(-plan.callers // OF_ONE), now_ms())
            await faults.run(planned, report.began_ms)
            await _plant(plan.plant, stage, placed)
            await asyncio.sleep(max(LAST_S, plan.minutes * 60 - (now_ms() - report.began_ms) / 1000))
            watching.cancel()
            await placed.stop()
            legs, counts = await calling.over()
            stalls = witness.stalls()
        tell("everybody has hung up; waiting until nothing is left")
        report.left = dict(await remains.settled(stage, plan.settles_s))
        report.add([Finding(at_ms, text) for at_ms, text in faults.failed])
        report.add(placed.judge())
        report.faults = sorted(faults.injected, key=lambda one: one.start_ms)
        report.moments = faults.moments
        tell("listening to what everybody heard")
        await asyncio.to_thread(_judge, report, stage, legs, counts, stalls)
        report.figures |= placed.figures() | {"wrong": len(report.findings) + len(report.left)}
        return report


PLANTS = {
    "silence": f"Asterisk stands still for {PLANTED_S:g} s",
    "callback": "one callback that came is taken away",
    "bridge": "a bridge is left behind",
    "crash": "Asterisk crashes",
    "call": "a call is dialed twice",
}


async def _plant(what: Collection[str], stage: Stage, placed: Placing) -> None:
    """Cause failures that must fail the run, to prove the judges."""
    before = 0
    if "crash" in what:
        await stage.until(lambda: len(stage.events("ConferenceEnter")) >= 2, 60)
        died = stage.system.process("asterisk")
        os.kill(died.pid, signal.SIGABRT)
        while stage.system._running.get("asterisk") in (None, died):  # noqa: ASYNC110  the run starts another Asterisk
            await asyncio.sleep(0.05)
        # Callers who were in before are in no conference now, and call again.
        before = len(stage.events("ConferenceEnter"))
    if "silence" in what:
        await stage.until(lambda: len(stage.events("ConferenceEnter")) >= before + OF_ONE, 60)
        await asyncio.sleep(EVERYBODY_S)
        pid = stage.system.process("asterisk").pid
        os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(PLANTED_S)
        os.kill(pid, signal.SIGCONT)
    if "callback" in what:
        taken = await stage.event("ConferenceEnter")
        stage.receiver.requests.remove(taken)
    if "call" in what:
        await placed.dial_again()
    if "bridge" in what:
        await stage.ari.request("POST", "/bridges", {"type": "mixing", "bridgeId": "planted"})


def _where(plan: Plan, stage: Stage) -> Where:
    sound = stage.tones("/wait.wav", (WAIT_HZ, WAIT_MS))
    stage.document("/wait", f"<Play>{sound}</Play>")
    documents: dict[str, str] = {}
    for caller in range(0, plan.callers, OF_ONE):
        if role_of(caller) == "beep":
            documents[f"{room_of(caller)} beep"] = _beeps(stage)
            continue
        for kind in (role_of(caller), "host"):
            element = (
                f'<Conference {ATTRIBUTES[kind]}callbackUrl="{{url}}/events#{PATIENT}">{room_of(caller)}</Conference>'
            )
            documents[f"{room_of(caller)} {kind}"] = stage.document(f"/{caller}/{kind}", element)
    settings = stage.system.settings
    api = f"{settings.public_url}/v1/Account"
    return Where(plan.callers, plan.seed, stage.system.sip_address, api, stage.account, stage.token, documents)


def _beeps(stage: Stage) -> str:
    """Return a document that says something new each time; then a tone asks for a beep."""
    tone, numbers = stage.tones("/ready.wav", (BEEP_HZ, 500)), count(1)

    def document(_params: Mapping[str, str]) -> str:
        return (
            f"<Response><Speak>Please beep, number {next(numbers)}.</Speak><Play>{tone}</Play>"
            f'<Wait length="60" beep="true"/><Redirect>{stage.receiver.url(BEEPS)}</Redirect></Response>'
        )

    stage.receiver.documents[BEEPS] = document
    return stage.receiver.url(BEEPS)


def _unheard(
    beeps: Sequence[float], asked: Sequence[float], faults: Sequence[Injected], stalls: Sequence[Stall]
) -> list[Finding]:
    """Return a finding for each beep far from all faults after which the next document was not requested."""
    found = []
    for at in beeps:
        calm = all(one.end_ms < at - BESIDE_A_FAULT_MS or one.start_ms > at + BEEP_TOLD_MS for one in faults)
        within = BEEP_TOLD_MS + stood_still(at, BEEP_TOLD_MS, stalls)
        if calm and not any(at - BEEP_MS < when < at + within for when in asked):
            found.append(Finding(at, "a beep was not heard"))
    return found


def _judge(report: Report, stage: Stage, legs: Sequence[Leg], counts: Counts, stalls: Sequence[Stall]) -> None:
    events, hangups = stage.receiver.requests_to("/events"), stage.receiver.requests_to("/hangup")
    listened = hearing.judge(legs, report.faults, stalls)
    callbacks = callback_judge.judge(events, stage.token)
    bucket = Bucket(stage.system.settings)
    recorded = remains.judge(bucket, stage.account, events, _recorders(report.callers), _stayed(legs), stalls)
    letters = dead_letters.list_newest(stage.redis, stage.account, 1000)
    asked = [request.at_ms for request in stage.receiver.requests_to(BEEPS)]
    entered = {request.params["CallUUID"] for request in events if "CallUUID" in request.params}
    for found in (
        listened.findings,
        callbacks.findings,
        recorded.findings,
        callback_judge.hangups(hangups, entered),
        _slow(report.faults, stalls),
        _unheard(counts.beeps, asked, report.faults, stalls),
    ):
        report.add(found)
    for kind, those in (
        ("not answered", counts.unanswered),
        ("ended by nobody", counts.dropped),
        ("the API", counts.commands),
    ):
        report.add([Finding(at_ms, f"{kind}: {text}") for at_ms, text in those])
    report.add([Finding(letter.entry.at_ms, f"a dead letter to {letter.entry.url}") for letter in letters])
    digits, deaf = callbacks.by_action["digits"], _deaf(counts.pressed, report.faults)
    if not len(counts.pressed) - deaf <= digits <= len(counts.pressed):
        report.add([Finding(0.0, f"{len(counts.pressed)} digits were pressed, {digits} were told")])
    report.figures = {
        "calls": counts.calls,
        "member-seconds in conferences": listened.member_seconds,
        "pair-seconds listened to": listened.pair_seconds,
        "gaps over 100 ms": listened.gaps,
        "longest gap, ms": listened.longest_gap_ms,
        "gaps of the machine's own making": listened.own_gaps,
        "longest the machine stood still, ms": max((ms for _, ms in stalls), default=0.0),
        "slowest to be heard, ms": listened.slowest_ms,
        "longest without wait sound, ms": listened.longest_wait_gap_ms,
        "seconds muted, and not heard": listened.muted_seconds,
        "mutes by the API": counts.mutes,
        "beeps": len(counts.beeps),
        "beeps heard": sum(any(at - BEEP_MS < when < at + BEEP_TOLD_MS for when in asked) for at in counts.beeps),
        "digits pressed": len(counts.pressed),
        "digits told": digits,
        "callbacks": callbacks.arrived + len(hangups),
        "callbacks that came again": callbacks.duplicates + len(hangups) - len({r.params["CallUUID"] for r in hangups}),
        "conferences": callbacks.conferences,
        "recordings": recorded.told,
        "seconds recorded": recorded.seconds,
        "longest gap in a recording, ms": recorded.longest_gap_ms,
        "dead letters": len(letters),
        "slowest takeover, s": max((fault.ready_s for fault in report.faults if _takes_over(fault)), default=0.0),
    }


def _deaf(pressed: Sequence[float], faults: Sequence[Injected]) -> int:
    """Return the number of digits pressed while Asterisk's events may have gone to a server that was dead, stopped or
    cut off.

    Asterisk does not send such events again.
    """
    away = [(fault.start_ms - LOST_MS, fault.end_ms + LOST_MS) for fault in faults if fault.holds_up]
    return sum(any(start <= at <= end for start, end in away) for at in pressed)


def _takes_over(fault: Injected) -> bool:
    return fault.kind in TAKES_OVER


def _slow(faults: Sequence[Injected], stalls: Sequence[Stall]) -> list[Finding]:
    """Return a finding for each takeover that took longer than TAKEN_OVER_S: a standby must take over within 5 s.

    Stalls of the machine are deducted, and takeovers during another fault do not count.
    """
    found = []
    for fault in filter(_takes_over, faults):
        until = fault.start_ms + fault.ready_s * 1000
        alone = all(one is fault or one.end_ms < fault.start_ms or one.start_ms > until for one in faults)
        stood = sum(ms for when, ms in stalls if fault.start_ms <= when <= until) / 1000
        if alone and fault.ready_s - stood > TAKEN_OVER_S:
            found.append(Finding(fault.start_ms, f"nobody took over for {fault.ready_s:.1f} s"))
    return found


def _recorders(count: int) -> dict[str, set[str]]:
    """Return the numbers of the callers whose entering starts a recording, by conference name."""
    found: dict[str, set[str]] = defaultdict(set)
    for caller in range(count):
        role = role_of(caller)
        if role == "recorded" or (role == "waiting" and caller % OF_ONE == 0):
            found[room_of(caller)].add(number(caller))
    return found


def _stayed(legs: Sequence[Leg]) -> list[Leg]:
    return [leg for leg in legs if leg.caller % OF_ONE and leg.from_ms < inf]

"""Leftovers of thousands of short calls in memory, file descriptors and Redis: `make soak SOAK="--calls 5000"`.

SIPp calls a real system: a few callers at a time meet in a conference, stay for some seconds, and leave. In the
meantime, the memory (PSS: shared memory counts in parts) and the file descriptors of each process are sampled. The
slope after the warm-up counts: a robust line through the samples, per 1000 calls and per hour at that rate.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from redis import Redis

from ari_conf.local.system import LocalSystem
from tests.bench.memory import Sample, sampled
from tests.integration.receiver import Receiver
from tests.integration.stage import Stage, ari_of

OURS = ("serve", "worker", "web")
WATCHED = (*OURS, "redis", "asterisk")
WARM = 0.4
"""The share of the calls that is left out: caches fill, pools open, the allocator takes the memory that it needs."""
MAX_KB = 1000.0
"""KB per 1000 calls and process: more is a leak. An hour at 10 calls/s causes 36 times as much."""
MAX_FDS = 20.0
"""File descriptors per 1000 calls: pools vary by some."""
TOGETHER = 5
"""The number of callers of one conference."""
RECORDED_EACH = 20
"""One of this many conferences is recorded."""
CONFIGURED = {"ARI_CONF_ALLOWED_NETWORKS": "127.0.0.0/8", "ARI_CONF_CALLBACK_THREADS": "8"}
"""Few threads: all of them, and their connections, exist before the first sample that counts."""

SCENARIO = """<?xml version="1.0" encoding="UTF-8"?>
<scenario name="a short call">
  <send retrans="500"><![CDATA[
INVITE sip:15550100@[remote_ip]:[remote_port] SIP/2.0
Via: SIP/2.0/UDP [local_ip]:[local_port];branch=[branch]
From: <sip:1555[call_number]@[local_ip]:[local_port]>;tag=[pid]soak[call_number]
To: <sip:15550100@[remote_ip]:[remote_port]>
Call-ID: [call_id]
CSeq: 1 INVITE
Contact: <sip:soak@[local_ip]:[local_port]>
X-Ari-Conf-Account: ACCOUNT
X-Ari-Conf-Document: DOCUMENT
Max-Forwards: 70
Content-Type: application/sdp
Content-Length: [len]

v=0
o=soak 1 1 IN IP4 [local_ip]
s=-
c=IN IP4 [media_ip]
t=0 0
m=audio [media_port] RTP/AVP 0
a=rtpmap:0 PCMU/8000
  ]]></send>
  <recv response="100" optional="true"/>
  <recv response="180" optional="true"/>
  <recv response="183" optional="true"/>
  <recv response="200" rrs="true"/>
  <send><![CDATA[
ACK sip:15550100@[remote_ip]:[remote_port] SIP/2.0
Via: SIP/2.0/UDP [local_ip]:[local_port];branch=[branch]
From: <sip:1555[call_number]@[local_ip]:[local_port]>;tag=[pid]soak[call_number]
To: <sip:15550100@[remote_ip]:[remote_port]>[peer_tag_param]
Call-ID: [call_id]
CSeq: 1 ACK
Contact: <sip:soak@[local_ip]:[local_port]>
Max-Forwards: 70
Content-Length: 0

  ]]></send>
  <pause/>
  <send retrans="500"><![CDATA[
BYE sip:15550100@[remote_ip]:[remote_port] SIP/2.0
Via: SIP/2.0/UDP [local_ip]:[local_port];branch=[branch]
From: <sip:1555[call_number]@[local_ip]:[local_port]>;tag=[pid]soak[call_number]
To: <sip:15550100@[remote_ip]:[remote_port]>[peer_tag_param]
Call-ID: [call_id]
CSeq: 2 BYE
Contact: <sip:soak@[local_ip]:[local_port]>
Max-Forwards: 70
Content-Length: 0

  ]]></send>
  <recv response="200"/>
</scenario>
"""


@dataclass(frozen=True)
class Plan:
    calls: int = 5000
    rate: float = 12.0
    """Calls per second."""
    stay_s: float = 5.0
    every_s: float = 2.0
    """Seconds between two samples."""


@dataclass
class Slope:
    """The growth of one process."""

    kb_per_1000: float
    kb_per_hour: float
    first_kb: float
    last_kb: float
    fds_per_1000: float
    fds: int


@dataclass
class Soaked:
    calls: int
    seconds: float
    callbacks: int
    slopes: dict[str, Slope] = field(default_factory=dict)
    redis_kb_per_1000: float = 0.0
    """The memory that Redis itself reports."""
    redis_keys: int = 0
    keys: dict[str, int] = field(default_factory=dict)
    """The number of keys by kind, at the end."""
    wrong: list[str] = field(default_factory=list)


async def soak(plan: Plan, folder: Path, tell: Callable[[str], None]) -> Soaked:
    async with LocalSystem(folder, CONFIGURED) as system, Receiver() as receiver:
        redis = Redis.from_url(system.settings.redis_url.get_secret_value())
        ari = ari_of(system)
        await ari.start()
        stage = Stage(system, receiver, redis, ari)
        stage.set_account(hangup_url="{url}/hangup")
        receiver.documents["/document"] = lambda params: _document(int(params["From"][4:]), stage.url)
        began = time.monotonic()
        samples = await _calls(plan, stage, tell)
        try:
            await stage.nothing_left()
            left = ""
        except AssertionError as error:
            left = str(error)
        found = judged(plan, samples, time.monotonic() - began)
        told = [request.params for request in receiver.requests_to("/events")]
        found.callbacks = len(told) + len(receiver.requests_to("/hangup"))
        found.keys = _kinds(redis)
        found.redis_keys = sum(found.keys.values())
        entered = sum(params["ConferenceAction"] == "enter" for params in told)
        exited = sum(params["ConferenceAction"] == "exit" for params in told)
        if not entered == exited == plan.calls == len(receiver.requests_to("/hangup")):
            ended = len(receiver.requests_to("/hangup"))
            found.wrong.append(f"{plan.calls} calls: {entered} entered, {exited} left, {ended} ended")
        if left:
            found.wrong.append(left)
        await ari.close()
        redis.close()
        return found


def _document(number: int, url: str) -> str:
    conference = number // TOGETHER
    record = 'record="true" ' if conference % RECORDED_EACH == 0 else ""
    return f'<Response><Conference {record}callbackUrl="{url}/events">soak {conference}</Conference></Response>'


async def _calls(plan: Plan, stage: Stage, tell: Callable[[str], None]) -> list[Sample]:
    own = stage.system._asterisk
    assert own is not None, "it has one of its own"
    folder = own.folder / "sipp"
    folder.mkdir()
    document = stage.receiver.url("/document")
    (folder / "call.xml").write_text(SCENARIO.replace("ACCOUNT", stage.account).replace("DOCUMENT", document))
    command = own.command(
        "sipp", stage.system.sip_address, "-sf", str(folder / "call.xml"), "-i", "127.0.0.1", "-m", str(plan.calls),
        "-r", f"{plan.rate:g}", "-d", str(round(plan.stay_s * 1000)), "-l", "1000", "-nostdin", "-trace_err",
        "-error_file", str(folder / "errors.log"), "-timeout", f"{plan.calls / plan.rate + 120:.0f}s",
    )  # fmt: skip
    sipp = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    samples: list[Sample] = []
    began = time.monotonic()
    while sipp.returncode is None:
        samples.append(sampled(stage, began))
        if len(samples) % 10 == 1:
            tell(f"{samples[-1].calls:6} calls  {_describe(samples[-1])}")
        await asyncio.wait([asyncio.ensure_future(sipp.wait())], timeout=plan.every_s)
    if sipp.returncode:
        errors = folder / "errors.log"
        tell(f"SIPp ended with {sipp.returncode}: {errors.read_text()[-500:] if errors.exists() else '(no word)'}")
    return samples


def _describe(sample: Sample) -> str:
    return ", ".join(f"{name} {one.kb / 1024:.1f} MB {one.fds} fds" for name, one in sample.processes.items())


def judged(plan: Plan, samples: Sequence[Sample], seconds: float) -> Soaked:
    found = Soaked(samples[-1].calls, seconds, 0)
    warm = [sample for sample in samples if sample.calls >= plan.calls * WARM]
    calls = [sample.calls for sample in warm]
    for name in WATCHED:
        kb = [sample.processes[name].kb for sample in warm]
        fds = [float(sample.processes[name].fds) for sample in warm]
        per_1000 = slope(calls, kb)
        one = Slope(per_1000, per_1000 * plan.rate * 3.6, float(kb[0]), float(kb[-1]), slope(calls, fds), int(fds[-1]))
        found.slopes[name] = one
        if name in OURS and per_1000 > MAX_KB:
            found.wrong.append(f"{name} grows by {per_1000:.0f} kB per 1000 calls")
        if name in OURS and one.fds_per_1000 > MAX_FDS:
            found.wrong.append(f"{name}: {one.fds_per_1000:.1f} more file descriptors per 1000 calls")
    found.redis_kb_per_1000 = slope(calls, [sample.redis_kb for sample in warm])
    if found.redis_kb_per_1000 > MAX_KB:
        found.wrong.append(f"Redis holds {found.redis_kb_per_1000:.0f} kB more per 1000 calls")
    return found


def slope(calls: Sequence[float], values: Sequence[float]) -> float:
    """Return the slope per 1000 calls: the median over all pairs (Theil-Sen), which a single peak does not affect."""
    x, y = np.asarray(calls, float), np.asarray(values, float)
    first, second = np.triu_indices(len(x), 1)
    apart = x[second] - x[first]
    slopes = ((y[second] - y[first])[apart > 0]) / apart[apart > 0]
    return float(np.median(slopes)) * 1000 if len(slopes) else 0.0


def _kinds(redis: Redis) -> dict[str, int]:
    """Return the number of keys by name, without the variable parts."""
    kinds: dict[str, int] = {}
    for key in redis.scan_iter():
        name = re.sub(r":[^:]*[0-9a-f]{8}[^:]*", ":*", key.decode())
        name = re.sub(r"(index:\*:\w+):.*", r"\1:*", name)
        kinds[name] = kinds.get(name, 0) + 1
    return dict(sorted(kinds.items(), key=lambda kind: -kind[1]))


def table(plan: Plan, found: Soaked) -> str:
    lines = [
        f"{found.calls} calls in {found.seconds:.0f} s, {plan.rate:g}/s, {plan.stay_s:g} s each, "
        f"{found.callbacks} callbacks; the first {WARM:.0%} left out",
        f"{'':10}{'kB/1000 calls':>15}{'MB/hour':>10}{'MB, first':>11}{'MB, last':>10}{'fds/1000':>10}{'fds':>6}",
    ]
    for name, one in found.slopes.items():
        hour, first, last = (kb / 1024 for kb in (one.kb_per_hour, one.first_kb, one.last_kb))
        lines.append(
            f"{name:10}{one.kb_per_1000:15.0f}{hour:10.1f}{first:11.1f}{last:10.1f}{one.fds_per_1000:10.2f}{one.fds:6}"
        )
    lines.append(f"Redis' own count: {found.redis_kb_per_1000:.0f} kB/1000 calls; {found.redis_keys} keys at the end:")
    lines += [f"  {count:6}  {name}" for name, count in found.keys.items()]
    return "\n".join(lines)


def main() -> int:
    options = _options()
    plan = Plan(options.calls, options.rate, options.stay)
    folder = Path(tempfile.mkdtemp(prefix="ari_conf-soak-"))
    print(f"{plan.calls} calls, about {plan.calls / plan.rate + plan.stay_s:.0f} s; logs: {folder}/logs", flush=True)
    found = asyncio.run(soak(plan, folder, lambda text: print(text, flush=True)))
    print(table(plan, found), *found.wrong, sep="\n")
    options.json.write_text(json.dumps(_json(plan, found), indent=1))
    print(f"{'FAILED' if found.wrong else 'passed'}; the figures: {options.json}")
    return 1 if found.wrong else 0


def _json(plan: Plan, found: Soaked) -> Mapping[str, object]:
    slopes = {name: vars(one) for name, one in found.slopes.items()}
    return {**vars(plan), **vars(found), "slopes": slopes, "passed": not found.wrong}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make soak", description="Thousands of short calls; what is left of them.")
    parser.add_argument("--calls", type=int, default=5000, help="how many (default: 5000)")
    parser.add_argument("--rate", type=float, default=12.0, help="begun in a second (default: 12)")
    parser.add_argument("--stay", type=float, default=5.0, help="seconds for which each lasts (default: 5)")
    parser.add_argument("--json", type=Path, default=Path("soak.json"), help="the figures (default: soak.json)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

"""Capacity of this machine, in some four minutes: members, joins, callbacks, recordings, transcriptions.

`make sizing` prints the table of docs/operations/capacity.md with the figures of this machine, and how big a machine
for a given number of members has to be. Nothing else should run on it. The callers are on the same machine and take
CPU time, too: the figures per core count only what belongs to ari_conf.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ari_conf.errors import TranscriptionFailed
from ari_conf.settings import from_environment
from ari_conf.transcription.engines import RATE, create_engine
from demo import audio_analysis
from demo.speech import speech_files
from tests.bench import recordings, sip_held, sip_parts
from tests.bench.__main__ import machine, progress
from tests.bench.callbacks import Bench
from tests.bench.receiver import FastReceiver
from tests.bench.sip_figures import OURS
from tests.bench.sip_parts import Found, Size
from tests.bench.sip_variants import Stand, standing

Figures = dict[str, float]

MAX_MEMBERS = 900
"""Fewer than `maxcalls` of the Asterisk that is measured."""
MAX_BUSY = 0.7
"""The share of the cores that may be used: other programs, and callers who come at the same time, need the rest."""
MIN_WORKERS = 2
"""One takes over when the other ends."""
PORTS_PER_CALL = 4
BYTES_PER_WAV_HOUR = 3600 * 8000 * 2
CALLBACKS_PER_CALL = 3
"""enter, exit, and the hangup URL's."""


@dataclass(frozen=True)
class Plan:
    """The amount of work."""

    sip: Size = field(default_factory=lambda: Size(calls=200, hold_s=4.0, rate_s=2.0, listen_s=4.0, most=MAX_MEMBERS))
    scale: float = 0.5
    """Share of the callbacks of `make bench-callbacks`."""
    waiting: int = 50_000
    recorded_s: float = 3600.0
    within_s: float = 150.0
    """Maximum seconds of one part."""


QUICK = Plan(
    Size(calls=100, hold_s=2.0, rate_s=1.0, listen_s=2.0, most=300, highest_rate=150.0), 0.1, 10_000, 600.0, 60.0
)
TINY = Plan(replace(sip_parts.TINY, hold_s=0.5), 0.0, 2000, 60.0, 60.0)


async def _measure_sip(measure: Callable[[Stand, Size], Any], plan: Plan) -> Found:
    async with asyncio.timeout(plan.within_s), standing(OURS) as stand:
        found: Found = await measure(stand, plan.sip)
        return found


def measure_members(plan: Plan) -> Figures:
    """Add members until the audio has gaps, and return what each of them takes while they talk and listen."""
    found = asyncio.run(_measure_sip(sip_held.held, plan))
    answered = [step for step in found["steps"] if step["answered"]]
    if not answered:
        raise RuntimeError(f"not all of {found['steps'][0]['members']} callers were answered")
    # On a machine that is too busy, even the first ones are not heard without gaps. Their CPU time is the same.
    step = next((step for step in reversed(answered) if step["members"] == found["held"]), answered[0])
    return {
        "members_held": found["held"],
        "members_tried": step["members"],
        "members_at_the_limit": float(found["at_the_limit"]),
        "members_per_core": step["members"] / sum(step["cores"].values()),
        "members_per_core_of_asterisk": step["members"] / step["cores"]["asterisk"],
        "redis_bytes_per_member": (step["redis_bytes"] - found["redis_bytes_before"]) / step["members"],
    }


def measure_joins(plan: Plan) -> Figures:
    """Return the highest rate at which each caller is in their conference within 250 ms."""
    return {"joins_per_s": asyncio.run(_measure_sip(sip_parts.rate, plan))["highest"]}


def measure_calls(plan: Plan) -> Figures:
    """Return the CPU time of short calls."""
    found = asyncio.run(_measure_sip(sip_parts.calls, plan))
    used = found["cpu_ms_per_call"]
    return {"call_cpu_ms": sum(used.values()), "call_server_cpu_ms": used["application"], "call_s": plan.sip.hold_s}


def measure_callbacks(plan: Plan) -> Figures:
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), plan.scale)
        try:
            with FastReceiver() as receiver:
                rate, _ = bench.fleet(receiver, 1)
            used = bench.bytes_of_waiting(plan.waiting)
        finally:
            bench.redis.kill()
    return {"callbacks_per_s": rate, "redis_bytes_per_callback": used / plan.waiting}


def measure_recordings(plan: Plan) -> Figures:
    samples = recordings.speech(plan.recorded_s)
    with tempfile.TemporaryDirectory() as folder, recordings.stage(Path(folder)) as stage:
        seconds, peak_mb = recordings.by_worker(stage, samples, "mp3")
        stored = sum(map(len, stage.bucket.read(stage.key("mp3"))))
    return {
        "recording_times_real_time": plan.recorded_s / seconds,
        "recording_worker_mb": peak_mb,
        "mp3_bytes_per_hour": stored * 3600 / plan.recorded_s,
    }


def measure_transcription(plan: Plan) -> Figures:
    """Return the CPU seconds that a second of speech takes on one core."""
    del plan
    once = np.concatenate([audio_analysis.wav(one.path) for one in speech_files()])
    wide = np.interp(np.arange(len(once) * 2) / 2, np.arange(len(once)), once).astype("<i2").tobytes()
    try:
        engine = create_engine(from_environment({}))
    except TranscriptionFailed as failed:
        raise RuntimeError(str(failed)) from None
    engine.transcribe(wide[: RATE * 2])
    began = time.process_time()
    engine.transcribe(wide)
    return {"transcription_cores": (time.process_time() - began) / (len(wide) / 2 / RATE)}


PARTS: dict[str, Callable[[Plan], Figures]] = {
    "members": measure_members,
    "joins": measure_joins,
    "calls": measure_calls,
    "callbacks": measure_callbacks,
    "recordings": measure_recordings,
    "transcription": measure_transcription,
}


def join_cpu_ms(figures: Mapping[str, float]) -> float:
    """Return the CPU ms of a join and a leave: a short call's, without the audio in between."""
    return max(0.0, figures["call_cpu_ms"] - figures["call_s"] * 1000 / figures["members_per_core"])


def rows(figures: Mapping[str, float]) -> list[tuple[str, str]]:
    """Return the rows of the table: a resource, and its figure. What was not measured is left out."""
    found: list[tuple[str, str]] = []

    def add(resource: str, text: Callable[[], str]) -> None:
        try:
            found.append((resource, text()))
        except KeyError:
            return

    f = figures
    add(
        "Members at the same time, with callers and ari_conf on this machine",
        lambda: (
            f"{f['members_held']:.0f}{'' if f['members_at_the_limit'] else ' or more'}"
            if f["members_held"]
            else f"fewer than {f['members_tried']:.0f}"
        ),
    )
    add("Members per core: Asterisk, server, worker and Redis", lambda: f"{f['members_per_core']:.0f}")
    add("Members per core of Asterisk alone", lambda: f"{f['members_per_core_of_asterisk']:.0f}")
    add(
        "Joins per second, each in the conference within 250 ms",
        lambda: f"{f['joins_per_s']:.0f}" if f["joins_per_s"] else "fewer than 40",
    )
    add("CPU of a join and a leave, everything", lambda: f"{join_cpu_ms(f):.1f} ms")
    add("CPU of a join and a leave, server", lambda: f"{f['call_server_cpu_ms']:.1f} ms")
    add("Callbacks per second, one worker", lambda: f"{f['callbacks_per_s']:.0f}")
    add("Redis, for each member", lambda: f"{f['redis_bytes_per_member'] / 1000:.1f} KB")
    add("Redis, for each callback that waits", lambda: f"{f['redis_bytes_per_callback'] / 1000:.1f} KB")
    add("Recordings, one worker (mp3, 8 kHz)", lambda: f"{f['recording_times_real_time']:.0f} times real time")
    add(
        "Disk of Asterisk, for each hour that is recorded (8 kHz)",
        lambda: f"{BYTES_PER_WAV_HOUR / 1e6:.0f} MB, until it is stored" if f["recording_times_real_time"] else "",
    )
    add("S3, for each recorded hour (mp3, 8 kHz)", lambda: f"{f['mp3_bytes_per_hour'] / 1e6:.0f} MB")
    add("Transcription, cores while one person talks", lambda: f"{f['transcription_cores']:.2f}")
    return found


def markdown(found: list[tuple[str, str]]) -> str:
    return "\n".join(("| Resource | Figure |", "|---|---|", *(f"| {name} | {figure} |" for name, figure in found)))


def machine_for(figures: Mapping[str, float], members: int, minutes: float) -> list[tuple[str, str]]:
    """Return what so many members at the same time need, if a member stays for `minutes`.

    Raises KeyError if a figure that is needed was not measured.
    """
    joins = members / (minutes * 60)
    cores = (members / figures["members_per_core"] + joins * join_cpu_ms(figures) / 1000) / MAX_BUSY
    workers = math.ceil(joins * CALLBACKS_PER_CALL / figures["callbacks_per_s"] / MAX_BUSY)
    server = joins * figures["call_server_cpu_ms"] / 1000
    return [
        ("joins per second, on average", f"{joins:.1f}"),
        ("cores, at most 70 % busy", f"{math.ceil(cores)} ({cores:.1f})"),
        ("of these, the server (it uses one)", f"{server:.2f}"),
        ("workers", f"{max(MIN_WORKERS, workers)}"),
        ("Redis, MB for calls", f"{members * figures.get('redis_bytes_per_member', 0.0) / 1e6:.0f}"),
        ("UDP ports for audio", f"{members * PORTS_PER_CALL}"),
        ("GB of disk for an hour of all, if everyone's conference of 20 is recorded", _recorded_gb(members)),
    ]


def _recorded_gb(members: int) -> str:
    return f"{math.ceil(members / 20) * BYTES_PER_WAV_HOUR / 1e9:.1f}"


def run(parts: list[str], plan: Plan, out: Path) -> tuple[Figures, dict[str, str]]:
    """Measure the parts, write results.json and table.md, and return the figures and the parts that failed."""
    figures: Figures = {}
    failed: dict[str, str] = {}
    about = machine()
    if about["load_at_the_start"] > about["cores"] / 4:
        progress(f"other programs run: the load is {about['load_at_the_start']:.1f}, and the figures will be too low")
    for number, part in enumerate(parts, 1):
        began = time.monotonic()
        progress(f"{number} of {len(parts)}, {part} …")
        try:
            figures |= PARTS[part](plan)
        except TimeoutError:
            failed[part] = f"took longer than {plan.within_s:.0f} s"
        except Exception as error:
            # A part that needs what this machine does not have must not take the others with it.
            failed[part] = f"{error or type(error).__name__}"
        progress(f"{number} of {len(parts)}, {part}: {failed.get(part, 'measured')} ({time.monotonic() - began:.0f} s)")
    out.mkdir(parents=True, exist_ok=True)
    about["version"] = importlib.metadata.version("ari_conf")
    results = {"machine": about, "figures": figures, "failed": failed}
    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    caption = (
        f"{about['processor']}, {about['cores']} cores, {about['at'].partition(' ')[0]}, load at the start "
        f"{about['load_at_the_start']:.1f}:\n\n"
    )
    (out / "table.md").write_text(f"{caption}{markdown(rows(figures))}\n")
    return figures, failed


def main() -> int:
    parser = argparse.ArgumentParser(prog="make sizing", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all if none is named")
    parser.add_argument("--quick", action="store_true", help="rough figures in less than two minutes")
    parser.add_argument("--members", type=int, default=500, help="members at the same time to plan for (500)")
    parser.add_argument("--minutes", type=float, default=30.0, help="minutes that each of them stays (30)")
    parser.add_argument("--out", type=Path, default=Path(".local/sizing"), help="folder of results.json and table.md")
    given = parser.parse_args()
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"{', '.join(sorted(unknown))} is not a part; expected {', '.join(PARTS)}")
    if given.members < 1 or not given.minutes > 0:
        parser.error("--members and --minutes must be above 0")
    figures, failed = run(given.parts or list(PARTS), QUICK if given.quick else Plan(), given.out)
    print(f"\n{(given.out / 'table.md').read_text()}")
    try:
        needed = machine_for(figures, given.members, given.minutes)
    except KeyError as missing:
        print(f"No plan for {given.members} members: {missing} was not measured.")
    else:
        print(f"For {given.members} members at the same time, each for {given.minutes:g} minutes:\n")
        print("\n".join(f"  {figure:>12}  {name}" for name, figure in needed))
    for part, reason in failed.items():
        print(f"NOT MEASURED: {part}: {reason}")
    print(f"\nwritten: {given.out / 'results.json'}, {given.out / 'table.md'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

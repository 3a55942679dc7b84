"""The whole server against the fake ARI server: each size is a system of its own, and all of them take turns."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import requests

from ari_conf.local.processes import free_port
from ari_conf.store import accounts
from tests.bench.fake_ari import APP, PASSWORD, USER
from tests.bench.plays import ACCOUNT
from tests.redis import start

ROOT = Path(__file__).parents[2]
NAME = "bench"
TALKS = 30
"""For each caller who is replaced, the number of times that a member starts and stops talking."""
TICKS = os.sysconf("SC_CLK_TCK")


class Process:
    def __init__(self, command: list[str], folder: Path, environment: dict[str, str] | None = None) -> None:
        self.log = folder / f"{command[1].rpartition('.')[2]}.log"
        self.began = time.time()
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, *command], stdout=log, stderr=log, cwd=ROOT, env=os.environ | (environment or {})
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def kb(self) -> int:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1])
        return 0

    def end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Stalls(threading.Thread):
    """The longest time without an answer of the server."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._url = f"http://127.0.0.1:{port}/healthz"
        self.longest = 0.0
        self.stop = threading.Event()

    def run(self) -> None:
        with requests.Session() as session:
            while not self.stop.wait(0.02):
                began = time.monotonic()
                with contextlib.suppress(requests.RequestException):  # the server has just closed an idle connection
                    session.get(self._url, timeout=60)
                self.longest = max(self.longest, time.monotonic() - began)


class System:
    """Redis, the fake ARI server with its callers, and the server, each as a process."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self._stack = stack
        self.ari, self.listen, self.metrics = free_port(), free_port(), free_port()
        self.redis = start(folder / "redis")
        stack.callback(self.redis.kill)
        accounts.add(self.redis.client, 1, ACCOUNT.auth_id, answer_url=f"http://127.0.0.1:{self.ari}/answer")
        self.callers = Process(["-m", "tests.bench.callers", str(self.ari), f"http://127.0.0.1:{self.listen}/"], folder)
        stack.callback(self.callers.end)
        self.app: Process | None = None

    def control(self, what: str, **arguments: Any) -> dict[str, Any]:
        for _ in range(200):
            try:
                answer = requests.post(f"http://127.0.0.1:{self.ari}/bench/{what}", json=arguments, timeout=900)
                break
            except requests.ConnectionError:
                time.sleep(0.05)
        else:
            raise SystemExit(f"the callers don't answer: {self.callers.log.read_text()[-2000:]}")
        if answer.status_code != 200:
            app = self.app.log.read_text()[-3000:] if self.app else ""
            raise SystemExit(f"{what}: {answer.text}\n{self.callers.log.read_text()[-3000:]}\n{app}")
        found: dict[str, Any] = answer.json()
        return found

    def start(self) -> Process:
        environment = {
            "ARI_CONF_REDIS_URL": self.redis.url,
            "ARI_CONF_ARI_URL": f"http://127.0.0.1:{self.ari}/ari",
            "ARI_CONF_ARI_USER": USER,
            "ARI_CONF_ARI_PASSWORD": PASSWORD,
            "ARI_CONF_ARI_APP": APP,
            "ARI_CONF_ARI_SOCKET": "outbound",
            "ARI_CONF_ARI_LISTEN": f"127.0.0.1:{self.listen}",
            "ARI_CONF_METRICS_LISTEN": f"127.0.0.1:{self.metrics}",
            "ARI_CONF_ASTERISK_NAME": NAME,
            "ARI_CONF_ALLOWED_NETWORKS": "127.0.0.0/8",
            "ARI_CONF_CALLS_PER_ACCOUNT": "0",
            "ARI_CONF_SOUNDS_FOLDER": str(self.folder / "sounds"),
        }
        self.app = Process(["-m", "ari_conf", "serve"], self.folder, environment)
        self._stack.callback(self.app.end)
        return self.app


class Sized:
    """A system with that many members, taken over from an earlier process."""

    def __init__(self, members: int, folder: Path, stack: ExitStack) -> None:
        self.members = members
        self.system = System(folder, stack)
        seeded = self.system.control("seed", members=members, redis=self.system.redis.url, name=NAME)
        self.app = self.system.start()
        ready = self.system.control("ready")["at"] - self.app.began
        self.found: dict[str, float] = {
            "start_up_s": ready,
            "start_up_cpu_s": self.app.cpu_s(),
            "state_bytes": seeded["bytes"],
            "rss_mb": self.app.kb() / 1024,
        }

    def churn(self, seconds: float, at_once: int, talks: int) -> dict[str, float]:
        """Replace callers, and return the figures. `talks` per replaced caller; the CPU time is the server's alone."""
        stalls = Stalls(self.system.metrics)
        stalls.start()
        began = self.app.cpu_s()
        churn = self.system.control("churn", seconds=seconds, at_once=at_once, talks=talks)
        cpu = self.app.cpu_s() - began
        stalls.stop.set()
        stalls.join()
        if churn["unknown"]:
            raise SystemExit(f"the fake does not know these requests: {churn['unknown']}")
        return {
            "cpu_us_per_event": cpu / churn["events"] * 1e6,
            "events_per_cpu_s": churn["events"] / max(cpu, 1 / TICKS),
            "cpu_ms_per_join_and_leave": cpu / churn["joins"] * 1000,
            "joins_per_s": churn["joins"] / churn["seconds"],
            "median_ms": churn["median_ms"],
            "p99_ms": churn["p99_ms"],
            "stall_ms": stalls.longest * 1000,
            "busy": cpu / churn["seconds"],
        }


def in_turns(sizes: list[int], rounds: int, seconds: float, at_once: int, told: Callable[[str], None]) -> list[Sized]:
    """Measure all sizes in turns, and return the systems, whose `found` has the medians of the rounds.

    Each size has its own processes, but only one is active at any time, so that other load affects all of them.
    """
    with tempfile.TemporaryDirectory(prefix="ari_conf-bench-") as folder, ExitStack() as stack:
        systems: list[Sized] = []
        for members in sizes:
            told(f"{members} members: making them, and taking them over …")
            place = Path(folder) / str(members)
            place.mkdir()
            systems.append(Sized(members, place, stack))
            told(f"{members} members: taken over in {systems[-1].found['start_up_s']:.1f} s")
        time.sleep(1)
        for sized in systems:
            # The first callers find cold caches.
            sized.churn(min(1.0, seconds), at_once, 1)
        for what, talks in (("joins", 0), ("talks", TALKS)):
            rows: list[list[dict[str, float]]] = []
            for number in range(rounds):
                rows.append([sized.churn(seconds, at_once, talks) for sized in systems])
                spent = ", ".join(f"{row['cpu_us_per_event']:.0f}" for row in rows[-1])
                told(f"{what}, round {number + 1} of {rounds}: {spent} us of CPU an event")
            for n, sized in enumerate(systems):
                for name in rows[0][0]:
                    worst = max if name == "stall_ms" else statistics.median
                    sized.found[f"{what}_{name}"] = worst([row[n][name] for row in rows])
                beside = [row[n]["cpu_us_per_event"] / row[0]["cpu_us_per_event"] for row in rows]
                sized.found[f"{what}_beside_the_smallest"] = statistics.median(beside)
    return systems

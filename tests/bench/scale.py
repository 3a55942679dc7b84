"""The whole application at 1,000, 10,000 and 100,000 members in conferences of 20."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import requests

from ari_conf import accounts
from ari_conf.parts.processes import free_port
from tests.bench.fake_ari import APP, PASSWORD, USER
from tests.bench.plays import ACCOUNT
from tests.redis import start

ROOT = Path(__file__).parents[2]
NAME = "bench"
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
    """The longest time for which the application did not answer."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._url = f"http://127.0.0.1:{port}/healthz"
        self.longest = 0.0
        self.stop = threading.Event()

    def run(self) -> None:
        with requests.Session() as session:
            while not self.stop.wait(0.02):
                began = time.monotonic()
                session.get(self._url, timeout=60)
                self.longest = max(self.longest, time.monotonic() - began)


class System:
    """Redis, the fake ARI server with its callers, and the application: each a process."""

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

    def tell(self, what: str, **arguments: Any) -> dict[str, Any]:
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
            "ARI_CONF_ARI_LISTEN": f"127.0.0.1:{self.listen}",
            "ARI_CONF_METRICS_LISTEN": f"127.0.0.1:{self.metrics}",
            "ARI_CONF_ASTERISK_NAME": NAME,
            "ARI_CONF_ALLOWED_NETWORKS": "127.0.0.0/8",
            "ARI_CONF_SOUNDS_FOLDER": str(self.folder / "sounds"),
        }
        wrapped = os.environ.get("BENCH_WRAP", "").split()
        self.app = Process([*(wrapped or ["-m", "ari_conf"]), "serve"], self.folder, environment)
        self._stack.callback(self.app.end)
        return self.app


def measured(members: int, seconds: float, at_once: int = 16) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="ari_conf-bench-") as folder, ExitStack() as stack:
        system = System(Path(folder), stack)
        seeded = system.tell("seed", members=members, redis=system.redis.url, name=NAME)
        app = system.start()
        up_s = system.tell("ready")["at"] - app.began
        time.sleep(1)
        kb = app.kb()
        found: dict[str, Any] = {"members": members, **seeded, "start-up s": up_s, "MB": kb / 1024}
        for what, talks in (("joins", 0), ("talking", 30))[: int(os.environ.get("BENCH_PHASES", "2"))]:
            stalls = Stalls(system.metrics)
            stalls.start()
            cpu = app.cpu_s()
            churn = system.tell("churn", seconds=seconds, at_once=at_once, talks=talks)
            cpu = app.cpu_s() - cpu
            stalls.stop.set()
            stalls.join()
            found[what] = {
                **churn,
                "cpu_s": cpu,
                "busy": cpu / churn["seconds"],
                "us_per_event": cpu / churn["events"] * 1e6,
                "events_per_s_and_core": churn["events"] / cpu,
                "cpu_ms_per_join_and_leave": cpu / churn["joins"] * 1000,
                "stall_ms": stalls.longest * 1000,
                "redis_mb": system.redis.client.info("memory")["used_memory"] / 1e6,
            }
        found["MB after"] = app.kb() / 1024
        return found


if __name__ == "__main__":
    for size in map(int, sys.argv[2:]):
        print(json.dumps(measured(size, float(sys.argv[1])), indent=1), flush=True)

"""`make deployment-test`: the steps of docs/operations/deployment.md, in an empty Debian 12, up to a call.

The commands are taken from the page. The step that installs runs in the new system's folder with this machine's
network; all others run under its systemd, in a network of its own. Another namespace is the provider, the callers and
the application. Root is needed. It takes some fifteen minutes, and leaves nothing but its logs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import secrets
import shlex
import shutil
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from ari_conf.local.asterisk import find, running
from tests import namespaces
from tests.containers import caller
from tests.containers.caller import progress
from tests.deployment.page import Step, steps, with_values
from tests.deployment.provider import NUMBER, Provider

ROOT = Path(__file__).parents[2]
HERE, BESIDE = namespaces.HERE, namespaces.BESIDE
DOMAIN, AUTH_ID = "conference.test", "acme"
START_WITHIN_S = 120.0
INSIDE = (
    "env",
    "-i",
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG=C.UTF-8",
    "HOME=/root",
)
HEADER = "set -euo pipefail\n"


def values(password: str) -> dict[str, str]:
    return {
        "REPOSITORY": "/source.git",
        "DOMAIN": DOMAIN,
        "TLS": "internal",
        "ANSWER_URL": caller.ANSWER_URL,
        "ALLOWED_NETWORKS": f"{BESIDE}/32",
        "PROVIDER": BESIDE,
        "PROVIDER_USER": "customer",
        "PROVIDER_PASSWORD": password,
        "PROVIDER_NETWORK": f"{BESIDE}/32",
    }


def install(root: Path, first: Step, second: Step, log: Path, keep: Path | None) -> None:
    """Make an empty Debian 12 and run the step that needs the internet. `keep`: the folder of a copy for later runs."""
    if keep and keep.exists():
        progress(f"starting from {keep}")
        _copy(keep, root, log)
        return
    progress("making an empty Debian 12 …")
    _run([str(ROOT / "debian/root"), "make", "bookworm", str(root)], log)
    # What every Debian has, and the minimal one of debootstrap has not.
    usual = ["apt-get", "install", "-y", "--no-install-recommends", "systemd", "systemd-sysv", "dbus", "iproute2"]
    _run([str(ROOT / "debian/root"), "run", str(root), *usual], log)
    _run(["git", "clone", "--quiet", "--bare", str(ROOT), str(root / "source.git")], log)
    progress(f"{second.title} …")
    script = f"{HEADER}{first.commands}{second.commands}"
    _run([str(ROOT / "debian/root"), "run", str(root), "bash", "-c", script], log)
    if keep:
        _copy(root, keep.with_suffix(".part"), log)
        keep.with_suffix(".part").rename(keep)


def _copy(source: Path, target: Path, log: Path) -> None:
    subprocess.run(["rm", "-rf", "--one-file-system", str(target)], check=True)
    _run(["cp", "--archive", "--reflink=auto", str(source), str(target)], log)


def _run(command: list[str], log: Path) -> None:
    with log.open("ab") as output:
        if subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output).returncode:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-30:])
            raise SystemExit(f"{shlex.join(command[:3])} failed; the end of {log}:\n{tail}")


class Deployed:
    """The system, booted, and connected with this namespace."""

    def __init__(self, root: Path, logs: Path) -> None:
        self._logs = logs
        self._process = subprocess.Popen([str(ROOT / "debian/root"), "boot", str(root)])
        self.machine = namespaces.connect(self._pid_of_systemd(root), BESIDE, HERE)
        self._until_started()

    def _pid_of_systemd(self, root: Path) -> int:
        end = time.monotonic() + START_WITHIN_S
        pid = self._process.pid
        while time.monotonic() < end:
            for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
                with suppress(OSError):  # it has ended in the meantime
                    if Path(f"/proc/{child}/comm").read_text() == "systemd\n":
                        return int(child)
            time.sleep(0.1)
        raise SystemExit(f"systemd of {root} did not start")

    def _until_started(self) -> None:
        end = time.monotonic() + START_WITHIN_S
        while self.ask("systemctl", "is-system-running", check=False).strip() not in ("running", "degraded"):
            if time.monotonic() > end:
                raise SystemExit("the system did not start")
            time.sleep(0.5)

    def command(self, *words: str) -> list[str]:
        return ["nsenter", "--all", "--target", str(self.machine.pid), *INSIDE, *words]

    def ask(self, *words: str, check: bool = True) -> str:
        done = subprocess.run(self.command(*words), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if check and done.returncode:
            raise SystemExit(f"{shlex.join(words)} ended with {done.returncode}:\n{done.stdout}")
        return done.stdout

    def run(self, found: list[Step]) -> str:
        """Run the steps in one shell, and return what they print."""
        titles = "".join(f"echo {shlex.quote(f'### {step.title}')}\n{step.commands}" for step in found)
        done = subprocess.run(
            self.command("bash", "-c", HEADER + titles), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        (self._logs / "steps.log").write_text(done.stdout)
        if done.returncode:
            raise SystemExit(
                f"a step ended with {done.returncode}; the end of {self._logs / 'steps.log'}:\n{done.stdout[-3000:]}"
            )
        return done.stdout

    def end(self) -> None:
        journal = self.ask("journalctl", "--no-pager", check=False)
        (self._logs / "journal.log").write_text(journal)
        self._process.kill()
        self._process.wait()


def run(folder: Path, logs: Path) -> None:
    """Boot the system, run the steps, and call. In namespaces that end with this process."""
    first, _, *others, last = steps()
    password = secrets.token_hex(12)
    first = with_values(first, values(password))
    namespaces.add_hosts(folder, {DOMAIN: HERE})
    system = Deployed(folder / "root", logs)
    try:
        provider = Provider(folder / "provider", find(), customer="customer", customers_password=password)
        application = caller.Application(record=False)
        threading.Thread(target=application.serve_forever, daemon=True).start()
        with running(provider):
            printed = system.run([first, *others])
            progress("all steps are done")
            (token,) = re.findall(r"\b([0-9A-Za-z]{40})\b", printed) or [""]
            token = token or system.ask("ari-conf", "account", "show", AUTH_ID, "--token").split()[-1]
            check(system, last)
            ca = folder / "ca.crt"
            ca.write_text(system.ask("cat", "/var/lib/caddy/.local/share/caddy/pki/authorities/local/root.crt"))
            asyncio.run(caller.call(application, f"sip:{NUMBER}@{BESIDE}:5060", lambda: kill_owner(system)))
            caller.check_api(DOMAIN, ca, AUTH_ID, token)
            check_history(system, ca, token)
            check_prometheus(system)
    finally:
        system.end()


def check(system: Deployed, last: Step) -> None:
    """Run the last step, and wait until the provider knows the machine."""
    end = time.monotonic() + START_WITHIN_S
    while "Registered" not in system.ask("asterisk", "-rx", "pjsip show registrations", check=False):
        if time.monotonic() > end:
            raise SystemExit("Asterisk did not register at the provider")
        time.sleep(1)
    printed = system.ask("bash", "-c", last.commands)
    for line in printed.splitlines():
        if "WARNING" in line or "FAILS" in line:
            progress(f"ari-conf doctor: {' '.join(line.split())}")
    found = json.loads(system.ask("ari-conf", "doctor", "--json", check=False))["checks"]
    # Recordings need a bucket, which the page leaves to the reader.
    if wrong := [one for one in found if one["state"] != ("warning" if one["id"] == "bucket" else "ok")]:
        raise SystemExit("\n".join(f"{one['id']}: {one['text']}" for one in wrong))


def kill_owner(system: Deployed) -> None:
    for number, port in (("1", 8091), ("2", 8092)):
        ready = system.ask(
            "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", f"http://127.0.0.1:{port}/readyz", check=False
        )
        if ready == "200":
            system.ask("systemctl", "kill", "--signal", "KILL", f"ari-conf-serve@{number}")
            progress(f"ari-conf-serve@{number}, which had the calls, is killed")
            return
    raise SystemExit("no server is ready")


def check_history(system: Deployed, ca: Path, token: str) -> None:
    """Wait until PostgreSQL has the conference that has ended, and until the API lists it."""
    query = "SELECT (SELECT count(*) FROM conferences), (SELECT count(*) FROM memberships)"
    end = time.monotonic() + START_WITHIN_S
    while "1|3" not in (
        found := system.ask("runuser", "-u", "postgres", "--", "psql", "-tAd", "ari_conf", "-c", query, check=False)
    ):
        if time.monotonic() > end:
            raise SystemExit(f"PostgreSQL does not have one conference with three members: {found}")
        time.sleep(1)
    progress("PostgreSQL has the conference and its members")
    caller.check_history(DOMAIN, ca, AUTH_ID, token)


def check_prometheus(system: Deployed) -> None:
    end = time.monotonic() + START_WITHIN_S
    while True:
        found = json.loads(system.ask("curl", "-fsS", "http://127.0.0.1:9090/api/v1/targets"))["data"]["activeTargets"]
        if len(found) == 4 and all(target["health"] == "up" for target in found):
            break
        if time.monotonic() > end:
            raise SystemExit(f"Prometheus: {[(target['scrapeUrl'], target['lastError']) for target in found]}")
        time.sleep(1)
    rules = json.loads(system.ask("curl", "-fsS", "http://127.0.0.1:9090/api/v1/rules"))["data"]["groups"]
    if not rules:
        raise SystemExit("Prometheus has no rules")
    progress(f"Prometheus scrapes four targets, and has {sum(len(group['rules']) for group in rules)} rules")


def main() -> None:
    parser = argparse.ArgumentParser(prog="make deployment-test", description=__doc__)
    parser.add_argument(
        "--folder", type=Path, default=ROOT / ".local" / "deployment", help="default: .local/deployment"
    )
    parser.add_argument(
        "--keep",
        action="store_true",
        help="keep the system as it is after the installation, and start later runs from it",
    )
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if os.geteuid():
        raise SystemExit("root is needed, for debootstrap and namespaces")
    folder = given.folder.resolve()
    logs, root = folder / "logs", folder / "root"
    if given.inside:
        run(folder, logs)
        return
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir(parents=True)
    began = time.monotonic()
    progress(f"logs: {logs}")
    first, second, *_ = steps()
    try:
        keep = folder / "installed" if given.keep else None
        install(root, with_values(first, values("")), second, logs / "install.log", keep)
        command = namespaces.enter("tests.deployment", "--inside", "--folder", str(folder))
        code = subprocess.run(command, cwd=ROOT).returncode
    finally:
        subprocess.run(["rm", "-rf", "--one-file-system", str(root)], check=True)
    progress(f"{'passed' if not code else 'FAILED'} after {time.monotonic() - began:.0f} s")
    sys.exit(code)


if __name__ == "__main__":
    main()

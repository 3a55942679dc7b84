"""`make containers-test`: build all images, start compose.yaml from nothing, and make a call.

Everything runs below one folder and in namespaces of its own. Root is needed, and no registry: see engine.py. What it
leaves are the images, so that the next run is faster; `--fresh` removes them first.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests import namespaces
from tests.containers import engine as engines
from tests.containers.caller import ANSWER_URL
from tests.containers.engine import ROOT, Engine

DOMAIN, AUTH_ID = "conference.test", "demo"
ENVIRONMENT = {"DOMAIN": DOMAIN, "PODMAN_COMPOSE_WARNING_LOGS": "false"}
SETTINGS = f"ARI_CONF_ALLOWED_NETWORKS={namespaces.BESIDE}/32\nARI_CONF_TRUNK_MATCH={namespaces.BESIDE}\n"
"""The file .env: the caller is the provider."""
HEALTHY_WITHIN_S = 240.0
SERVICES = ("redis", "s3", "asterisk", "serve", "standby", "web", "worker", "caddy")


def progress(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


def build(engine: Engine, logs: Path) -> None:
    """Make the base images, and build all others."""
    for name, release in engines.base_images().items():
        if not engine.has_image(name):
            progress(f"{name}: a minimal Debian {release}, by debootstrap …")
            engines.make_base_image(engine, name, release, logs / "debootstrap.log")
    for name, containerfile in engines.official_images().items():
        if not engine.has_image(name):
            progress(f"{name}: the same program from Debian …")
            options = ["--isolation", "chroot", "--tag", name, "--file", str(engines.HERE / containerfile)]
            engine.run("build", *options, str(engines.HERE), log=logs / "build.log")
    for name in ("secrets", "s3", "asterisk"):
        began = time.monotonic()
        progress(f"building {name} …")
        engine.compose("build", name, log=logs / "build.log")
        progress(f"built in {time.monotonic() - began:.0f} s")
    for line in engine.ask("images", "--format", "{{.Repository}} {{.Size}}").splitlines():
        if "ari_conf" in line:
            progress(f"image {line}")


def run(engine: Engine, logs: Path) -> None:
    """Start everything, make the calls, stop everything. In namespaces that end with this process."""
    namespaces.hide_unified_cgroups()
    namespaces.add_hosts(engine.folder, {DOMAIN: namespaces.HERE})
    environment = ROOT / ".env"
    if environment.exists():
        raise SystemExit(f"{environment} exists: move it away, since the test writes its own")
    with namespaces.machine_beside() as beside:
        environment.write_text(SETTINGS)
        # The storage is this test's alone. A run that was stopped may have left something.
        engine.ask("rm", "--all", "--force", "--time", "3")
        engine.ask("volume", "prune", "--force")
        try:
            began = time.monotonic()
            engine.compose("up", "--detach", "--no-build", log=logs / "up.log")
            namespaces.keep_addresses_of_bridges()
            wait_until_healthy(engine)
            progress(f"up and healthy in {time.monotonic() - began:.0f} s")
            check_containers(engine)
            token = add_account(engine)
            check_doctor(engine)
            call(engine, beside, token)
        finally:
            for container in engine.ask("ps", "--all", "--format", "{{.Names}}", check=False).splitlines():
                (logs / f"{container}.log").write_text(
                    subprocess.run(
                        ["podman", "logs", container], env=engine.environment, stdout=subprocess.PIPE,
                        stderr=subprocess.STDOUT, text=True,
                    ).stdout
                )  # fmt: skip
            engine.compose("down", "--volumes", "--timeout", "3", log=logs / "down.log")
            environment.unlink()


def containers_of(engine: Engine, service: str) -> list[str]:
    label = f"label=com.docker.compose.service={service}"
    return engine.ask("ps", "--all", "--filter", label, "--format", "{{.Names}}").split()


def wait_until_healthy(engine: Engine) -> None:
    end = time.monotonic() + HEALTHY_WITHIN_S
    for service in SERVICES:
        names = containers_of(engine, service)
        if len(names) != (2 if service == "worker" else 1):
            raise SystemExit(f"{service} has the containers {names}")
        for name in names:
            while subprocess.run(
                ["podman", "healthcheck", "run", name], env=engine.environment, capture_output=True
            ).returncode:
                if time.monotonic() > end:
                    raise SystemExit(f"{name} is not healthy")
                time.sleep(1)


def check_containers(engine: Engine) -> None:
    """Check what a container may do: its own user, nothing to write but its volumes, no other's secrets."""
    for service in SERVICES:
        (name, *_) = containers_of(engine, service)
        uid = engine.ask("exec", name, "id", "-u")
        if (uid == "0") != (service == "caddy"):
            raise SystemExit(f"{service} runs as {uid}")
        if not subprocess.run(
            ["podman", "exec", name, "touch", "/usr/written"], env=engine.environment, capture_output=True
        ).returncode:
            raise SystemExit(f"{service} can write to its image")
        found = engine.ask("exec", name, "sh", "-c", "ls /secrets 2>/dev/null || true").split()
        wanted = {"redis": ["redis"], "s3": ["s3"], "asterisk": ["ari", "sip"], "caddy": []}
        if found != wanted.get(service, ["ari", "redis", "s3"]):
            raise SystemExit(f"{service} can read the secrets {found}")
    progress("each container has its own user, can write only to its volumes, and reads only its own secrets")


def add_account(engine: Engine) -> str:
    (web,) = containers_of(engine, "web")
    engine.ask("exec", web, "ari-conf", "account", "add", AUTH_ID, "--answer-url", ANSWER_URL)
    return engine.ask("exec", web, "ari-conf", "account", "show", AUTH_ID, "--token").split()[-1]


def check_doctor(engine: Engine) -> None:
    (serve,) = containers_of(engine, "serve")
    found = engine.ask("exec", serve, "ari-conf", "doctor", check=False)
    wrong = [line for line in found.splitlines() if "FAILS" in line or "WARNING" in line]
    progress(f"ari-conf doctor: {len(found.splitlines()) - len(wrong)} lines are fine")
    for line in wrong:
        progress(f"ari-conf doctor: {' '.join(line.split())}")
    if any("FAILS" in line for line in wrong):
        raise SystemExit(found)


def call(engine: Engine, beside: namespaces.Machine, token: str) -> None:
    (caddy,) = containers_of(engine, "caddy")
    certificate = engine.folder / "ca.crt"
    certificate.write_text(engine.ask("exec", caddy, "cat", "/data/caddy/pki/authorities/local/root.crt"))
    caller = subprocess.Popen(
        beside.command(sys.executable, "-m", "tests.containers.caller", DOMAIN, str(certificate), AUTH_ID),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    assert caller.stdin is not None and caller.stdout is not None
    try:
        print(token, file=caller.stdin, flush=True)
        for line in caller.stdout:
            if line == "in conference\n":
                owner = owner_of_calls(engine)
                progress(f"{owner} is killed …")
                engine.ask("kill", owner)
                print(file=caller.stdin, flush=True)
            else:
                progress(line.rstrip())
        if caller.wait(60):
            raise SystemExit("the call failed")
    finally:
        caller.kill()
        caller.wait()


def owner_of_calls(engine: Engine) -> str:
    """Return the container whose server has the calls: it is ready, the other one stands by."""
    ask = "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8091/readyz')"
    for name in containers_of(engine, "serve") + containers_of(engine, "standby"):
        command = ["podman", "exec", name, "python3", "-c", ask]
        if not subprocess.run(command, env=engine.environment, capture_output=True).returncode:
            return name
    raise SystemExit("no server is ready")


def main() -> None:
    parser = argparse.ArgumentParser(prog="make containers-test", description=__doc__)
    parser.add_argument("--fresh", action="store_true", help="remove the images of earlier runs first")
    parser.add_argument("--no-build", action="store_true", help="use the images of an earlier run")
    parser.add_argument(
        "--folder", type=Path, default=ROOT / ".local" / "containers", help="default: .local/containers"
    )
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if os.geteuid():
        raise SystemExit("root is needed, for debootstrap and podman")
    if missing := [name for name in engines.PROGRAMS if not shutil.which(name) and not _is_helper(name)]:
        raise SystemExit(f"missing: {', '.join(missing)}; run `apt-get install {engines.DEBIAN_PACKAGES}`")
    folder = given.folder.resolve()
    engine, logs = Engine(folder, ENVIRONMENT), folder / "logs"
    if given.inside:
        run(engine, logs)
        return
    if given.fresh:
        engine.ask("system", "reset", "--force", check=False)
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir(parents=True)
    began = time.monotonic()
    progress(f"logs: {logs}")
    if not given.no_build:
        build(engine, logs)
    command = namespaces.enter("tests.containers", "--inside", "--folder", str(folder))
    code = subprocess.run(command, cwd=ROOT).returncode
    progress(f"{'passed' if not code else 'FAILED'} after {time.monotonic() - began:.0f} s")
    sys.exit(code)


def _is_helper(name: str) -> bool:
    """Return whether podman finds the program in its own folders."""
    return any((Path(place) / name).exists() for place in ("/usr/lib/podman", "/usr/libexec/podman"))


if __name__ == "__main__":
    main()

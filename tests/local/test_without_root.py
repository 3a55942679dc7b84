"""Tests without root: the scripts say what they need root for, and Asterisk itself is started without it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ari_conf.local import asterisk
from ari_conf.local.asterisk import DEFAULT_ROOT, END_WITH_INPUT_SCRIPT

PROJECT = Path(__file__).parents[2]
NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
TOOLS = (
    "bash",
    "env",
    "id",
    "sed",
    "dirname",
    "realpath",
    "mktemp",
    "cat",
    "python3",
    "rm",
    "tail",
    "tee",
    "chmod",
    "true",
)

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root can run a program as another user")


@pytest.fixture
def place() -> Iterator[Path]:
    """Yield a folder that other users can reach, with the scripts and a PATH with few programs."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    programs = folder / "bin"
    programs.mkdir()
    for tool in TOOLS:
        if found := shutil.which(tool, path="/usr/bin:/bin"):
            (programs / tool).symlink_to(found)
    program(folder, "apt-get", 'echo "apt-get $*" >&2')
    program(folder, "apt-cache", "true")
    for script in (".ci/packages", "asterisk/get", "asterisk/run-in"):
        shutil.copy(PROJECT / script, folder / Path(script).name)
    yield folder
    shutil.rmtree(folder)


def program(place: Path, name: str, body: str) -> None:
    path = place / "bin" / name
    path.write_text(f"#!/bin/bash\n{body}\n")
    path.chmod(0o755)


def as_nobody(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": str(place / "bin"), "ARI_CONF_ASTERISK": "any"}
    command = [shutil.which("setpriv") or "setpriv", *NOBODY[1:], *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("sudo", "says"),
    [
        (None, "you are not root, and there is no sudo. Have an administrator run this"),
        ("exit 1", "sudo does not let you. Have an administrator run the line above"),
    ],
)
def test_without_usable_sudo_the_command_for_an_administrator_is_printed(
    place: Path, sudo: str | None, says: str
) -> None:
    if sudo:
        program(place, "sudo", sudo)
    ran = as_nobody(place, str(place / "packages"))
    assert ran.returncode == 1 and says in ran.stderr
    assert "apt-get install --no-install-recommends" in ran.stderr and " ffmpeg " in ran.stderr


def test_the_reason_is_printed_before_sudo_asks(place: Path) -> None:
    program(place, "sudo", 'echo "[sudo] password" >&2; exec "$@"')
    asked = place / "asked"
    asked.touch()
    asked.chmod(0o666)
    program(place, "apt-get", f'echo "$*" >>{asked}')
    ran = as_nobody(place, str(place / "packages"))
    assert ran.stderr.index("sudo is needed for this, and may ask") < ran.stderr.index("[sudo] password")
    assert "install -y --no-install-recommends ffmpeg" in asked.read_text()


def test_nothing_is_installed_if_all_programs_exist(place: Path) -> None:
    for name in ("ffmpeg", "flite", "text2wave", "espeak-ng", "redis-server"):
        program(place, name, "true")
    if not Path("/usr/share/festival/voices/us/cmu_us_slt_arctic_hts").exists():
        pytest.skip("the voice is looked for in its own place")
    ran = as_nobody(place, str(place / "packages"))
    assert (ran.returncode, ran.stderr) == (0, "")


def test_an_asterisk_that_only_root_can_get_is_said_to_be(place: Path) -> None:
    ran = as_nobody(place, str(place / "get"), str(place / "root"))
    assert ran.returncode == 1
    assert "Have an administrator run one of these, then try again" in ran.stderr
    assert f"{place}/get {place}/root" in ran.stderr


def test_asterisk_runs_without_root_and_writes_what_is_the_user_s(place: Path) -> None:
    if not (DEFAULT_ROOT / ".complete").exists():
        pytest.skip("Asterisk is not in a system of its own here")
    able = subprocess.run([*NOBODY, "unshare", "--user", "--map-root-user", "--mount", "true"], capture_output=True)
    if able.returncode:
        pytest.skip("this kernel lets users make no namespaces")
    folder = place / "up"
    folder.mkdir()
    os.chown(folder, 65534, 65534)
    command = [*NOBODY, str(place / "run-in"), str(DEFAULT_ROOT.resolve()), str(folder)]
    ran = subprocess.run([*command, "sh", "-c", f"asterisk -V && touch {folder}/made"], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("Asterisk ") and (folder / "made").stat().st_uid == 65534
    refused = subprocess.run([*NOBODY, str(place / "run-in"), str(DEFAULT_ROOT.resolve()), "/etc", "true"],
                             capture_output=True, text=True)  # fmt: skip
    assert refused.returncode == 1 and "the folder can't be in /etc" in refused.stderr


@pytest.mark.parametrize("how", ["its input ends", "it ends by itself"])
def test_a_process_under_sudo_ends_with_its_parent(how: str) -> None:
    program = "exec sleep 300" if how == "its input ends" else "exit 7"
    command = ["bash", "-c", END_WITH_INPUT_SCRIPT, "asterisk", "sh", "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as kept:
        assert kept.stdin is not None
        if how == "its input ends":
            kept.stdin.close()
        assert kept.wait(60) == (128 + 15 if how == "its input ends" else 7)


def test_without_namespaces_and_sudo_the_error_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(asterisk, "_can_create_namespaces", lambda: False)
    monkeypatch.setattr(asterisk, "_is_sudo_usable", lambda: False)
    with pytest.raises(asterisk.SetupFailed, match=r"it needs root, .* run `sudo -v` in this terminal"):
        asterisk.LocalAsterisk(tmp_path, f"root {tmp_path}").start()

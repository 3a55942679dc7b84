"""The wheel is the whole product: built as by `make dist`, installed into an empty environment, and used from there.

The working directory is elsewhere, and has modules with the names of the project's own: `tasks`, `demo`, `ari_conf`.
"""

from __future__ import annotations

import calendar
import configparser
import os
import signal
import subprocess
import sys
import tarfile
import wave
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from ari_conf.documents import parser
from ari_conf.local.asterisk import DEFAULT_ROOT
from ari_conf.local.processes import free_port
from tests.redis import RedisServer
from tools import dist
from tools.links import PROJECT

EXTRAS = "speech,embedded,phones,example"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
BUNDLED = ("asterisk", "demo", "documents")
TRACKED = subprocess.run(["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True, check=True).stdout.split()


@dataclass
class Installed:
    prefix: Path
    folder: Path
    """The working directory."""
    environment: dict[str, str]

    def run(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = [str(self.prefix / "bin" / words[0]), *words[1:]]
        environment = self.environment | more
        return subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=300, check=False
        )

    @contextmanager
    def running(self, *words: str, until: str, **more: str) -> Iterator[subprocess.Popen[str]]:
        """Run a program, and yield it once its output has a line with `until`; kill it if it has not ended then."""
        command = [str(self.prefix / "bin" / words[0]), *words[1:]]
        with subprocess.Popen(
            command, cwd=self.folder, env=self.environment | more, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True,
        ) as program:  # fmt: skip
            try:
                assert program.stdout is not None
                lines = []
                for line in program.stdout:
                    lines.append(line)
                    if until in line:
                        break
                else:
                    raise AssertionError(f"{words} ended before {until!r}: {''.join(lines)}")
                yield program
            finally:
                program.kill()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return dist.build(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def wheel(built: list[Path]) -> Path:
    (found,) = (path for path in built if path.suffix == ".whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    place = tmp_path_factory.mktemp("installed")
    prefix, folder, data = place / "venv", place / "folder", place / "data"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", prefix], check=True)
    pip = [sys.executable, "-m", "pip", "--python", prefix / "bin" / "python", "--disable-pip-version-check"]
    # Without PYTHONPATH, whose packages pip would count as installed.
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([*pip, "install", "--quiet", "--no-compile", f"{wheel}[{EXTRAS}]"], env=alone, check=True)
    for name in ("tasks", "demo", "celeryconfig"):
        for path in (folder / f"{name}.py", place / "path" / name / "__init__.py"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("raise SystemExit('a module of the user was imported')")
    (data / "ari_conf").mkdir(parents=True)
    if (DEFAULT_ROOT / ".complete").exists():
        (data / "ari_conf" / "asterisk").symlink_to(DEFAULT_ROOT.resolve())
    named = {"HOME": str(place), "XDG_DATA_HOME": str(data), "PYTHONPATH": str(place / "path"), "LANG": "C.UTF-8"}
    return Installed(prefix, folder, {"PATH": f"{prefix}/bin:{PATH}"} | named)


def place_in_wheel(name: str) -> str:
    return f"ari_conf/bundled/{name}" if name.partition("/")[0] in BUNDLED else name


def test_the_wheel_has_every_file_of_the_packages_and_no_other(wheel: Path) -> None:
    packages = ("ari_conf", "tasks", *BUNDLED)
    tracked = {place_in_wheel(name) for name in TRACKED if name.partition("/")[0] in packages}
    assert "ari_conf/bundled/demo/speech/LICENCE" in tracked
    with zipfile.ZipFile(wheel) as opened:
        names = {name for name in opened.namelist() if not name.partition("/")[0].startswith("ari_conf-")}
        scripts = {name: opened.getinfo(f"ari_conf/bundled/asterisk/{name}") for name in ("configure", "get", "run-in")}
    assert names == tracked
    assert all(script.external_attr >> 16 & 0o111 for script in scripts.values()), "they are run as programs"


def test_the_sdist_has_every_file_of_the_repository(built: list[Path]) -> None:
    (sdist,) = (path for path in built if path.name.endswith(".tar.gz"))
    with tarfile.open(sdist) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    assert set(TRACKED) <= names
    assert not [name for name in names if name.startswith((".local", ".tox", "build", "dist"))]


def test_the_times_in_the_wheel_are_that_of_the_commit(wheel: Path) -> None:
    command = ["git", "log", "-1", "--format=%ct"]
    committed = int(subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout)
    with zipfile.ZipFile(wheel) as opened:
        times = {calendar.timegm((*one.date_time, 0, 0, 0)) for one in opened.infolist()}
    assert times == {committed - committed % 2}, "a ZIP file has even seconds"


def test_the_version_is_that_of_setup_cfg(installed: Installed, wheel: Path) -> None:
    setup = configparser.ConfigParser()
    setup.read(PROJECT / "setup.cfg")
    version = setup["metadata"]["version"]
    assert wheel.name == f"ari_conf-{version}-py3-none-any.whl"
    assert installed.run("ari-conf", "--version").stdout == f"ari-conf {version}\n"


def test_the_help_lists_the_commands(installed: Installed) -> None:
    said = installed.run("ari-conf", "--help").stdout
    assert all(command in said for command in ("serve", "web", "worker", "up", "demo", "asterisk", "documents"))


def test_it_has_the_manual_and_the_completion(installed: Installed) -> None:
    share = installed.prefix / "share"
    assert ".SH NAME" in (share / "man/man1/ari-conf-serve.1").read_text()
    assert "#compdef ari-conf" in (share / "zsh/site-functions/_ari-conf").read_text()
    assert (share / "bash-completion/completions/ari-conf").exists()
    assert (share / "fish/vendor_completions.d/ari-conf.fish").exists()


def test_it_writes_the_configuration_of_the_checkout(installed: Installed, tmp_path: Path) -> None:
    settings = {"ARI_CONF_ARI_PASSWORD": "secret", "ARI_CONF_TRUNK_HOST": "sip.example.com"}
    said = installed.run("ari-conf", "asterisk", "configure", str(tmp_path / "etc"), **settings)
    assert said.returncode == 0, said.stderr
    command = [PROJECT / "asterisk" / "configure", tmp_path / "checkout"]
    subprocess.run(command, env=os.environ | settings, capture_output=True, check=True)
    written, expected = (
        {path.name: path.read_text().replace(str(tmp_path / name), "") for path in (tmp_path / name).iterdir()}
        for name in ("etc", "checkout")
    )
    assert written == expected and len(written) > 10


def test_its_script_for_asterisk_needs_no_environment(installed: Installed, tmp_path: Path) -> None:
    folder = installed.run("ari-conf", "asterisk", "folder").stdout.strip()
    assert Path(folder).is_relative_to(installed.prefix)
    command = [sys.executable, "-S", f"{folder}/configure", str(tmp_path / "etc")]
    environment = {"ARI_CONF_ARI_PASSWORD": "secret", "PATH": PATH}
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0 and (tmp_path / "etc" / "ari.conf").exists(), ran.stderr


def test_its_samples_can_be_run(installed: Installed) -> None:
    samples = installed.run("ari-conf", "documents", "samples").stdout.split()
    assert {Path(sample).name for sample in samples} == {path.name for path in (PROJECT / "documents").glob("*.xml")}
    checked = installed.run("ari-conf", "documents", "check", *samples)
    assert checked.returncode == 0 and "Speak, Conference, Speak" in checked.stdout, checked.stdout


def test_a_missing_extra_is_installed_by_its_requirements(installed: Installed) -> None:
    said = installed.run("ari-conf", "doctor", ARI_CONF_REDIS_URL="redis://127.0.0.1:1/0")
    assert "pip install faster-whisper==" in " ".join(said.stdout.split()), said.stdout + said.stderr


@pytest.mark.parametrize("words", [("ari-conf", "worker"), ("celery", "-A", "tasks", "worker")])
def test_the_worker_runs(installed: Installed, redis_server: RedisServer, tmp_path: Path, words: tuple[str]) -> None:
    where = installed
    if words[0] == "celery":  # which takes a user's own module of that name, as it does everywhere
        where = Installed(installed.prefix, tmp_path, installed.environment | {"PYTHONPATH": ""})
    with where.running(*words, until=" ready.", ARI_CONF_REDIS_URL=redis_server.url) as worker:
        worker.terminate()
        worker.communicate(timeout=60)
        assert worker.returncode == 0


def test_the_example_answers(installed: Installed) -> None:
    port = free_port()
    with installed.running("ari-conf", "example", "--port", str(port), until="answer URL") as example:
        answer = requests.post(f"http://127.0.0.1:{port}/answer", {"From": "15550100"}, timeout=60)
        assert type(parser.parse(answer.content).elements[0]).__name__ == "GetDigits"
        example.send_signal(signal.SIGINT)
        example.communicate(timeout=60)
        assert example.returncode == 0


def test_up_runs_the_whole_system(installed: Installed) -> None:
    with installed.running("ari-conf", "up", until="Ctrl-C") as system:
        folder = Path(installed.environment["XDG_DATA_HOME"]) / "ari_conf" / "up"
        listed = installed.run("ari-conf", "account", "list", ARI_CONF_UP_FOLDER=str(folder))
        system.send_signal(signal.SIGINT)
        said, _ = system.communicate(timeout=120)
        assert system.returncode == 0, said
    assert listed.stdout.startswith("demo\t"), listed.stderr


def test_the_demo_runs(installed: Installed) -> None:
    ran = installed.run("ari-conf", "demo")
    assert ran.returncode == 0 and "Each of the three heard the other two." in ran.stdout, ran.stdout + ran.stderr
    assert "`ari-conf up` prints the address" in " ".join(ran.stdout.split())
    heard = Path(installed.environment["XDG_DATA_HOME"]) / "ari_conf" / "demo" / "heard"
    for name in ("ann", "bob", "cid"):
        with wave.open(str(heard / f"{name}.wav")) as sound:
            assert sound.getnframes() > 8000

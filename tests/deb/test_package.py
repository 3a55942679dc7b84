"""The Debian package: built, installed in a Debian root of its own, started by its systemd, upgraded, removed, purged.

`make test` tries it in the release of this machine; `make deb-test` in all of DEB_RELEASES, with the recommended
packages, a call, and lintian.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ari_conf.local import asterisk
from ari_conf.local.asterisk import LocalAsterisk
from demo import audio_analysis
from demo.application import Application
from demo.phone import Switchboard
from tests.deb.system import DEBIAN, System, run

RELEASE = platform.freedesktop_os_release()
COMPLETE = "DEB_RELEASES" in os.environ
"""True in `make deb-test`."""
RELEASES = os.environ.get("DEB_RELEASES", RELEASE.get("VERSION_CODENAME", "")).split()
DOCS = DEBIAN.parent / "docs"
SERVICES = [f"ari-conf-{service}@{number}" for service in ("serve", "web", "worker") for number in (1, 2)]
PASSWORD = "a-password-of-ari"
MAX_EXPOSURE = 2.0
"""Upper limit of what `systemd-analyze security` counts: 0 is safe, and 10 is a service without any limits."""
ENVIRONMENT = f"""\
ARI_CONF_ARI_PASSWORD={PASSWORD}
ARI_CONF_ALLOWED_NETWORKS=127.0.0.0/8
ARI_CONF_SOUNDS_URL=http://127.0.0.1:8090/sounds
"""
DOCUMENT = "<Response><Speak voice='MAN'>This is the conference server.</Speak></Response>"

pytestmark = [
    pytest.mark.skipif(RELEASE["ID"] != "debian", reason="Debian's package is tried on Debian"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a Debian root"),
]


@pytest.fixture(scope="module", params=RELEASES)
def release(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def package(release: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package: in `make test` as `make deb` builds it on this machine, otherwise built in a root of the release."""
    folder = tmp_path_factory.mktemp("package")
    printed = run([str(DEBIAN / "build"), str(folder), *([release] if COMPLETE else [])])
    return Path(printed.splitlines()[-1])


@pytest.fixture(scope="module")
def system(release: str, package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A booted system with the package, Redis or Valkey, and an Asterisk in the same network."""
    folder = tmp_path_factory.mktemp("system")
    system = System(release, folder / "root")
    try:
        shutil.copy(package, system.root / "root")
        redis = "redis-server" if release == "bookworm" else "valkey-server"
        system.install("systemd", "dbus", redis)
        system.install(f"/root/{package.name}", recommends=COMPLETE)
        name = redis.removesuffix("-server")
        with (system.root / "etc" / name / f"{name}.conf").open("a") as conf:
            conf.write("appendonly yes\nmaxmemory-policy noeviction\n")
        system.boot()
        yield system
    finally:
        system.shut_down()
        run(["rm", "-rf", "--one-file-system", str(system.root)])


@pytest.fixture(scope="module")
def asterisk_there(system: System, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAsterisk]:
    there = LocalAsterisk(
        tmp_path_factory.mktemp("asterisk"),
        asterisk.find(),
        account="acme",
        password=PASSWORD,
        sip_port=5060,
        http_port=8088,
        websocket_port=8089,
    )
    system.in_network(there.start)
    yield there
    system.in_network(there.stop)


@pytest.fixture(scope="module")
def services(system: System, asterisk_there: LocalAsterisk) -> System:
    """The system with all of its services: a server and its standby, two web processes, two workers."""
    with (system.root / "etc/ari_conf/environment").open("a") as environment:
        environment.write(ENVIRONMENT)
    secret = system.root / "etc/ari_conf/credentials/s3_secret_key"
    secret.write_text("a-secret-key\n")
    secret.chmod(0o600)
    system.run("systemctl", "enable", "--now", *SERVICES)
    system.until(lambda: sorted(ready(system)) == [200, 503])
    return system


def ready(system: System) -> list[int]:
    """Return the statuses of /readyz of both servers."""
    return [system.get(f"http://127.0.0.1:{port}/readyz")[0] for port in (8091, 8092)]


def main_pids(system: System) -> list[str]:
    return [system.show(service, "MainPID") for service in SERVICES]


def states(system: System) -> set[str]:
    return set(system.run("systemctl", "is-active", *SERVICES, check=False).split())


def test_the_package_starts_nothing_by_itself(system: System) -> None:
    assert states(system) == {"inactive"}
    assert system.run("systemctl", "is-enabled", "ari-conf.target").strip() == "enabled"


def test_the_commands_run_and_have_manual_pages_and_completion(system: System) -> None:
    version = system.run("dpkg-query", "--show", "--showformat=${Version}", "ari-conf").partition("-")[0]
    assert system.run("ari-conf", "--version").split()[-1] == version
    system.run("ari-conf", "documents", "check", *map(str, documents(system)))
    shares = (
        "man/man1/ari-conf.1.gz",
        "man/man1/ari-conf-account-add.1.gz",
        "bash-completion/completions/ari-conf",
        "zsh/vendor-completions/_ari-conf",
        "fish/vendor_completions.d/ari-conf.fish",
        "doc/ari-conf/README.md",
        *(f"doc/ari-conf/docs/{path.relative_to(DOCS)}" for path in DOCS.rglob("*") if path.is_file()),
    )
    assert not [name for name in shares if not (system.root / "usr/share" / name).is_file()]
    completes = "source /usr/share/bash-completion/completions/ari-conf; complete -p ari-conf"
    assert "ari-conf" in system.run("bash", "-c", completes)


def documents(system: System) -> list[Path]:
    folder = Path("/etc/ari_conf/documents")
    return [folder / path.name for path in (system.root / str(folder)[1:]).iterdir()]


def test_the_virtual_environment_is_complete_and_knows_no_other_place(system: System) -> None:
    """Each requirement is there in its version, each library finds what it is linked to, no path is the build's."""
    check = """
import importlib.metadata as m, re, sys
missing = []
for one in m.distributions():
    for text in one.requires or ():
        name, _, marker = text.partition(";")
        exact = re.fullmatch(r"\\s*([\\w.-]+)==([\\w.]+)\\s*", name)
        if exact and not marker.strip() and m.version(exact[1]) != exact[2]:
            missing.append(text)
print(sys.prefix, missing)
"""
    assert system.run("/usr/lib/ari_conf/bin/python", "-c", check).strip() == "/usr/lib/ari_conf []"
    linked = system.run("bash", "-c", "find /usr/lib/ari_conf -name '*.so*' -type f -exec ldd {} + 2>&1", check=False)
    assert "=>" in linked and "not found" not in linked
    texts = ["grep", "-rlI", "/debian/ari-conf", "/usr/lib/ari_conf/bin", "/usr/lib/ari_conf/pyvenv.cfg"]
    assert not system.run(*texts, check=False).split()
    # As in a traceback, from the compiled code.
    place = "import ari_conf.settings as s; print(s.from_environment.__code__.co_filename)"
    shown = system.run("/usr/lib/ari_conf/bin/python", "-c", place)
    assert re.fullmatch(r"/usr/lib/ari_conf/lib/python3\.\d+/site-packages/ari_conf/settings\.py\n", shown)


def test_files_that_may_hold_passwords_are_for_root_and_the_services(system: System) -> None:
    paths = [f"/etc/ari_conf/{name}" for name in ("environment", "ari_conf.toml", "credentials")]
    modes = system.run("stat", "--format=%a %U:%G %n", *paths).splitlines()
    assert modes == [
        f"640 root:ari_conf {paths[0]}",
        f"640 root:ari_conf {paths[1]}",
        f"700 root:root {paths[2]}",
    ]


def test_systemd_finds_no_fault_in_the_units(system: System) -> None:
    units = [f"{service}.service" for service in SERVICES]
    found = system.run("systemd-analyze", "verify", "--man=no", *units, "ari-conf.target", check=False)
    assert "ari-conf" not in found, found
    for unit in units:
        table = system.run("systemd-analyze", "security", "--no-pager", unit)
        exposure = re.search(r"Overall exposure level for .*: ([\d.]+)", table)
        assert exposure and float(exposure[1]) <= MAX_EXPOSURE, table


def test_the_services_run(services: System) -> None:
    """All are ready, as their user, without rights, and write only their folder; a secret reaches them alone."""
    for port in (8080, 8081, 8091, 8092):
        status, body = services.get(f"http://127.0.0.1:{port}/healthz")
        assert status == 200 and json.loads(body)["status"] == "ok"
    assert [services.get(f"http://127.0.0.1:{port}/readyz")[0] for port in (8080, 8081)] == [200, 200]
    uid = services.run("id", "-u", "ari_conf").strip()
    for service, pid in zip(SERVICES, main_pids(services), strict=True):
        status = services.run("cat", f"/proc/{pid}/status")
        for line in (f"Uid:\t{uid}\t{uid}\t{uid}\t{uid}", "NoNewPrivs:\t1", "Seccomp:\t2", "CapBnd:\t0000000000000000"):
            assert line in status, f"{service}: {status}"
        inside = ["nsenter", "--mount", "--target", pid, "setpriv", "--reuid=ari_conf", "--regid=ari_conf"]
        inside += ["--clear-groups", "sh", "-c"]
        services.run(*inside, "touch /var/lib/ari_conf/probe /tmp/probe")
        assert "Read-only" in services.run(*inside, "touch /usr/probe", check=False)
        secret = f"/run/credentials/{service}.service/ari_conf_s3_secret_key"
        assert services.run(*inside, f"cat {secret}") == "a-secret-key\n"
        assert "denied" in services.run("setpriv", "--reuid=nobody", "--clear-groups", "cat", secret, check=False)
    # Asterisk's user must be able to read the sounds.
    services.run("setpriv", "--reuid=nobody", "--clear-groups", "ls", "/var/lib/ari_conf")
    assert services.show("ari-conf-serve@1", "UMask") == "0022"


def test_the_doctor_finds_a_working_installation(services: System) -> None:
    add = ("ari-conf", "account", "add", "acme", "--answer-url", "http://127.0.0.1:9/answer")
    services.run(*add, check=False)  # another test may have added it
    properties = ("EnvironmentFile=/etc/ari_conf/environment", "User=ari_conf", "StateDirectory=ari_conf")
    command = ["systemd-run", "--pipe", "--wait", "--quiet", *(f"--property={each}" for each in properties)]
    found = json.loads(services.run(*command, "/usr/bin/ari-conf", "doctor", "--json", check=False))
    state_by_id = {check["id"]: check["state"] for check in found["checks"]}
    expected = {"asterisk", "its-websocket", "its-modules", "application", "sounds-folder", "redis", "stored-state"}
    expected |= {"owner", "accounts", "callback-workers", "broker", "settings"}
    expected |= {"ffmpeg", "speech"} if COMPLETE else set()
    assert {name: state_by_id[name] for name in expected} == dict.fromkeys(expected, "ok"), found


def test_a_killed_service_starts_again_and_a_stop_is_orderly(services: System) -> None:
    before = main_pids(services)
    services.run("systemctl", "kill", "--signal=KILL", *SERVICES)
    services.until(lambda: not set(main_pids(services)) & {*before, "0"} and sorted(ready(services)) == [200, 503])
    services.run("systemctl", "stop", "ari-conf.target")
    services.until(lambda: states(services) == {"inactive"})
    assert [services.show(service, "Result") for service in SERVICES] == ["success"] * len(SERVICES)
    services.run("systemctl", "start", "ari-conf.target")
    assert states(services) == {"active"}
    services.until(lambda: sorted(ready(services)) == [200, 503])


def test_an_unusable_setting_is_a_failed_start_with_a_sentence(services: System) -> None:
    (services.root / "etc/ari_conf/environment.serve-3").write_text("ARI_CONF_METRICS_LISTEN=8093\n")
    said = services.run("systemctl", "start", "ari-conf-serve@3", check=False)
    assert "Job for ari-conf-serve@3.service failed" in said
    services.run("systemctl", "stop", "ari-conf-serve@3")
    assert "must be host:port" in services.run("journalctl", "-u", "ari-conf-serve@3", "--no-pager")


if COMPLETE:

    def test_lintian_finds_nothing(release: str, package: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
        lint = System(release, tmp_path_factory.mktemp("lintian") / "root")
        shutil.copy(package, lint.root / "root")
        lint.install("lintian")
        said = lint.run_before_boot("lintian", "--fail-on=none", f"/root/{package.name}")
        run(["rm", "-rf", "--one-file-system", str(lint.root)])
        assert not re.findall(r"^[EW]: .*", said, re.MULTILINE)

    def test_a_call_hears_speech(services: System, asterisk_there: LocalAsterisk) -> None:
        async def call() -> None:
            async with (
                Switchboard(1) as (phone,),
                Application({"14155550101": DOCUMENT}, lambda _: None) as application,
            ):
                urls = ("--answer-url", f"{application.url}/answer", "--hangup-url", f"{application.url}/hangup")
                await asyncio.to_thread(services.run, "ari-conf", "account", "set", "acme", *urls)
                await phone.call("sip:14155550100@127.0.0.1:5060", from_user="14155550101")
                await phone.wait_for_audio(lambda heard: audio_analysis.level_dbfs(heard) > -40)
                await phone.wait_until_hung_up()
                assert await application.wait_for_request(lambda request: request.path == "/hangup")

        services.run("ari-conf", "account", "add", "acme", "--answer-url", "http://127.0.0.1:9/answer", check=False)
        services.in_network(lambda: asyncio.run(call()))
        log = services.run("journalctl", "-u", "ari-conf-serve@*", "--no-pager")
        assert "voice failed" not in log, log
        sounds = ("/var/lib/ari_conf/sounds", "-name", "*.*", "-type", "f")
        assert services.run("find", *sounds).split()
        assert not services.run("find", *sounds, "!", "-perm", "-004").split()


def test_an_upgrade_keeps_the_configuration_and_restarts_the_services(services: System, package: Path) -> None:
    """A newer package has another conffile than the one that was changed. Then: removed, installed again, purged."""
    kept = (services.root / "etc/ari_conf/environment").read_text()
    assert kept.endswith(ENVIRONMENT)
    install = ("dpkg", "--force-confold", "--install")
    for file in (*([package] if COMPLETE else []), newer(package, package.parent / "newer")):
        shutil.copy(file, services.root / "root")
        before = main_pids(services)
        services.run(*install, f"/root/{file.name}")
        assert (services.root / "etc/ari_conf/environment").read_text() == kept
        assert not set(before) & set(main_pids(services))
        services.until(lambda: sorted(ready(services)) == [200, 503])
    assert "# Of a newer version." in (services.root / "etc/ari_conf/environment.dpkg-dist").read_text()

    services.run("dpkg", "--remove", "ari-conf")
    assert states(services) == {"inactive"}
    assert (services.root / "etc/ari_conf/environment").read_text() == kept
    assert (services.root / "var/lib/ari_conf").is_dir()
    services.run(*install, f"/root/{package.name}")
    services.until(lambda: sorted(ready(services)) == [200, 503])

    mine = services.root / "etc/ari_conf/documents/mine.xml"
    mine.write_text("<Response/>")
    said = services.run("dpkg", "--purge", "ari-conf")
    assert "left as they are" in said and "/etc/ari_conf/documents/mine.xml" in said
    left = sorted(path for path in (services.root / "etc/ari_conf").rglob("*") if path.is_file())
    assert left == [mine]
    assert not (services.root / "var/lib/ari_conf").exists()
    assert not list((services.root / "etc/systemd/system").rglob("ari-conf*"))
    if COMPLETE:
        services.run(*install, f"/root/{package.name}")
        assert states(services) == {"inactive"}


def newer(package: Path, folder: Path) -> Path:
    """Return the package with a higher version and another /etc/ari_conf/environment."""
    run(["dpkg-deb", "--raw-extract", str(package), str(folder)])
    control = folder / "DEBIAN/control"
    control.write_text(re.sub(r"(?m)^Version: (.*)$", r"Version: \1+newer", control.read_text()))
    with (folder / "etc/ari_conf/environment").open("a") as environment:
        environment.write("# Of a newer version.\n")
    path = package.with_name("newer.deb")
    run(["dpkg-deb", "--root-owner-group", "-Znone", "--build", str(folder), str(path)])
    shutil.rmtree(folder)
    return path

"""asterisk/configure --merge: adds to an existing configuration, and breaks nothing of it."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from ari_conf.asterisk_config.conf_text import sections, settings
from ari_conf.local.asterisk import DEFAULT_ROOT, LocalAsterisk, find
from tests import lateness
from tests.asterisk_config.test_configure import configure

STOCK = next((path / "etc/asterisk" for path in (DEFAULT_ROOT, Path("/"))), Path())
FILES = ("ari.conf", "http.conf", "extensions.conf", "pjsip.conf", "logger.conf")
PLAIN = {
    "ari.conf": "[general]\nenabled = yes ; so\n",
    "http.conf": "[general]\nenabled=yes\nbindaddr=10.0.0.5\nbindport=8080\nsessionlimit=5000\n",
    "extensions.conf": "[default]\nexten => 1,1,Answer()\n",
    "pjsip.conf": "[udp]\ntype=transport\nbind=[::]:5060",
    "logger.conf": "[logfiles]\nsecurity => notice,security\n",
    "modules.conf": "[modules]\nautoload=yes\n",
}


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    folder = tmp_path / "etc"
    folder.mkdir()
    for name, text in PLAIN.items():
        (folder / name).write_text(text)
    return folder


def merge(folder: Path, *names: str, **more: str) -> str:
    done = configure("--merge", folder, *names, **more)
    assert done.returncode == 0, done.stderr
    return done.stderr


def contents(folder: Path) -> dict[Path, str]:
    return {path: path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_existing_files_stay_and_include_the_additions(theirs: Path) -> None:
    (theirs / "ari.conf").chmod(0o604)
    merge(theirs)

    for name in ("ari.conf", "http.conf", "extensions.conf"):
        assert (theirs / name).read_text().startswith(PLAIN[name])
        assert (theirs / name).read_text().endswith(f"\n#tryinclude ari_conf/{name}\n")
    assert (theirs / "pjsip.conf").read_text().endswith(f"\n#tryinclude ari_conf/pjsip.conf\n\n{PLAIN['pjsip.conf']}")
    assert (theirs / "ari.conf").stat().st_mode & 0o777 == 0o604
    assert (theirs / "ari_conf" / "ari.conf").stat().st_mode & 0o007 == 0
    added = (theirs / "ari_conf" / "http.conf").read_text()
    assert added.startswith(f"; Included by {theirs}/http.conf.")
    assert "rtp_ipv6 = yes" in (theirs / "ari_conf" / "pjsip.conf").read_text(), "as their transport"
    # They log it already, and load what is there.
    assert contents(theirs)[theirs / "logger.conf"] == PLAIN["logger.conf"]
    assert contents(theirs)[theirs / "modules.conf"] == PLAIN["modules.conf"]


def test_a_missing_transport_is_reported(theirs: Path) -> None:
    assert "no transport" not in merge(theirs)
    (theirs / "pjsip.conf").write_text("; [udp]\n; type = transport\n[phone]\ntype = endpoint\ntransport = udp\n")
    assert f"no call can arrive yet: {theirs}/pjsip.conf has no transport" in merge(theirs)
    (theirs / "more.conf").write_text("[tls](+)\ntype => transport ; and protocol\n")
    with (theirs / "pjsip.conf").open("a") as file:
        file.write("#include more.conf\n")
    assert "no transport" not in merge(theirs)


def test_a_second_merge_changes_nothing(theirs: Path) -> None:
    merge(theirs)
    before = contents(theirs)

    assert "has all additions already" in merge(theirs)
    assert contents(theirs) == before
    merge(theirs, password="another")
    assert "password = another\n" in (theirs / "ari_conf" / "ari.conf").read_text()
    assert contents(theirs)[theirs / "ari.conf"] == before[theirs / "ari.conf"]


def test_sufficient_settings_of_the_user_are_not_changed(theirs: Path) -> None:
    said = merge(theirs)

    added = (theirs / "ari_conf" / "http.conf").read_text()
    assert [line for line in added.splitlines() if line[0] != ";"] == ["[general](+)", "session_keep_alive = 60000"]
    assert "ARI_CONF_ARI_URL=http://10.0.0.5:8080/ari" in said


def test_included_files_of_the_user_count_too(theirs: Path) -> None:
    (theirs / "http.conf").write_text('#include "http.d/*.conf"\n')
    (theirs / "http.d").mkdir()
    (theirs / "http.d" / "a.conf").write_text("[general]\nenabled=no\nbindport=8000\n")

    assert "http://127.0.0.1:8000/ari" in merge(theirs, "http.conf")
    added = (theirs / "ari_conf" / "http.conf").read_text()
    assert "[general](+)\nenabled = yes\nbindaddr = 127.0.0.1\n" in added and "bindport" not in added


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("prefix = asterisk\n", "http://127.0.0.1:8088/asterisk/ari"),
        ("prefix=/\nbindaddr=::1\n", "http://[::1]:8088/ari"),
        ("bindaddr=[2001:db8::5]\nbindport=80\n", "http://[2001:db8::5]:80/ari"),
        ("bindaddr=::\n", "http://127.0.0.1:8088/ari"),
    ],
)
def test_the_address_of_the_user_s_http_server_is_adopted(theirs: Path, text: str, url: str) -> None:
    (theirs / "http.conf").write_text("[general]\nenabled=yes\n" + text)

    assert f"ARI_CONF_ARI_URL={url}\n" in merge(theirs, "http.conf")


def test_a_missing_file_or_section_is_created(tmp_path: Path) -> None:
    """Asterisk reads nothing of a file with a (+) to a section that is not there."""
    (tmp_path / "modules.conf").write_text(PLAIN["modules.conf"])
    merge(tmp_path)

    there = {path.name: path.read_text() for path in (tmp_path / "ari_conf").iterdir()}
    assert [name for name, text in there.items() if "](+)" in text] == []
    assert "[logfiles]\n" in there["logger.conf"] and "\nasterisk.log => notice,warning,error\n" in there["logger.conf"]
    (tmp_path / "logger.conf").write_text("[logfiles]\nmine => notice\n")
    merge(tmp_path)
    added = (tmp_path / "ari_conf" / "logger.conf").read_text()
    assert "[logfiles](+)\n" in added and "asterisk.log" not in added


def test_commented_out_settings_do_not_count(theirs: Path) -> None:
    (theirs / "http.conf").write_text(
        "[general] ; ;-- not a block\nenabled=yes;--\nbindport=1 --;\n ;-- bindport=2\n[other]\n--; bindport=3\n"
        ";--- bindport=4\nservername=a\\;b ;bindport=5\n;--\nbindport=6\n"
    )

    assert ":3/ari" in merge(theirs, "http.conf")
    assert "\nenabled" not in (theirs / "ari_conf" / "http.conf").read_text()


def test_modules_are_added_only_if_they_are_not_loaded(theirs: Path) -> None:
    (theirs / "modules.conf").write_text("[modules]\nautoload = no\nload = app_stasis.so\npreload = res_ari\n")

    assert "restart Asterisk" in merge(theirs)
    added = (theirs / "ari_conf" / "modules.conf").read_text()
    assert "[modules](+)\nload = pbx_config\n" in added and "load = chan_pjsip\n" in added
    assert not {"load = app_stasis", "load = res_ari", "autoload = no"} & set(added.splitlines())


def test_optional_additions_are_not_made_by_default_and_diff_hides_passwords(theirs: Path) -> None:
    before = contents(theirs)
    shown = configure("--merge", "--diff", theirs, password="a secret").stdout

    assert f"+++ {theirs}/ari_conf/ari.conf" in shown and "+#tryinclude ari_conf/http.conf" in shown
    assert "a secret" not in shown and "[anonymous]" not in shown and "_trunk]" not in shown
    assert contents(theirs) == before


@pytest.mark.parametrize(
    ("name", "text", "more", "complaint"),
    [
        ("ari.conf", "[ari_conf]\ntype=user\n", {}, "has a section [ari_conf] already"),
        ("extensions.conf", "[ari_conf]\n", {}, "has a section [ari_conf] already"),
        ("pjsip.conf", "[phone](!)\n", {"PHONE_USER": "phone", "PHONE_PASSWORD": "x" * 12}, "set ARI_CONF_PHONE_USER"),
        ("pjsip.conf", "[anonymous]\n", {"ANONYMOUS": "yes"}, "has a section [anonymous] already"),
        ("modules.conf", "[modules]\nautoload=yes\nnoload => res_ari.so\n", {}, "remove it for res_ari"),
        ("http.conf", PLAIN["http.conf"], {"HTTP_BIND": "127.0.0.1:8088"}, "at 10.0.0.5:8080: set ARI_CONF_HTTP_BIND"),
    ],
)
def test_nothing_is_defined_twice(theirs: Path, name: str, text: str, more: dict[str, str], complaint: str) -> None:
    (theirs / name).write_text(text)
    before = contents(theirs)

    done = configure("--merge", theirs, **more)

    assert done.returncode == 1 and complaint in done.stderr
    assert contents(theirs) == before


def test_merge_refuses_a_missing_or_whole_configuration(tmp_path: Path) -> None:
    assert "has no configuration that `--merge` could add to" in configure("--merge", tmp_path / "none").stderr
    configure(tmp_path / "ours")
    assert "use `--force` instead of `--merge`" in configure("--merge", tmp_path / "ours").stderr
    assert "`--merge` does not change rtp.conf" in configure("--merge", tmp_path / "ours", "rtp.conf").stderr


class Stock(LocalAsterisk):
    """Debian's files, as they are."""

    def _configure(self) -> None:
        etc = self.folder / "etc"
        shutil.copytree(STOCK, etc)
        for name in ("run", "log", "spool/recording", "db"):
            (self.folder / name).mkdir(parents=True)
        places = {"etc": etc, "run": self.folder / "run", "log": self.folder / "log"}
        places |= {"spool": self.folder / "spool", "db": self.folder / "db"}
        (etc / "asterisk.conf").write_text(
            "[directories]\n" + "".join(f"ast{name}dir => {path}\n" for name, path in places.items())
        )

    def _is_ready(self) -> bool:
        return "fully booted" in self.console("core waitfullybooted")

    def console(self, command: str) -> str:
        words = self.command("asterisk", "-C", str(self.folder / "etc" / "asterisk.conf"), "-rx", command)
        return subprocess.run(words, capture_output=True, text=True).stdout


@pytest.mark.skipif(not (STOCK / "modules.conf").exists(), reason="Debian's own configuration is not here")
def test_debians_own_files_in_a_running_asterisk(tmp_path: Path) -> None:
    asterisk = Stock(tmp_path, find(), password="secret")
    asterisk.start()
    try:
        said = merge(
            tmp_path / "etc",
            HTTP_BIND=f"127.0.0.1:{asterisk.http_port}",
            TRUNK_MATCH="127.0.0.1",
        )
        assert "core reload" in said and asterisk.url in said
        asterisk.console("core reload")
        assert eventually(lambda: asterisk.ask("GET", "/asterisk/info"))
        assert "ari_conf" in asterisk.console("ari show users")
        assert "Stasis(ari_conf" in asterisk.console("dialplan show ari_conf")
        # Theirs is there, too.
        assert "demo" in asterisk.console("dialplan show")
        endpoint = asterisk.console("pjsip show endpoint ari_conf_trunk")
        assert "127.0.0.1/32" in endpoint and re.search(r"rtp_timeout +: 55\n", endpoint), endpoint
        assert eventually(lambda: (tmp_path / "log" / "security.log").exists())
        log = (tmp_path / "log" / "messages.log").read_text()
        wrong = [line for line in log.splitlines() if "ERROR" in line and ("duplicate" in line or "ari_conf" in line)]
        assert wrong == []
    finally:
        asterisk.stop()
    twice = [name for name, _ in sections(tmp_path / "etc" / "ari.conf", tmp_path / "etc", Path("/nowhere"))]
    assert twice.count("general") == 2 and twice.count("ari_conf") == 1, "the second is a (+)"
    assert ("enabled", "yes") in settings(tmp_path / "etc" / "http.conf", tmp_path / "etc", "general", Path("/nowhere"))


def eventually(what: Callable[[], object]) -> bool:
    patience = lateness.Patience(lateness.SOON_S)
    while not patience.over:
        with suppress(OSError):
            if what():
                return True
        time.sleep(0.05)
    return False

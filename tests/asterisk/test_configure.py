"""asterisk/configure: what it writes, and what it refuses to."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "asterisk"
FILES = {path.name for path in FOLDER.glob("*.conf")}


def configure(*words: str | Path, password: str | None = "secret", **settings: str) -> subprocess.CompletedProcess[str]:
    ours = {f"ARI_CONF_{name}": text for name, text in settings.items()}
    if password is not None:
        ours["ARI_CONF_ARI_PASSWORD"] = password
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("ARI_CONF_")}
    return subprocess.run([FOLDER / "configure", *words], env=inherited | ours, capture_output=True, text=True)


def test_everything_is_written_and_filled_in(tmp_path: Path) -> None:
    assert configure(tmp_path / "etc", ARI_SOCKET="outbound").returncode == 0

    written = {path.name: path.read_text() for path in (tmp_path / "etc").iterdir()}
    assert set(written) == FILES
    assert not re.findall(r"@[A-Z_]+@", "".join(written.values()))


def test_the_password_is_written_as_it_is_and_not_for_everybody(tmp_path: Path) -> None:
    configure(tmp_path, password=r"a&b\1 $HOME *")

    assert "password = a&b\\1 $HOME *\n" in (tmp_path / "ari.conf").read_text()
    assert (tmp_path / "ari.conf").stat().st_mode & 0o007 == 0


def test_what_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "http.conf").write_text("mine")

    done = configure(tmp_path)

    assert done.returncode == 1
    assert f"{tmp_path}/http.conf exists, so nothing was written" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["http.conf"]
    assert (tmp_path / "http.conf").read_text() == "mine"


def test_unless_it_is_forced(tmp_path: Path) -> None:
    (tmp_path / "http.conf").write_text("mine")

    assert configure("--force", tmp_path).returncode == 0
    assert "sessionlimit" in (tmp_path / "http.conf").read_text()


def test_only_the_files_that_were_named(tmp_path: Path) -> None:
    configure(tmp_path, "http.conf", "ari.conf")

    assert {path.name for path in tmp_path.iterdir()} == {"http.conf", "ari.conf"}


def test_to_the_screen() -> None:
    done = configure("--print", "extensions.conf", ACCOUNT="MA1", ARI_APP="calls")

    assert "Set(ACCOUNT=MA1)" in done.stdout
    assert 'Stasis(calls,${ACCOUNT},"${DOCUMENT}")' in done.stdout


def test_one_folder_for_all_that_asterisk_writes(tmp_path: Path) -> None:
    configure(tmp_path / "etc", RUN_FOLDER=str(tmp_path))

    assert (tmp_path / "spool" / "recording").is_dir()
    assert f"astspooldir => {tmp_path}/spool" in (tmp_path / "etc" / "asterisk.conf").read_text()


def test_the_application_opens_the_websocket_unless_asterisk_is_to(tmp_path: Path) -> None:
    configure(tmp_path)

    assert {path.name for path in tmp_path.iterdir()} == FILES - {"websocket_client.conf"}
    assert "outbound_websocket" not in (tmp_path / "ari.conf").read_text()


@pytest.mark.parametrize(
    ("words", "settings", "complaint"),
    [
        ((), {}, "name the folder"),
        (("--prnt",), {}, "there is no option --prnt"),
        (("--print",), {}, "name the files to print"),
        (("--print", "sip.conf"), {}, "there is no sip.conf; there are: ari.conf"),
        (("--print", "http.conf"), {"HTTP_BIND": "8088"}, "ARI_CONF_HTTP_BIND must be host:port"),
        (("--print", "rtp.conf"), {"RTP_PORTS": "10000"}, "must be two numbers such as 10000-20000"),
        (("--print", "asterisk.conf"), {"MAX_CALLS": "many"}, "must be numbers, not many and 55"),
        (("--print", "pjsip.conf"), {"RTP_TIMEOUT": "-1"}, "must be numbers, not 1000 and -1"),
        (("--print", "rtp.conf"), {"RTP_PORTS": "10000-10100"}, "too few for ARI_CONF_MAX_CALLS=1000"),
        (("--print", "rtp.conf"), {"RTP_PORTS": "10000-10100", "MAX_CALLS": "26"}, "four ports for each call"),
        (("--print", "ari.conf"), {"ARI_SOCKET": "both"}, "must be outbound or inbound, not both"),
        (("--print", "ari.conf"), {"password": "a;b"}, "may contain no ;"),
        (("--print", "ari.conf"), {"password": ""}, "set ARI_CONF_ARI_PASSWORD"),
    ],
)
def test_what_is_wrong_is_said(words: tuple[str, ...], settings: dict[str, str], complaint: str) -> None:
    done = configure(*words, **settings)

    assert done.returncode == 1
    assert complaint in done.stderr


def test_callers_who_vanish_and_those_who_are_too_many(tmp_path: Path) -> None:
    configure(tmp_path, RTP_PORTS="10000-10100", MAX_CALLS="25", RTP_TIMEOUT="20")

    assert "\nmaxcalls = 25\n" in (tmp_path / "asterisk.conf").read_text()
    endpoint = (tmp_path / "pjsip.conf").read_text().partition("[anonymous]")[2]
    assert "\nrtp_timeout = 20\n" in endpoint and "\ntimers = always\n" in endpoint


def test_every_setting_that_it_reads_stands_in_its_help() -> None:
    script = (FOLDER / "configure").read_text()
    head, _, code = script.partition("set -euo pipefail")

    assert set(re.findall(r"ARI_CONF_[A-Z_]+", code)) <= set(re.findall(r"ARI_CONF_[A-Z_]+", head))

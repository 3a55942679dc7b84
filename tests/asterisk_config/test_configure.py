"""asterisk/configure: what it writes, and what it refuses to."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from ari_conf.asterisk_config.template_settings import SETTINGS

FOLDER = Path(__file__).parents[2] / "asterisk"
FILES = {path.name for path in FOLDER.glob("*.conf")}
TRUNK = {"TRUNK_HOST": "sip.example.com", "TRUNK_USER": "u", "TRUNK_PASSWORD": "p"}


def configure(*words: str | Path, password: str | None = "secret", **settings: str) -> subprocess.CompletedProcess[str]:
    ours = {f"ARI_CONF_{name}": text for name, text in settings.items()}
    if password is not None:
        ours["ARI_CONF_ARI_PASSWORD"] = password
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("ARI_CONF_")}
    return subprocess.run([FOLDER / "configure", *words], env=inherited | ours, capture_output=True, text=True)


def test_all_templates_are_written_and_filled_in(tmp_path: Path) -> None:
    assert configure(tmp_path / "etc", ARI_SOCKET="outbound").returncode == 0

    written = {path.name: path.read_text() for path in (tmp_path / "etc").iterdir()}
    assert set(written) == FILES
    assert not re.findall(r"@[A-Z_]+@", "".join(written.values()))


def test_a_password_is_written_unchanged_to_a_file_that_others_can_t_read(tmp_path: Path) -> None:
    configure(tmp_path, password=r"a&b\1 $HOME *")

    assert "password = a&b\\1 $HOME *\n" in (tmp_path / "ari.conf").read_text()
    assert (tmp_path / "ari.conf").stat().st_mode & 0o007 == 0


def test_settings_come_from_files_too(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("of-a-file\n")
    (tmp_path / "ari_conf.toml").write_text(
        'ari_password_file = "password"\nsip_bind = ["10.0.0.1:5060", "10.0.0.2:5060"]\nmax_calls = 100\n'
        'anonymous = true\nari_user = "of-the-file"\napi_rate = 5  # of `ari-conf web`\n'
    )
    config = str(tmp_path / "ari_conf.toml")

    done = configure(tmp_path / "etc", password=None, CONFIG=config, ARI_USER="of-a-variable")

    assert done.returncode == 0, done.stderr
    written = {name: (tmp_path / "etc" / f"{name}.conf").read_text() for name in ("ari", "pjsip", "asterisk")}
    assert "[of-a-variable]" in written["ari"] and "password = of-a-file\n" in written["ari"]
    assert "10.0.0.2:5060" in written["pjsip"] and "[anonymous]" in written["pjsip"]
    assert "maxcalls = 100" in written["asterisk"]
    (tmp_path / "ari_conf.toml").write_text("ari_password = secret")
    done = configure(tmp_path / "etc", password=None, CONFIG=config)
    assert done.returncode == 1 and done.stderr.startswith(f"asterisk/configure: {config} is not valid TOML: Invalid")


def test_existing_files_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "http.conf").write_text("mine")

    done = configure(tmp_path)

    assert done.returncode == 1
    assert f"{tmp_path}/http.conf exists, so nothing was written" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["http.conf"]
    assert (tmp_path / "http.conf").read_text() == "mine"


def test_force_overwrites_existing_files(tmp_path: Path) -> None:
    (tmp_path / "http.conf").write_text("mine")

    assert configure("--force", tmp_path).returncode == 0
    assert "sessionlimit" in (tmp_path / "http.conf").read_text()


def test_only_named_files_are_written(tmp_path: Path) -> None:
    configure(tmp_path, "http.conf", "ari.conf")

    assert {path.name for path in tmp_path.iterdir()} == {"http.conf", "ari.conf"}


def test_print_writes_to_standard_output() -> None:
    done = configure("--print", "extensions.conf", ACCOUNT="MA1", ARI_APP="calls")

    assert "Set(ACCOUNT=MA1)" in done.stdout
    assert 'Stasis(calls,${ACCOUNT},"${DOCUMENT}")' in done.stdout


def test_a_run_folder_holds_all_that_asterisk_writes(tmp_path: Path) -> None:
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
        (("--prnt",), {}, "option --prnt does not exist"),
        (("--print",), {}, "name the files to print"),
        (("--print", "sip.conf"), {}, "sip.conf does not exist; the files are: ari.conf"),
        (("--print", "http.conf"), {"HTTP_BIND": "8088"}, "ARI_CONF_HTTP_BIND must be host:port"),
        (("--print", "rtp.conf"), {"RTP_PORTS": "10000"}, "must be two numbers such as 10000-20000"),
        (("--print", "asterisk.conf"), {"MAX_CALLS": "many"}, "must be numbers, not many, 55"),
        (("--print", "pjsip.conf"), {"RTP_TIMEOUT": "-1"}, "must be numbers, not 1000, -1"),
        (("--print", "rtp.conf"), {"RTP_PORTS": "10000-10100"}, "too few for ARI_CONF_MAX_CALLS=1000"),
        (("--print", "rtp.conf"), {"RTP_PORTS": "10000-10100", "MAX_CALLS": "26"}, "four ports for each call"),
        (("--print", "ari.conf"), {"ARI_SOCKET": "both"}, "must be inbound or outbound, not both"),
        (("--print", "pjsip.conf"), {"SIP_BIND": "sip.example.com:5060"}, "must name an IP address"),
        (("--print", "pjsip.conf"), {"SIP_BIND": "[::]"}, "must be host:port"),
        (("--print", "pjsip.conf"), {"MEDIA_ADDRESS": "0.0.0.0"}, "an address that callers can send to"),
        (("--print", "pjsip.conf"), {"SIP_PROTOCOLS": "udp,tls"}, "tls needs ARI_CONF_TLS_CERTIFICATE"),
        (("--print", "pjsip.conf"), {"SIP_PROTOCOLS": "sctp"}, "may name udp, tcp and tls, not sctp"),
        (("--print", "pjsip.conf"), {"CODECS": "ulaw,g729"}, "can't translate"),
        (("--print", "pjsip.conf"), {"SRTP": "yes"}, "must be no or optional or required, not yes"),
        (("--print", "pjsip.conf"), {"TRUNK_USER": "u", "TRUNK_PASSWORD": "p"}, "all three, or none"),
        (
            ("--print", "pjsip.conf"),
            TRUNK | {"TRUNK_PROTOCOL": "tcp"},
            "needs tcp in ARI_CONF_SIP_PROTOCOLS, which is udp",
        ),
        (("--print", "pjsip.conf"), TRUNK | {"SIP_PROTOCOLS": "tcp"}, "=udp needs udp in ARI_CONF_SIP_PROTOCOLS"),
        (("--print", "pjsip.conf"), {"TRUNK_MATCH": "300.1.1.1"}, "such as 203.0.113.0/24, not 300.1.1.1"),
        (("--print", "pjsip.conf"), {"LOCAL_NETWORKS": "lan"}, "such as 203.0.113.0/24, not lan"),
        (("--print", "pjsip.conf"), {"PHONE_USER": "phone", "PHONE_PASSWORD": "short"}, "of 12 characters or more"),
        (("--print", "pjsip.conf"), {"PHONE_USER": "udp", "PHONE_PASSWORD": "x" * 12}, "a name of letters and digits"),
        (("--print", "pjsip.conf"), {"EXTERNAL_ADDRESS": "1.2.3.4 x"}, "must be an address or a name"),
        (("--merge", "--force", "/etc"), {}, "`--force` is not allowed with `--merge`"),
        (("--print", "ari.conf"), {"password": "a;b"}, "must not contain ;"),
        (("--print", "ari.conf"), {"password": ""}, "set ARI_CONF_ARI_PASSWORD"),
    ],
)
def test_an_invalid_setting_is_refused_with_a_sentence(
    words: tuple[str, ...], settings: dict[str, str], complaint: str
) -> None:
    done = configure(*words, **settings)

    assert done.returncode == 1
    assert complaint in done.stderr


def test_rtp_timeout_and_call_limit_are_written(tmp_path: Path) -> None:
    configure(tmp_path, RTP_PORTS="10000-10100", MAX_CALLS="25", RTP_TIMEOUT="20")

    assert "\nmaxcalls = 25\n" in (tmp_path / "asterisk.conf").read_text()
    endpoint = (tmp_path / "pjsip.conf").read_text().partition("[ari_conf_calls]")[2]
    assert "\nrtp_timeout = 20\n" in endpoint and "\ntimers = always\n" in endpoint


def test_help_lists_every_setting() -> None:
    text = configure("--help", password=None).stdout

    assert {f"ARI_CONF_{name}" for name in SETTINGS} <= set(re.findall(r"ARI_CONF_[A-Z_]+", text))
    assert "--merge" in text and "--diff" in text


def test_without_settings_for_callers_no_call_is_accepted(tmp_path: Path) -> None:
    done = configure(tmp_path)

    text = (tmp_path / "pjsip.conf").read_text()
    assert "[anonymous]" not in text and text.count("\ntype = endpoint\n") == 1, "the template"
    assert "no caller is allowed yet" in done.stderr
    assert "let a firewall" in configure("--force", tmp_path, ANONYMOUS="yes", SIP_BIND="0.0.0.0:5060").stderr
    assert configure("--force", tmp_path, ANONYMOUS="yes").stderr == "asterisk/configure: now restart Asterisk\n"
    assert "\n[anonymous](ari_conf_calls)\n" in (tmp_path / "pjsip.conf").read_text()


@pytest.mark.parametrize(
    ("bind", "address"),
    [("0.0.0.0:5060", None), ("[::]:5060", None), ("10.0.0.5:5060,10.1.0.5:5060", None), ("10.0.0.5:5060", "10.0.0.5")],
)
def test_the_media_address_is_set_only_with_a_single_address(bind: str, address: str | None) -> None:
    text = configure("--print", "pjsip.conf", SIP_BIND=bind).stdout

    assert re.findall(r"(?m)^media_address = (.*)$", text) == ([address] if address else [])
    assert re.findall(r"(?m)^bind = (.*)$", text) == bind.split(",")
    assert ("rtp_ipv6 = yes" in text) == ("[" in bind)


@pytest.mark.parametrize(
    ("settings", "there", "not_there"),
    [
        ({}, ["media_encryption = sdes", "media_encryption_optimistic = yes", "tos_audio = ef", "tos = cs3"], []),
        ({"SRTP": "required"}, ["media_encryption = sdes"], ["media_encryption_optimistic"]),
        ({"SRTP": "no"}, ["allow = ulaw,alaw,g722"], ["media_encryption"]),
        ({"QOS": "no"}, ["media_encryption = sdes"], ["tos", "cos"]),
        ({"TRUNK_MATCH": "127.0.0.1"}, ["[ari_conf_trunk](ari_conf_calls)"], ["trust_id_inbound"]),
        ({"TRUNK_MATCH": "127.0.0.1", "TRUNK_TRUST_ID": "yes"}, ["trust_id_inbound = yes"], []),
        (
            {"EXTERNAL_ADDRESS": "198.51.100.7", "LOCAL_NETWORKS": "10.0.0.0/8"},
            ["external_media_address = 198.51.100.7", "external_signaling_address = 198.51.100.7"],
            ["local_net = 192"],
        ),
    ],
)
def test_each_sip_setting_writes_its_lines(settings: dict[str, str], there: list[str], not_there: list[str]) -> None:
    lines = configure("--print", "pjsip.conf", **settings).stdout.splitlines()

    assert set(there) <= set(lines)
    assert [line for line in lines if line.startswith(tuple(not_there))] == []


def test_codecs_bring_their_modules() -> None:
    for codecs, modules in (("ulaw", set()), ("ulaw,gsm", {"codec_gsm"}), ("opus", {"codec_opus_open_source"})):
        text = configure("--print", "modules.conf", CODECS=codecs).stdout
        found = {name for name in ("codec_gsm", "codec_opus_open_source") if f"\nload = {name}\n" in text}
        assert found == modules


def test_a_provider_by_address_and_a_provider_by_registration() -> None:
    by_address = configure("--print", "pjsip.conf", TRUNK_MATCH="203.0.113.0/24, 198.51.100.7").stdout
    assert re.findall(r"(?m)^match = (.*)$", by_address) == ["203.0.113.0/24", "198.51.100.7"]
    assert "registration" not in by_address

    registered = configure(
        *("--print", "pjsip.conf"),
        TRUNK_HOST="sip.example.com:5070",
        TRUNK_USER="acme",
        TRUNK_PASSWORD="p",
        TRUNK_PROTOCOL="tcp",
        SIP_PROTOCOLS="udp, tcp",
    ).stdout
    assert "\nserver_uri = sip:sip.example.com:5070\\;transport=tcp\n" in registered
    assert "\nclient_uri = sip:acme@sip.example.com\n" in registered
    assert "\nmatch = sip.example.com\n" in registered
    assert "identify_by = ip\n" in registered, "a caller who takes the provider's name is none of it"


def test_each_printed_file_names_its_folder() -> None:
    text = configure("--print", "http.conf", "ari.conf").stdout

    assert re.findall(r"(?m)^; (\w+\.conf) of Asterisk's folder", text) == ["http.conf", "ari.conf"]


def test_diff_shows_changes_without_passwords(tmp_path: Path) -> None:
    configure(tmp_path, password="an old secret")
    before = {path: path.read_text() for path in tmp_path.iterdir()}

    shown = configure("--diff", "--force", tmp_path, password="a new secret", MAX_CALLS="7").stdout

    assert "-maxcalls = 1000\n+maxcalls = 7\n" in shown
    assert "secret" not in shown
    assert {path: path.read_text() for path in tmp_path.iterdir()} == before

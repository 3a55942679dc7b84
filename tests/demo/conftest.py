"""A separate Asterisk for the phones' tests: Asterisk's own applications answer, no code of ari_conf."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from ari_conf.local.asterisk import DEFAULT_ROOT, LocalAsterisk, find
from ari_conf.local.processes import free_port, log_matches, start, stop
from tests.chaos.witness import prefer

ROOT = Path(os.environ.get("ARI_CONF_ASTERISK_ROOT", DEFAULT_ROOT))

MODULES = """
res_timing_timerfd res_rtp_asterisk res_pjproject res_sorcery_config res_sorcery_memory res_sorcery_astdb res_statsd
res_pjsip res_pjsip_pubsub res_pjsip_session res_pjsip_sdp_rtp res_pjsip_endpoint_identifier_anonymous
res_pjsip_rfc3326 res_pjsip_caller_id res_pjsip_header_funcs chan_pjsip codec_ulaw codec_g722 codec_resample format_wav
pbx_config
app_echo app_playback app_playtones app_senddtmf app_confbridge app_read func_callerid bridge_softmix bridge_simple
res_musiconhold res_stasis
"""
PJSIP = """
[udp]
type=transport
protocol=udp
bind=127.0.0.1:{sip}
[anonymous]
type=endpoint
context=calls
disallow=all
allow=ulaw,g722
direct_media=no
media_address=127.0.0.1
trust_id_inbound=yes
"""
CONFBRIDGE = """
[general]
[quiet]
type=user
quiet=yes
[mix]
type=bridge
"""
EXTENSIONS = """
[calls]
exten => echo,1,Answer()
 same => n,Echo()
exten => standup,1,Answer()
 same => n,ConfBridge(standup,mix,quiet)
exten => music,1,Answer()
 same => n,MusicOnHold(default)
exten => speech,1,Answer()
 same => n,Playback(demo-congrats)
exten => digits,1,Answer()
 same => n,SendDTMF(1379*#0,150,100)
 same => n,Hangup()
exten => repeat,1,Answer()
 same => n,Read(KEYS,,5,,1,10)
 same => n,SendDTMF(${KEYS},100,100)
 same => n,Echo()
exten => early,1,Progress()
 same => n,Playtones(600)
 same => n,Wait(1)
 same => n,StopPlaytones()
 same => n,Answer()
 same => n,Echo()
exten => ringing,1,Ringing()
 same => n,Wait(30)
exten => busy,1,Hangup(17)
exten => who,1,Set(WHO=${PJSIP_HEADER(read,X-Greeting)}/${CALLERID(num)}/${CALLERID(name)})
 same => n,GotoIf($["${WHO}" = "hello/15550001/Ann"]?right)
 same => n,Hangup(21)
 same => n(right),Answer()
 same => n,Hangup(16)
"""


def _configure(folder: Path, sip: int) -> Path:
    etc = folder / "etc"
    for name in ("etc", "run", "log", "spool", "db"):
        (folder / name).mkdir()
    share = "/usr/share/asterisk"
    places = {
        "astetcdir": etc,
        "astmoddir": "/usr/lib/x86_64-linux-gnu/asterisk/modules",
        "astvarlibdir": "/var/lib/asterisk",
        "astdbdir": folder / "db",
        "astdatadir": share,
        "astspooldir": folder / "spool",
        "astrundir": folder / "run",
        "astlogdir": folder / "log",
    }
    rtp = 10_000 + sip % 20_000 // 2 * 2
    files = {
        "asterisk.conf": "[directories]\n" + "".join(f"{key} => {value}\n" for key, value in places.items()),
        "modules.conf": "[modules]\nautoload=no\n" + "".join(f"load={name}.so\n" for name in MODULES.split()),
        "rtp.conf": f"[general]\nrtpstart={rtp}\nrtpend={rtp + 400}\nicesupport=no\nstrictrtp=no\n",
        "pjsip.conf": PJSIP.format(sip=sip),
        "confbridge.conf": CONFBRIDGE,
        "musiconhold.conf": f"[default]\nmode=files\ndirectory={share}/moh\n",
        "extensions.conf": EXTENSIONS,
        "logger.conf": "[logfiles]\nconsole => notice,warning,error,verbose\n",
    }
    for name, text in files.items():
        (etc / name).write_text(text)
    return etc / "asterisk.conf"


@pytest.fixture(scope="session")
def sounds() -> Path:
    """The folder with Asterisk's own `sounds` and `moh`."""
    return (Path("/") if find(ROOT) == "native" else ROOT) / "usr/share/asterisk"


@pytest.fixture
async def dial(tmp_path: Path) -> AsyncIterator[Callable[[str], str]]:
    """Start Asterisk; yield a function that returns an extension's URI."""
    sip = free_port(socket.SOCK_DGRAM)
    asterisk_here = LocalAsterisk(tmp_path, find(ROOT))
    command = asterisk_here.command("asterisk", "-f", "-C", str(_configure(tmp_path, sip)))
    asterisk = await start("asterisk", command, tmp_path / "out", ready=log_matches("Asterisk Ready"))
    prefer(asterisk.pid)
    try:
        yield lambda extension: f"sip:{extension}@127.0.0.1:{sip}"
    finally:
        await stop(asterisk)

"""Asterisk for the benchmark: the project's own configuration, plus ConfBridge() and a bare Stasis() to dial."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from ari_conf.local.asterisk import LocalAsterisk
from ari_conf.local.system import LocalSystem

BARE_APP = "bare"
NATIVE, BARE, OURS, ANSWERED = "71", "72", "15550", "73"
"""Prefixes of the dialed number; the conference's number of four digits follows."""
RTP_PORTS = 8000
"""Two for each call, below the kernel's ephemeral ports."""

# As in ari_conf: no sounds, no music, audio only. Asterisk then does the same work for every member.
_CONFBRIDGE = """
[general]

[default_user]
type = user
quiet = yes
announce_only_user = no

[default_bridge]
type = bridge
max_members = 20
"""

_DIALPLAN = f"""
exten => _{NATIVE}XXXX,1,ConfBridge(${{EXTEN}})
 same => n,Hangup()
exten => _{BARE}XXXX,1,Stasis({BARE_APP},${{EXTEN}})
 same => n,Hangup()
exten => _{ANSWERED}XXXX,1,Answer()
 same => n,Goto({OURS}${{EXTEN:{len(ANSWERED)}}},1)
"""

_MODULES = """
load = app_confbridge
"""


@dataclass
class BenchAsterisk(LocalAsterisk):
    """The same Asterisk for all variants, down to the loaded modules."""

    def _configure(self) -> None:
        super()._configure()
        etc = self.folder / "etc"
        _add(etc / "modules.conf", _MODULES)
        _add(etc / "extensions.conf", _DIALPLAN)
        (etc / "confbridge.conf").write_text(_CONFBRIDGE)
        first = random.randrange(10000, 20000, 2)
        (etc / "rtp.conf").write_text(f"[general]\nrtpstart = {first}\nrtpend = {first + RTP_PORTS}\nicesupport = no\n")


class BenchSystem(LocalSystem):
    """The project's own system, with all components as `ari-conf up` starts them, around that Asterisk."""

    def _own_asterisk(self) -> LocalAsterisk:
        self.asterisk = BenchAsterisk(self.folder / "asterisk", "")
        return self.asterisk


def _add(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)

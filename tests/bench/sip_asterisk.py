"""An Asterisk for the benchmark: ours in all that it is given, plus ConfBridge() and a bare Stasis() to dial."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from ari_conf.parts.asterisk import EmbeddedAsterisk
from ari_conf.up import System

BARE_APP = "bare"
NATIVE, BARE, OURS, ANSWERED = "71", "72", "15550", "73"
"""What is dialled begins with it; the conference's number of four digits follows."""
RTP_PORTS = 8000
"""Two for each call. Below the ports that the kernel gives out by itself."""

# As ours does: no sounds, no music, audio only. What Asterisk does for every member is the same then.
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
class BenchAsterisk(EmbeddedAsterisk):
    """The same for all that are compared, down to the modules that are loaded."""

    def _configure(self) -> None:
        super()._configure()
        etc = self.folder / "etc"
        _add(etc / "modules.conf", _MODULES)
        _add(etc / "extensions.conf", _DIALPLAN)
        (etc / "confbridge.conf").write_text(_CONFBRIDGE)
        first = random.randrange(10000, 20000, 2)
        (etc / "rtp.conf").write_text(f"[general]\nrtpstart = {first}\nrtpend = {first + RTP_PORTS}\nicesupport = no\n")


class BenchSystem(System):
    """The project's own system, all its parts as `ari-conf up` starts them, around that Asterisk."""

    def _own_asterisk(self) -> EmbeddedAsterisk:
        self.asterisk = BenchAsterisk(self.folder / "asterisk", "")
        return self.asterisk


def _add(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)

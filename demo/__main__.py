"""`make demo`: three callers, who speak, in one conference on this machine; who heard whom is found in what they heard.

Everything is real: Asterisk, Redis, S3, the worker, SIP and RTP on loopback, HTTP. Nothing is left behind but the logs
of a run that failed.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from redis import Redis
from rich.console import Console
from rich.table import Table

from ari_conf import accounts
from ari_conf.commands.up import until_stopped
from ari_conf.errors import AriConfError
from ari_conf.up import PROJECT, System
from demo import listen
from demo.application import Application, Told
from demo.phone import CallFailed, Phone, Switchboard, now_ms

console = Console(highlight=False)
SPEECH = Path(__file__).parent / "speech"

GUEST = """<Response>
  <Conference startConferenceOnEnter="false" callbackUrl="APPLICATION/events">demo</Conference>
  <Speak>The conference is over. Goodbye.</Speak>
</Response>"""

HOST = """<Response>
  <Conference endConferenceOnExit="true" enterSound="beep:1" callbackUrl="APPLICATION/events">demo</Conference>
</Response>"""


class Failed(AriConfError):
    """The demo did not show what it promises."""


@dataclass
class Caller:
    name: str
    number: str
    speech: Path
    document: str
    phone: Phone | None = None
    joined_ms: float = 0.0
    style: str = "cyan"


...

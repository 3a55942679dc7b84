"""Provider: a second Asterisk, with which the system's Asterisk registers, and over which it places calls by digest.

The last three digits of a dialed number are what the provider does: 503 and 486 are refusals with that status, all
others are answered after a moment of ringing.
"""

from __future__ import annotations

import asyncio
import subprocess
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ari_conf.local.asterisk import DEFAULT_ROOT, LocalAsterisk, find
from tests import lateness

USER, PASSWORD = "acme", "a long secret of acme"
HOST, CUSTOMER_HOST = "127.0.0.2", "127.0.0.3"
"""Addresses of the provider and of the system: the provider recognizes its customer by the address."""
PJSIP = f"""
[{USER}]
type = endpoint
context = provider
disallow = all
allow = ulaw
auth = {USER}
aors = {USER}
direct_media = no
trust_id_inbound = yes

[{USER}]
type = auth
auth_type = userpass
username = {USER}
password = {PASSWORD}

[{USER}]
type = aor
max_contacts = 1
remove_existing = yes

[{USER}_address]
type = identify
endpoint = {USER}
match = {CUSTOMER_HOST}
"""
EXTENSIONS = """
[provider]
exten => _[+0-9]!,1,GotoIf($["${EXTEN:-3}" = "503"]?congested)
 same => n,GotoIf($["${EXTEN:-3}" = "486"]?busy)
 same => n,Ringing()
 same => n,Wait(0.2)
 same => n,Answer()
 same => n,Wait(60)
 same => n,Hangup()
 same => n(congested),Hangup(34)
 same => n(busy),Hangup(17)
exten => hold,1,Wait(60)
"""


class Provider(LocalAsterisk):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder, find(DEFAULT_ROOT), sip_host=HOST)

    def _configure(self) -> None:
        super()._configure()
        append(self.folder, {"pjsip.conf": PJSIP, "extensions.conf": EXTENSIONS})

    def contacts(self) -> list[str]:
        """Return the addresses under which the customer is registered."""
        shown = self.console(f"pjsip show aor {USER}")
        return [line.split()[1] for line in shown.splitlines() if line.strip().startswith(f"Contact:  {USER}/")]

    def console(self, command: str) -> str:
        etc = str(self.folder / "etc" / "asterisk.conf")
        ran = subprocess.run(self.command("asterisk", "-C", etc, "-rx", command), capture_output=True, text=True)
        return ran.stdout

    def channels(self) -> list[dict[str, Any]]:
        found: Any = self.ask("GET", "/channels")
        return list(found)

    def call(self, uri: str, caller_id: str) -> None:
        """Call the customer at a SIP URI."""
        query = {"endpoint": f"PJSIP/{USER}/{uri}", "extension": "hold", "context": "provider", "callerId": caller_id}
        self.ask("POST", f"/channels?{urllib.parse.urlencode(query)}&priority=1")


def append(folder: Path, texts: dict[str, str]) -> None:
    """Add texts to files of Asterisk's configuration."""
    for name, text in texts.items():
        with (folder / "etc" / name).open("a") as file:
            file.write(text)


async def until(condition: Callable[[], Any]) -> Any:
    """Return what the condition returns, once it is true. It blocks, so it is asked in a thread."""
    async with lateness.timeout():
        while not (found := await asyncio.to_thread(condition)):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    return found

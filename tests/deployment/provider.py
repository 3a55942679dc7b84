"""A SIP provider: a second Asterisk, at which a customer registers, and which sends calls to them."""

from __future__ import annotations

from dataclasses import dataclass

from ari_conf.local.asterisk import LocalAsterisk
from tests.namespaces import BESIDE

NUMBER = "14155550100"

_PJSIP = """
[{user}](ari_conf_calls)
identify_by = username
auth = customer
aors = {user}

[{user}]
type = aor
max_contacts = 1
remove_existing = yes

[customer]
type = auth
auth_type = userpass
username = {user}
password = {password}
"""

# A provider sends all of a customer's numbers to their registered address.
_DIALPLAN = """
exten => {number},1,Dial(PJSIP/${{EXTEN}}@{user},30)
 same => n,Hangup()
"""


@dataclass
class Provider(LocalAsterisk):
    customer: str = "customer"
    customers_password: str = "a password of the customer"
    sip_host: str = BESIDE
    sip_port: int = 5060

    def _configure(self) -> None:
        super()._configure()
        etc = self.folder / "etc"
        values = {"user": self.customer, "password": self.customers_password, "number": NUMBER}
        for name, text in (
            ("pjsip.conf", _PJSIP.format(**values)),
            ("extensions.conf", _DIALPLAN.format(**values)),
            ("modules.conf", "load = app_dial\n"),
        ):
            with (etc / name).open("a") as file:
                file.write(text)

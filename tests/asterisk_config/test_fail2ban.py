"""The filter for fail2ban; tests/integration/test_sip.py has it read what Asterisk writes."""

from __future__ import annotations

import re
from pathlib import Path

FILTER = Path(__file__).parents[2] / "asterisk" / "fail2ban" / "filter.d" / "ari_conf.conf"


def banned(log: str) -> list[str]:
    """Addresses that fail2ban finds in it, by our filter; fail2ban itself puts its own pattern for <HOST>."""
    pattern = re.search(r"(?m)^failregex = (.*)$", FILTER.read_text())
    assert pattern is not None
    rule = re.compile(pattern[1].replace("<HOST>", r"(?P<host>[0-9a-fA-F.:]+)"))
    return [found["host"] for text in log.splitlines() if (found := rule.search(text))]


def test_a_request_cannot_get_another_address_banned() -> None:
    text = (
        '[2026-11-30 02:06:49.607] SECURITY[13] res_security_log.c: SecurityEvent="InvalidAccountID",AccountID="bob",'
        'LocalAddress="IPV4/UDP/192.0.2.1/5060",RemoteAddress="IPV6/TCP/2001:db8::9/5060"'
    )
    assert banned(text) == ["2001:db8::9"]
    assert banned(text.replace("bob", 'x",RemoteAddress="IPV4/UDP/192.0.2.1/1')) == []
    assert banned(text.replace("InvalidAccountID", "ChallengeSent")) == []

"""Where a request to a user's URL may go.

"Users' URLs come from outside. Only http and https; host resolved once, every address checked, and the connection goes
to the checked address (no second look-up)". Two gates: `check_url` before anything is asked of the network, and
`resolve` (or `check_address`) where the connection is made.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import SplitResult, quote, urlsplit

import idna

from ari_conf.errors import RequestRefused

Address = IPv4Address | IPv6Address
Networks = tuple[IPv4Network | IPv6Network, ...]
Resolved = tuple[int, tuple[str, int] | tuple[str, int, int, int]]
"""The address family, and the socket address to connect to."""

LONGEST_URL = 8192
LONGEST_HOST = 253

# Own tables: `is_private` and `is_global` have changed their minds between patch releases of Python.
FORBIDDEN_4 = [
    ip_network(network)
    for network in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24"),
        *("192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"),
        *("224.0.0.0/4", "240.0.0.0/4"),
        "168.63.129.16/32",  # public by its number, but inside each of Azure's machines: its metadata
    )
]
GLOBAL_6 = IPv6Network("2000::/3")
"""All that was ever given out for the public Internet; what is not in it is refused without being listed."""
FORBIDDEN_6 = [
    IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments: Teredo, benchmarking, ORCHID
        "2001:db8::/32",
        "2002::/16",  # 6to4: an IPv4 address in disguise, and out of use
        "3fff::/20",
    )
]
NAT64 = IPv6Network("64:ff9b::/96")

LABEL = re.compile(r"[a-z0-9_-]{1,63}")
BRACKETED = re.compile(r"\[[^\[\]]*\](:[0-9]*)?")
NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
NOT_IN_PATH = re.compile(r"%[0-9A-Fa-f]{2}|[^A-Za-z0-9\-._~!$&'()*+,;=:@/]")
NOT_IN_QUERY = re.compile(r"%[0-9A-Fa-f]{2}|[^A-Za-z0-9\-._~!$&'()*+,;=:@/?]")
NOT_IN_LOGIN = re.compile(r"[@\[\]\\\s]")
CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Target:
    """A URL in the one spelling in which it is signed, sent and seen by its receiver."""

    url: str
    """Host in lower case (IDNA), no default port, no fragment, no login, a path, escapes in capitals."""
    host: str
    """Without brackets."""
    port: int
    login: str = field(default="", repr=False)
    """What stands before the host, as it is written: `name:password`."""


@lru_cache(maxsize=1024)
def check_url(url: str) -> Target:
    """Raises RequestRefused. What the host's name stands for is not asked here."""
    if len(url) > LONGEST_URL:
        raise RequestRefused(f"a URL may have {LONGEST_URL} characters, this one has {len(url)}")
    if CONTROL.search(url):
        raise RequestRefused("a URL must not have line breaks, tabs or other control characters in it")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise RequestRefused(f"this is no URL: {str(error)[:100]}") from None
    if parts.scheme not in ("http", "https"):
        raise RequestRefused("a URL must begin with http:// or https://")
    login, _, after = parts.netloc.rpartition("@")
    # What is read as the host by one program and as a password by the next.
    if NOT_IN_LOGIN.search(login):
        raise RequestRefused("a URL's user name and password must be percent-encoded")
    parts = parts._replace(netloc=after)
    if port == 0:
        raise RequestRefused("a URL's port must be 1 to 65535")
    host = _host(parts)
    default = 443 if parts.scheme == "https" else 80
    shown = f"[{host}]" if ":" in host else host
    netloc = shown if port in (None, default) else f"{shown}:{port}"
    path = NOT_IN_PATH.sub(_escaped, parts.path) or "/"
    query = NOT_IN_QUERY.sub(_escaped, parts.query)
    return Target(f"{parts.scheme}://{netloc}{path}{'?' if query else ''}{query}", host, port or default, login)


def _escaped(found: re.Match[str]) -> str:
    text = found[0]
    return text.upper() if len(text) == 3 else quote(text, safe="", errors="replace")


def _host(parts: SplitResult) -> str:
    host = (parts.hostname or "").lower()
    if not host:
        raise RequestRefused("a URL must name a host")
    if len(host) > LONGEST_HOST:
        raise RequestRefused(f"{host[:40]}... is no valid host name: it has more than {LONGEST_HOST} characters")
    if "[" in parts.netloc or "]" in parts.netloc:
        if not BRACKETED.fullmatch(parts.netloc):
            raise RequestRefused("a URL's host must not have brackets, except around an IPv6 address")
        return _ipv6(host)
    if not host.isascii():
        try:
            host = idna.encode(host, uts46=True).decode()
        except idna.IDNAError:
            raise RequestRefused(f"{host} is no valid host name") from None
    if host.endswith("."):
        raise RequestRefused("a URL's host must not end in a dot")
    labels = host.split(".")
    # IDNA may have made it longer.
    if len(host) > LONGEST_HOST or not all(LABEL.fullmatch(label) for label in labels):
        raise RequestRefused(f"{host[:LONGEST_HOST]} is no valid host name")
    # What ends in a number is an address (as browsers have it), and must be written as one: 2130706433, 0177.0.0.1,
    # 0x7f.1 and 127.1 all are 127.0.0.1 to some resolver.
    if not NUMBER.fullmatch(labels[-1]):
        return host
    try:
        return str(IPv4Address(host))
    except ValueError:
        raise RequestRefused(f"{host} is no address: write four decimal numbers, such as 198.51.100.7") from None


def _ipv6(host: str) -> str:
    try:
        address = IPv6Address(host)
    except ValueError:
        raise RequestRefused(f"[{host}] is no IPv6 address") from None
    if address.scope_id is not None:
        raise RequestRefused("a URL's address must not name a network interface")
    return str(address)


def is_address(host: str) -> bool:
    """Whether the host of a Target is an address, which is not looked up."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


@lru_cache(maxsize=4096)
def check_address(address: Address, allowed_networks: Networks) -> None:
    """Raises RequestRefused unless `address` is on the public Internet or in one of `allowed_networks`."""
    # ::ffff:127.0.0.1 is 127.0.0.1: the system connects to that, so that is what is judged and may be allowed.
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    if any(address in network for network in allowed_networks):
        return
    # Without the address: who gave us a name must not learn what it stands for inside.
    if _forbidden(address):
        raise RequestRefused(
            "it points to a private, loopback or reserved network; "
            "the operator can list that in ARI_CONF_ALLOWED_NETWORKS"
        )


def _forbidden(address: Address) -> bool:
    if isinstance(address, IPv4Address):
        return any(address in network for network in FORBIDDEN_4)
    # A network without IPv4 reaches all IPv4 hosts by NAT64: such an address is as good as the one in it.
    if address in NAT64:
        return _forbidden(IPv4Address(int(address) & 0xFFFF_FFFF))
    return address not in GLOBAL_6 or any(address in network for network in FORBIDDEN_6)


def resolve(host: str, port: int, allowed_networks: Networks) -> Sequence[Resolved]:
    """Looks `host` up, once, and gives its addresses, all of them checked. Blocks.

    Raises RequestRefused if one of them is forbidden: a name that mixes public and private addresses is a trick or a
    mistake, and which of them would be connected to is chance. Raises OSError if there is none.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    resolved = [(family, address) for family, _, _, _, address in found if family in (socket.AF_INET, socket.AF_INET6)]
    if not resolved:
        raise socket.gaierror(socket.EAI_NONAME, "no address")
    for _, address in resolved:
        check_address(ip_address(address[0]), allowed_networks)
    return resolved  # type: ignore[return-value]  # typeshed's addresses include those of families left out above

"""URL guard: restricts the destinations of requests to user URLs.

Spec: "Users' URLs come from outside. Only http and https; host resolved once, every address checked, and the connection
goes to the checked address (no second look-up)". There are two checks: `check_url` before any use of the network, and
`resolve` (or `check_address`) when the connection is made.
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

MAX_URL_CHARS = 8192
MAX_HOST_CHARS = 253

# Own tables, because the results of `is_private` and `is_global` have changed between patch releases of Python.
FORBIDDEN_IPV4 = [
    ip_network(network)
    for network in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24"),
        *("192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"),
        *("224.0.0.0/4", "240.0.0.0/4"),
        "168.63.129.16/32",  # a public address, but the metadata service inside every Azure machine
    )
]
GLOBAL_6 = IPv6Network("2000::/3")
"""All IPv6 addresses that have been allocated for the public Internet; any other address is refused without a list."""
FORBIDDEN_IPV6 = [
    IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments: Teredo, benchmarking, ORCHID
        "2001:db8::/32",
        "2002::/16",  # 6to4: contains an IPv4 address, and is obsolete
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
class CheckedUrl:
    """URL in the normalized spelling in which it is signed, sent, and seen by its receiver."""

    url: str
    """The URL: host in lower case (IDNA), always a path, escapes in upper case; no default port, fragment or login."""
    host: str
    """The host without brackets."""
    port: int
    login: str = field(default="", repr=False)
    """The `name:password` before the host, as it is written."""


@lru_cache(maxsize=1024)
def check_url(url: str) -> CheckedUrl:
    """Return the normalized URL. Raises RequestRefused if it is not allowed. Does not resolve the host name."""
    if len(url) > MAX_URL_CHARS:
        raise RequestRefused(f"a URL may have at most {MAX_URL_CHARS} characters; this URL has {len(url)}")
    if CONTROL.search(url):
        raise RequestRefused("a URL must not contain line breaks, tabs or other control characters")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise RequestRefused(f"the URL is not valid: {str(error)[:100]}") from None
    if parts.scheme not in ("http", "https"):
        raise RequestRefused("a URL must begin with http:// or https://")
    login, _, after = parts.netloc.rpartition("@")
    # Programs disagree whether such characters belong to the login or to the host.
    if NOT_IN_LOGIN.search(login):
        raise RequestRefused("a URL's user name and password must be percent-encoded")
    parts = parts._replace(netloc=after)
    if port == 0:
        raise RequestRefused("a URL's port must be 1 to 65535")
    host = _normalize_host(parts)
    default = 443 if parts.scheme == "https" else 80
    bracketed = f"[{host}]" if ":" in host else host
    netloc = bracketed if port in (None, default) else f"{bracketed}:{port}"
    path = NOT_IN_PATH.sub(_escape, parts.path) or "/"
    query = NOT_IN_QUERY.sub(_escape, parts.query)
    return CheckedUrl(f"{parts.scheme}://{netloc}{path}{'?' if query else ''}{query}", host, port or default, login)


def _escape(found: re.Match[str]) -> str:
    text = found[0]
    return text.upper() if len(text) == 3 else quote(text, safe="", errors="replace")


def _normalize_host(parts: SplitResult) -> str:
    host = (parts.hostname or "").lower()
    if not host:
        raise RequestRefused("a URL must name a host")
    if len(host) > MAX_HOST_CHARS:
        raise RequestRefused(f"{host[:40]}... is not a valid host name: it has more than {MAX_HOST_CHARS} characters")
    if "[" in parts.netloc or "]" in parts.netloc:
        if not BRACKETED.fullmatch(parts.netloc):
            raise RequestRefused("a URL's host must not have brackets, except around an IPv6 address")
        return _normalize_ipv6(host)
    if not host.isascii():
        try:
            host = idna.encode(host, uts46=True).decode()
        except idna.IDNAError:
            raise RequestRefused(f"{host} is not a valid host name") from None
    if host.endswith("."):
        raise RequestRefused("a URL's host must not end in a dot")
    labels = host.split(".")
    # IDNA encoding may have made the name longer.
    if len(host) > MAX_HOST_CHARS or not all(LABEL.fullmatch(label) for label in labels):
        raise RequestRefused(f"{host[:MAX_HOST_CHARS]} is not a valid host name")
    # A host that ends in a number is an address, as in browsers, and must be written in dotted decimal form. Some
    # resolvers read 2130706433, 0177.0.0.1, 0x7f.1 and 127.1 as 127.0.0.1.
    if not NUMBER.fullmatch(labels[-1]):
        return host
    try:
        return str(IPv4Address(host))
    except ValueError:
        raise RequestRefused(
            f"{host} is not an IPv4 address: write four decimal numbers, such as 198.51.100.7"
        ) from None


def _normalize_ipv6(host: str) -> str:
    try:
        address = IPv6Address(host)
    except ValueError:
        raise RequestRefused(f"[{host}] is not an IPv6 address") from None
    if address.scope_id is not None:
        raise RequestRefused("a URL's address must not name a network interface")
    return str(address)


def is_address(host: str) -> bool:
    """Return whether the host of a CheckedUrl is an IP address, which needs no look-up."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


@lru_cache(maxsize=4096)
def check_address(address: Address, allowed_networks: Networks) -> None:
    """Check that `address` is on the public Internet or in one of `allowed_networks`. Raises RequestRefused if not."""
    # For ::ffff:127.0.0.1 the system connects to 127.0.0.1, so the latter is checked and may be allowed.
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    if any(address in network for network in allowed_networks):
        return
    # The message omits the address: the author of the URL must not learn what a name resolves to in this network.
    if _is_forbidden(address):
        raise RequestRefused(
            "it points to a private, loopback or reserved network; "
            "the operator can list that in ARI_CONF_ALLOWED_NETWORKS"
        )


def _is_forbidden(address: Address) -> bool:
    if isinstance(address, IPv4Address):
        return any(address in network for network in FORBIDDEN_IPV4)
    # A network without IPv4 reaches all IPv4 hosts by NAT64, so the embedded IPv4 address is checked.
    if address in NAT64:
        return _is_forbidden(IPv4Address(int(address) & 0xFFFF_FFFF))
    return address not in GLOBAL_6 or any(address in network for network in FORBIDDEN_IPV6)


def resolve(host: str, port: int, allowed_networks: Networks) -> Sequence[Resolved]:
    """Look `host` up once, and return its addresses after checking all of them. Blocks.

    Raises RequestRefused if any address is forbidden: a name that mixes public and private addresses is an attack or a
    mistake, and the choice among them would be random. Raises OSError if there is no address.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    resolved = [(family, address) for family, _, _, _, address in found if family in (socket.AF_INET, socket.AF_INET6)]
    if not resolved:
        raise socket.gaierror(socket.EAI_NONAME, "no address")
    for _, address in resolved:
        check_address(ip_address(address[0]), allowed_networks)
    return resolved  # type: ignore[return-value]  # typeshed's addresses include those of families left out above

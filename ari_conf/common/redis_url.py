"""Redis URL: one parser for every client, redis-py's and Celery's alike.

    redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]
    rediss://…                          over TLS; the certificate is always verified
    unix://[USER:PASSWORD@]/PATH        a Unix socket; ?db=DATABASE
    redis+sentinel://[USER:PASSWORD@]HOST[:PORT],HOST[:PORT]…/SERVICE[/DATABASE]
    rediss+sentinel://…                 TLS to the Sentinels and to Redis

Errors never quote the URL: any part of it may be a part of the password.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, unquote, urlsplit

SCHEMES = ("redis://", "rediss://", "unix://", "redis+sentinel://", "rediss+sentinel://")
SOCKETS = ("unix", "redis+socket")
"""Schemes of Unix sockets; the second is Celery's name for the first."""
PORT, SENTINEL_PORT = 6379, 26379
MAX_OPTIONS = 20
TLS_OPTIONS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
SENTINEL_OPTIONS = ("sentinel_username", "sentinel_password")
ENCODE = (
    "percent-encode special characters in the user name and the password: %23 for #, %2F for /, %3A for :, %3F for ?, "
    "%40 for @, %25 for %"
)


@dataclass(frozen=True, slots=True)
class RedisUrl:
    hosts: tuple[tuple[str, int], ...] = ()
    """Host and port of Redis, or of each Sentinel."""
    path: str = ""
    """Path of a Unix socket; then there are no hosts."""
    service: str = ""
    """Name of the service by which the Sentinels know Redis; "" without Sentinels."""
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    options: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Those of TLS_OPTIONS and SENTINEL_OPTIONS that the URL has."""

    def tls_options(self) -> dict[str, str]:
        """Return the arguments for redis-py's SSLConnection; none without TLS."""
        if not self.tls:
            return {}
        return {"ssl_cert_reqs": "required"} | {n: self.options[n] for n in TLS_OPTIONS if n in self.options}

    def without_secrets(self) -> str:
        """Return the address without the password, in a form that Celery can show as its broker's URL."""
        if self.path:
            return f"unix://{quote(self.path)}"
        if self.service:
            return f"sentinel://{quote(self.service, safe='')}/{self.database}"
        (host, port), scheme = self.hosts[0], "rediss" if self.tls else "redis"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}/{self.database}"


def parse(url: str) -> RedisUrl:
    """Parse a URL. Raises ValueError, whose text says what is wrong and what to do."""
    scheme, found, rest = url.partition("://")
    if not found or f"{scheme}://" not in (*SCHEMES, *(f"{one}://" for one in SOCKETS)):
        raise ValueError(f"must begin with one of {', '.join(SCHEMES)}")
    try:
        parts = urlsplit(f"any://{rest}")
    except ValueError:
        raise ValueError(f"is not a valid URL: check the brackets of an IPv6 address, and {ENCODE}") from None
    is_socket = scheme in SOCKETS
    login, at, place = parts.netloc.rpartition("@")
    if parts.fragment or "@" in parts.query or ("@" in parts.path and not (is_socket and (at or not place))):
        raise ValueError(f"is not a valid URL: {ENCODE}")
    username, password = _parse_login(login)
    tls, sentinel = scheme.startswith("rediss"), scheme.endswith("sentinel")
    options = _parse_options(parts.query, tls=tls, sentinel=sentinel, is_socket=is_socket)
    login_and_tls = {"username": username, "password": password, "tls": tls}
    if is_socket:
        if place or len(parts.path) < 2:
            raise ValueError(f"must have an absolute path, such as unix:///run/redis/redis-server.sock; {ENCODE}")
        database = _parse_database(options.pop("db", ""))
        return RedisUrl(path=unquote(parts.path), database=database, **login_and_tls)  # type: ignore[arg-type]
    hosts = tuple(
        _parse_host(one, SENTINEL_PORT if sentinel else PORT) for one in (place.split(",") if sentinel else [place])
    )
    names = [unquote(name) for name in parts.path.split("/")[1:]]
    service = names.pop(0) if sentinel and names else ""
    if sentinel and not service:
        raise ValueError("must name the service after the Sentinels, such as redis+sentinel://HOST:26379/mymaster")
    if len(names) > 1:
        raise ValueError(f"must have only a database's number after its host; {ENCODE}")
    database_option = options.pop("db", "")
    database = _parse_database(names[0] if names and names[0] else database_option)
    return RedisUrl(hosts, "", service, database, options=options, **login_and_tls)  # type: ignore[arg-type]


def _parse_login(text: str) -> tuple[str | None, str | None]:
    username, _, password = text.partition(":")
    return unquote(username) or None, unquote(password) or None


def _parse_host(text: str, default_port: int) -> tuple[str, int]:
    host, port = text, ""
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    elif ":" in text:
        host, _, port = text.partition(":")
    if not host:
        raise ValueError(f"must name a host; {ENCODE}")
    if not port:
        return unquote(host), default_port
    if not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536):
        raise ValueError(f"must have a port from 1 to 65535 after its host's colon; {ENCODE}")
    return unquote(host), int(port)


def _parse_database(text: str) -> int:
    if text and not (text.isascii() and text.isdigit() and len(text) < 6):
        raise ValueError(f"must end with a database's number, such as /0, or with its host; {ENCODE}")
    return int(text or 0)


def _parse_options(query: str, *, tls: bool, sentinel: bool, is_socket: bool) -> dict[str, str]:
    try:
        # A plus sign stands for itself, as in the user name and the password, and not for a space as in forms.
        given = dict(parse_qsl(query.replace("+", "%2B"), keep_blank_values=True, max_num_fields=MAX_OPTIONS))
    except ValueError:
        raise ValueError(f"has more than {MAX_OPTIONS} options after its question mark") from None
    if tls and given.pop("ssl_cert_reqs", "required").lower() not in ("required", "cert_required"):
        raise ValueError(
            "must not turn off the verification of Redis' certificate: remove ssl_cert_reqs, and add the CA's file as "
            "ssl_ca_certs"
        )
    known = ("db", *(TLS_OPTIONS if tls else ()), *(SENTINEL_OPTIONS if sentinel else ()))
    if any(name not in known for name in given):
        more = f"has an option after its question mark that is not one of {', '.join(known)}"
        raise ValueError(more if is_socket else f"{more}; {ENCODE}")
    return given

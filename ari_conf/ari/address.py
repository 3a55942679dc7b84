"""Settings for the connection to an Asterisk."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class AriConfig:
    """Address of an Asterisk's ARI, with the login and the settings for it."""

    url: str
    """Base URL, such as http://127.0.0.1:8088/ari."""
    app: str
    user: str
    password: str = field(repr=False)
    listen: tuple[str, int] | None = None
    """outbound: host and port on which the server listens for Asterisk's WebSocket, with the same user and password.
    None: inbound."""
    request_timeout_s: float = 5.0
    """Seconds for each request, including the wait for a free connection."""
    connections: int = 16
    """Maximum number of HTTP connections; `sessionlimit` in http.conf must be above it."""
    own_socket_timeout_s: float = 3.0
    """outbound: seconds for which the server waits for Asterisk's WebSocket before it opens one."""
    media_host: str = "127.0.0.1"
    """IPv4 address of the server to which Asterisk may send a channel's sound."""
    events: tuple[str, ...] = ()
    """Types of events that Asterisk sends. Empty: all."""

"""Checks of Asterisk and its connection to `ari-conf serve`."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import requests

from ari_conf.doctor.check import DEADLINE, CheckFailed, Doubtful
from ari_conf.errors import SettingsError
from ari_conf.local.processes import port_answers
from ari_conf.ownership import asterisk_identity
from ari_conf.ownership.owner_mark import Mark, parse_mark, variable_names
from ari_conf.settings import Settings, parse_listen_address

LOOPBACK = ("127.", "localhost", "::1")
MIN_VERSION = (20, 0)
OUTBOUND_SINCE = {20: (20, 15), 21: (21, 10), 22: (22, 5)}
"""First version of each branch that can open the WebSocket itself; all later branches can."""

MODULES = (
    "app_stasis", "bridge_holding", "bridge_simple", "bridge_softmix", "chan_pjsip", "chan_rtp", "codec_alaw",
    "codec_ulaw", "format_wav", "func_callerid", "func_talkdetect", "func_timeout", "func_volume", "res_ari",
    "res_ari_applications", "res_ari_asterisk", "res_ari_bridges", "res_ari_channels", "res_ari_events",
    "res_ari_playbacks", "res_ari_recordings", "res_http_websocket", "res_musiconhold", "res_rtp_multicast",
    "res_stasis_answer", "res_stasis_playback", "res_stasis_recording",
    "res_stasis_snoop",
)  # fmt: skip

ESTABLISHED = "01"
"""State of a connected socket in /proc/net/tcp."""


def version(settings: Settings) -> str:
    info = ask(settings, "/asterisk/info").json()
    found = str(info["system"]["version"])
    numbers = re.match(r"(?:certified[/-])?(\d+)\.(\d+)", found)
    if not numbers:  # built from the development branch
        return f"Asterisk {found} at {settings.ari_url}; this version does not tell whether it is new enough"
    version = int(numbers[1]), int(numbers[2])
    if version < MIN_VERSION:
        raise CheckFailed(f"Asterisk {found} is too old: install 20 or newer")
    if settings.ari_socket == "outbound" and version < OUTBOUND_SINCE.get(version[0], MIN_VERSION):
        raise CheckFailed(
            f"Asterisk {found} can't open the WebSocket itself: update it, or set ARI_CONF_ARI_SOCKET=inbound"
        )
    build = ""
    if asterisk_identity.drops_reordered_packets(info):
        build = (
            ". It is Debian's or Ubuntu's build, whose patch drops an audio packet with a lower number than the "
            "previous one (packets that overtake each other, a new stream within a call), and with which JITTERBUFFER "
            "and ARI_CONF_JITTER_BUFFER do not work; upstream's build has no such patch"
        )
    return f"Asterisk {found} at {settings.ari_url}; it accepts the user {settings.ari_user}{build}"


def name(settings: Settings) -> str:
    """Return the name under which the server keeps this Asterisk's calls. Raises CheckFailed if Asterisk has none."""
    if settings.asterisk_name:
        return settings.asterisk_name
    try:
        return asterisk_identity.entity_id(ask(settings, "/asterisk/info").json())
    except SettingsError as error:
        raise CheckFailed(str(error)) from None


def user(settings: Settings) -> str:
    """Return the user that Asterisk runs as; "" if Asterisk does not report it or does not respond."""
    try:
        config = ask(settings, "/asterisk/info").json()["config"]
        return str(config.get("setid", {}).get("user", ""))
    except (CheckFailed, KeyError, TypeError, AttributeError):
        return ""


def is_reachable(settings: Settings) -> bool:
    try:
        ask(settings, "/asterisk/ping")
    except CheckFailed:
        return False
    return True


def mark(settings: Settings) -> Mark | None:
    """Return the mark of the `ari-conf serve` that owns this Asterisk's calls; None if there is no readable mark."""
    variable, _ = variable_names(settings.ari_app)
    try:
        answer = ask(settings, f"/asterisk/variable?variable={variable}").json()
    except CheckFailed:  # another check reports it
        return None
    return parse_mark(str(answer.get("value", "")) if isinstance(answer, dict) else "")


def limits(settings: Settings) -> str:
    config = ask(settings, "/asterisk/info").json().get("config", {})
    if not (max_calls := config.get("max_channels")):
        raise Doubtful(
            "Asterisk accepts calls until its ports, files or processors are exhausted, and all calls suffer: set "
            "maxcalls in its asterisk.conf, as asterisk/asterisk.conf does"
        )
    return f"at most {max_calls} concurrent calls"


def websocket(settings: Settings) -> str:
    """Check which side opens the event WebSocket.

    Asterisk 22.10.1 can crash if it opened the WebSocket: its reading thread closes the connection that its writing
    thread is using (docs/development/chaos.md, "Taps").
    """
    if settings.ari_socket == "inbound":
        return "opened by `ari-conf serve`"
    raise Doubtful(
        "opened by Asterisk, which may crash and lose all calls if `ari-conf serve` dies while events are in flight "
        "(22.10.1 did; no version is known that does not): set ARI_CONF_ARI_SOCKET=inbound, here and for "
        "`ari-conf asterisk configure`"
    )


def modules(settings: Settings) -> str:
    listed = ask(settings, "/asterisk/modules").json()
    running = {str(module["name"]).removesuffix(".so") for module in listed if module["status"] == "Running"}
    needed = list(MODULES)
    if settings.ari_socket == "outbound":
        needed.append("res_websocket_client")
    if settings.sounds_url:
        needed.append("res_http_media_cache")
    if missing := [name for name in needed if name not in running]:
        commands = "; ".join(f"module load {name}" for name in missing)
        raise CheckFailed(
            f"Asterisk does not run {', '.join(missing)}: enter `{commands}` on its console, or "
            "add load= to modules.conf"
        )
    return f"all {len(needed)} required modules are running"


def application(settings: Settings) -> str:
    if settings.ari_socket == "outbound":
        return _outbound(settings)
    if ask(settings, f"/applications/{settings.ari_app}", allow_missing=True).status_code == 404:
        raise CheckFailed(f"application {settings.ari_app} is not connected to Asterisk: start `ari-conf serve`")
    return f"{settings.ari_app} is connected to Asterisk"


def _outbound(settings: Settings) -> str:
    # Asterisk lists an outbound application even if it is not connected, so the connection itself is checked.
    host, port = parse_listen_address(settings.ari_listen)
    if _is_connected_to(port):
        return f"Asterisk is connected to {settings.ari_listen}"
    if not port_answers(host, port):
        raise CheckFailed(f"nothing listens on {settings.ari_listen}: start `ari-conf serve` on this machine")
    raise CheckFailed(
        f"Asterisk has not connected to `ari-conf serve` on {settings.ari_listen}: "
        "configure its ari.conf and websocket_client.conf as in asterisk/, with this address and ARI's password"
    )


def _is_connected_to(port: int) -> bool:
    """Return whether a TCP connection to this port of this machine exists."""
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        with suppress(OSError):
            for line in table.read_text().splitlines()[1:]:
                _, local, _, state, *_ = line.split()
                if state == ESTABLISHED and int(local.rpartition(":")[2], 16) == port:
                    return True
    return False


def recording_folder(settings: Settings) -> str:
    folder = settings.recording_folder
    if folder is None:
        if not _is_on_this_machine(settings):
            return "not checked: it is on another machine, with Asterisk"
        raise Doubtful(
            "not checked: set ARI_CONF_RECORDING_FOLDER to Asterisk's folder, such as /var/spool/asterisk/recording, "
            "so that the recordings that wait there are monitored"
        )
    if not folder.is_dir():
        raise CheckFailed(
            f"{folder} does not exist, and Asterisk can't record without it: create it, owned by Asterisk's user"
        )
    if not os.access(folder, os.R_OK | os.X_OK):
        raise CheckFailed(f"this user can't read {folder}: add this user to Asterisk's group")
    return str(folder)


def _is_on_this_machine(settings: Settings) -> bool:
    return (urlsplit(settings.ari_url).hostname or "").startswith(LOOPBACK)


def ask(settings: Settings, path: str, *, allow_missing: bool = False) -> requests.Response:
    login = (settings.ari_user, settings.ari_password.get_secret_value())
    try:
        answer = requests.get(settings.ari_url.rstrip("/") + path, auth=login, timeout=DEADLINE)
    except requests.RequestException as error:
        raise CheckFailed(
            f"Asterisk does not respond at {settings.ari_url} ({_describe_error(error)}): start it, "
            "enable its HTTP server in "
            "http.conf, or correct ARI_CONF_ARI_URL"
        ) from None
    if answer.status_code in (401, 403):
        raise CheckFailed(
            f"Asterisk rejects ARI's user {settings.ari_user}: set ARI_CONF_ARI_USER and ARI_CONF_ARI_PASSWORD to "
            "those in ari.conf"
        )
    if answer.status_code == 404 and allow_missing:
        return answer
    if not answer.ok:
        raise CheckFailed(
            f"Asterisk responds {answer.status_code} to {path}: enable ARI in ari.conf, or correct ARI_CONF_ARI_URL"
        )
    return answer


def _describe_error(error: Exception) -> str:
    """Return the text of the innermost exception that requests wraps."""
    cause: BaseException = error
    while isinstance(inner := getattr(cause, "reason", None) or next(iter(cause.args), None), BaseException):
        cause = inner
    return str(cause).rpartition(": ")[2] or type(cause).__name__

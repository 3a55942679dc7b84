"""Asterisk, and its connection to `ari-conf serve`."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import requests

from ari_conf import identity
from ari_conf.doctor.found import DEADLINE, Doubtful, Wrong
from ari_conf.errors import SettingsError
from ari_conf.owner_mark import Mark, parsed, variables
from ari_conf.parts.processes import port_answers
from ari_conf.settings import Settings, address

LOOPBACK = ("127.", "localhost", "::1")
OLDEST = (20, 0)
OUTBOUND_SINCE = {20: (20, 15), 21: (21, 10), 22: (22, 5)}
"""The first version of each branch that opens the WebSocket itself; later branches all do."""

MODULES = (
    "app_stasis", "bridge_simple", "bridge_softmix", "chan_pjsip", "chan_rtp", "codec_alaw", "codec_ulaw", "format_wav",
    "func_talkdetect", "func_volume", "res_ari", "res_ari_applications", "res_ari_asterisk", "res_ari_bridges",
    "res_ari_channels", "res_ari_events", "res_ari_playbacks", "res_ari_recordings", "res_http_websocket",
    "res_musiconhold", "res_rtp_multicast", "res_stasis_answer", "res_stasis_playback", "res_stasis_recording",
    "res_stasis_snoop",
)  # fmt: skip

ESTABLISHED = "01"
"""As Linux writes it in /proc/net/tcp."""


def version(settings: Settings) -> str:
    info = ask(settings, "/asterisk/info").json()
    found = str(info["system"]["version"])
    numbers = re.match(r"(?:certified[/-])?(\d+)\.(\d+)", found)
    if not numbers:  # built from the source's newest
        return f"Asterisk {found} at {settings.ari_url}; whether it is new enough can't be told from that"
    version = int(numbers[1]), int(numbers[2])
    if version < OLDEST:
        raise Wrong(f"Asterisk {found} is too old: 20 or newer is needed")
    if settings.ari_socket == "outbound" and version < OUTBOUND_SINCE.get(version[0], OLDEST):
        raise Wrong(f"Asterisk {found} can't open the WebSocket itself: update it, or set ARI_CONF_ARI_SOCKET=inbound")
    build = ""
    if identity.judges_by_number(info):
        build = (
            ". It is Debian's or Ubuntu's build, whose patch drops a packet of sound if its number is below that "
            "before (packets that overtake each other, a new stream within a call), and where JITTERBUFFER and "
            "ARI_CONF_JITTER_BUFFER can't be used; upstream's does not"
        )
    return f"Asterisk {found} at {settings.ari_url}; it knows the user {settings.ari_user}{build}"


def name(settings: Settings) -> str:
    """Under which its calls are kept. Raises Wrong if Asterisk does not tell it."""
    if settings.asterisk_name:
        return settings.asterisk_name
    try:
        return identity.checked(ask(settings, "/asterisk/info").json())
    except SettingsError as error:
        raise Wrong(str(error)) from None


def user(settings: Settings) -> str:
    """As whom Asterisk runs, as far as it says so; "" if not, or if it does not answer."""
    try:
        config = ask(settings, "/asterisk/info").json()["config"]
        return str(config.get("setid", {}).get("user", ""))
    except (Wrong, KeyError, TypeError, AttributeError):
        return ""


def reached(settings: Settings) -> bool:
    try:
        ask(settings, "/asterisk/ping")
    except Wrong:
        return False
    return True


def mark(settings: Settings) -> Mark | None:
    """Of the `ari-conf serve` that this Asterisk's calls belong to."""
    variable, _ = variables(settings.ari_app)
    try:
        answer = ask(settings, f"/asterisk/variable?variable={variable}").json()
    except Wrong:  # another check says so
        return None
    return parsed(str(answer.get("value", "")) if isinstance(answer, dict) else "")


def limits(settings: Settings) -> str:
    config = ask(settings, "/asterisk/info").json().get("config", {})
    if not (most := config.get("max_channels")):
        raise Doubtful(
            "Asterisk takes calls until its ports, files or processors are used up, and all calls suffer: set maxcalls "
            "in its asterisk.conf, as asterisk/asterisk.conf does"
        )
    return f"at most {most} calls at once"


def websocket(settings: Settings) -> str:
    """Seen on 22.10.1 (docs/chaos.md, "Taps"): of its thread that writes and the one that reads, the latter takes the
    connection away from under the former."""
    if settings.ari_socket == "inbound":
        return "opened by `ari-conf serve`"
    raise Doubtful(
        "it is opened by Asterisk, which may crash, calls and all, if `ari-conf serve` dies while events are on their "
        "way (22.10.1 did; no version is known that doesn't): set ARI_CONF_ARI_SOCKET=inbound, here and for "
        "asterisk/configure"
    )


def modules(settings: Settings) -> str:
    listed = ask(settings, "/asterisk/modules").json()
    runs = {str(module["name"]).removesuffix(".so") for module in listed if module["status"] == "Running"}
    needed = list(MODULES)
    if settings.ari_socket == "outbound":
        needed.append("res_websocket_client")
    if settings.sounds_url:
        needed.append("res_http_media_cache")
    if missing := [name for name in needed if name not in runs]:
        loads = "; ".join(f"module load {name}" for name in missing)
        raise Wrong(f"Asterisk doesn't run {', '.join(missing)}: `{loads}` on its console, or load= in modules.conf")
    return f"all {len(needed)} that are needed run"


def application(settings: Settings) -> str:
    if settings.ari_socket == "outbound":
        return _outbound(settings)
    if ask(settings, f"/applications/{settings.ari_app}", missing_is_fine=True).status_code == 404:
        raise Wrong(f"Asterisk knows no application {settings.ari_app}: start `ari-conf serve`")
    return f"{settings.ari_app} is connected to Asterisk"


def _outbound(settings: Settings) -> str:
    # Asterisk lists an outbound application whether it is connected or not: only the connection itself tells.
    host, port = address(settings.ari_listen)
    if _connected_to(port):
        return f"Asterisk is connected to {settings.ari_listen}"
    if not port_answers(host, port):
        raise Wrong(f"nothing listens on {settings.ari_listen}: start `ari-conf serve` on this machine")
    raise Wrong(
        f"Asterisk has not connected to `ari-conf serve` on {settings.ari_listen}: "
        "let its ari.conf and websocket_client.conf be as in asterisk/, with this address and ARI's password"
    )


def _connected_to(port: int) -> bool:
    """Something is connected to that port of this machine."""
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
        if not _is_here(settings):
            return "on another machine, with Asterisk: not looked at"
        raise Doubtful(
            "not looked at: set ARI_CONF_RECORDING_FOLDER to Asterisk's, such as /var/spool/asterisk/recording, so "
            "that what waits there is watched"
        )
    if not folder.is_dir():
        raise Wrong(f"{folder} doesn't exist: Asterisk can't record without it; make it, owned by Asterisk's user")
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise Wrong(f"{folder} can't be read and written by this user: add this user to Asterisk's group")
    return str(folder)


def _is_here(settings: Settings) -> bool:
    return (urlsplit(settings.ari_url).hostname or "").startswith(LOOPBACK)


def ask(settings: Settings, path: str, *, missing_is_fine: bool = False) -> requests.Response:
    login = (settings.ari_user, settings.ari_password.get_secret_value())
    try:
        answer = requests.get(settings.ari_url.rstrip("/") + path, auth=login, timeout=DEADLINE)
    except requests.RequestException as error:
        raise Wrong(
            f"Asterisk does not answer at {settings.ari_url} ({_why(error)}): start it, enable http.conf, "
            "or correct ARI_CONF_ARI_URL"
        ) from None
    if answer.status_code in (401, 403):
        raise Wrong(
            f"Asterisk refuses ARI's user {settings.ari_user}: make ARI_CONF_ARI_USER and ARI_CONF_ARI_PASSWORD "
            "those of ari.conf"
        )
    if answer.status_code == 404 and missing_is_fine:
        return answer
    if not answer.ok:
        raise Wrong(f"Asterisk answers {answer.status_code} to {path}: enable ari.conf, or correct ARI_CONF_ARI_URL")
    return answer


def _why(error: Exception) -> str:
    """The few words at the bottom of what requests wraps."""
    cause: BaseException = error
    while isinstance(inner := getattr(cause, "reason", None) or next(iter(cause.args), None), BaseException):
        cause = inner
    return str(cause).rpartition(": ")[2] or type(cause).__name__

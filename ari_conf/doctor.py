"""Looks at each part that the system needs, and says in a sentence what to do for each that fails."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3  # type: ignore[import-untyped]
import redis
import requests
from botocore.config import Config  # type: ignore[import-untyped]
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError  # type: ignore[import-untyped]
from kombu.connection import Connection

from ari_conf.parts.processes import port_answers
from ari_conf.settings import Settings, address

DEADLINE = 5.0
"""Seconds for each answer."""

OLDEST = (20, 0)
OUTBOUND_SINCE = {20: (20, 15), 21: (21, 10), 22: (22, 5)}
"""The first version of each branch that opens the WebSocket itself; later branches all do."""

MODULES = (
    "app_stasis", "bridge_simple", "bridge_softmix", "chan_pjsip", "codec_alaw", "codec_ulaw", "format_wav",
    "func_talkdetect", "res_ari", "res_ari_applications", "res_ari_asterisk", "res_ari_bridges", "res_ari_channels",
    "res_ari_events", "res_ari_playbacks", "res_ari_recordings", "res_http_websocket", "res_musiconhold",
    "res_stasis_answer", "res_stasis_playback", "res_stasis_recording",
)  # fmt: skip

ESTABLISHED = "01"
"""As Linux writes it in /proc/net/tcp."""

CLOCKS_APART = 3.0
"""Seconds. Two of the clocks are read from HTTP's Date, which has whole seconds."""


@dataclass(frozen=True, slots=True)
class Finding:
    part: str
    good: bool
    text: str
    """What was found; if it is not good: what is wrong, and what to do."""


class Wrong(Exception):
    """The text says what is wrong and what to do."""


Check = Callable[[Settings], str]
"""What was found; raises Wrong."""


async def examine(settings: Settings) -> list[Finding]:
    return await asyncio.gather(*(asyncio.to_thread(_finding, part, check, settings) for part, check in CHECKS))


def _finding(part: str, check: Check, settings: Settings) -> Finding:
    try:
        return Finding(part, True, check(settings))
    except Wrong as wrong:
        return Finding(part, False, str(wrong))
    except Exception as error:  # a part that is ill can answer anything; the others are still of interest
        return Finding(part, False, f"could not be examined: {type(error).__name__}: {error}")


# Asterisk.


def asterisk_version(settings: Settings) -> str:
    found = str(_ari(settings, "/asterisk/info").json()["system"]["version"])
    numbers = re.match(r"(?:certified[/-])?(\d+)\.(\d+)", found)
    version = (int(numbers[1]), int(numbers[2])) if numbers else OLDEST
    if version < OLDEST:
        raise Wrong(f"Asterisk {found} is too old: 20 or newer is needed")
    if settings.ari_socket == "outbound" and version < OUTBOUND_SINCE.get(version[0], OLDEST):
        raise Wrong(f"Asterisk {found} can't open the WebSocket itself: update it, or set ARI_CONF_ARI_SOCKET=inbound")
    return f"Asterisk {found} at {settings.ari_url}; it knows the user {settings.ari_user}"


def asterisk_modules(settings: Settings) -> str:
    listed = _ari(settings, "/asterisk/modules").json()
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
    if _ari(settings, f"/applications/{settings.ari_app}", missing_is_fine=True).status_code == 404:
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
        return "not looked at: ARI_CONF_RECORDING_FOLDER is not set"
    if not folder.is_dir():
        raise Wrong(f"{folder} doesn't exist: Asterisk can't record without it; make it, owned by Asterisk's user")
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise Wrong(f"{folder} can't be read and written by this user: add him to Asterisk's group")
    return str(folder)


def _ari(settings: Settings, path: str, *, missing_is_fine: bool = False) -> requests.Response:
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


# Redis, the broker, the workers.


def redis_server(settings: Settings) -> str:
    client = redis.Redis.from_url(settings.redis_url.get_secret_value(), socket_timeout=DEADLINE)
    try:
        version = client.info("server")["redis_version"]
        found = client.config_get("appendonly", "maxmemory-policy", "maxmemory")
    except redis.AuthenticationError:
        raise Wrong("Redis refuses the password: correct the one in ARI_CONF_REDIS_URL") from None
    except redis.ResponseError as error:
        return f"answers, but doesn't tell its configuration ({error}): see that appendonly is yes, nothing is evicted"
    except (redis.RedisError, OSError) as error:
        raise Wrong(f"Redis does not answer ({error}): start it, or correct ARI_CONF_REDIS_URL") from None
    if found["maxmemory-policy"] != "noeviction":
        raise Wrong(
            f"Redis throws keys out when its memory is full (maxmemory-policy {found['maxmemory-policy']}), "
            "callbacks among them: set it to noeviction"
        )
    if found["appendonly"] != "yes":
        raise Wrong("Redis forgets what is newer than its last snapshot when it crashes: set appendonly to yes")
    return f"Redis {version}, appendonly, noeviction"


def broker(settings: Settings) -> str:
    if settings.broker == settings.redis_url.get_secret_value():
        return "the same Redis"
    try:
        with Connection(settings.broker, connect_timeout=DEADLINE) as connection:  # type: ignore[no-untyped-call]
            connection.ensure_connection(max_retries=1, timeout=DEADLINE)
            return str(connection.as_uri())
    except Exception as error:  # each transport of kombu's has exceptions of its own
        raise Wrong(f"Celery's broker does not answer ({error}): start it, or correct ARI_CONF_BROKER_URL") from None


# S3.


def bucket(settings: Settings) -> str:
    client, name = s3_client(settings), settings.s3_bucket
    where = settings.s3_endpoint or "AWS"
    key, body = f".ari_conf/doctor-{uuid4()}", b"a probe of ari-conf doctor"
    try:
        client.put_object(Bucket=name, Key=key, Body=body)
        try:
            if client.get_object(Bucket=name, Key=key)["Body"].read() != body:
                raise Wrong(f"the bucket {name} at {where} gives back other bytes than were put into it")
        finally:
            client.delete_object(Bucket=name, Key=key)
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        todo = {
            "NoSuchBucket": "make it, or correct ARI_CONF_S3_BUCKET",
            "AccessDenied": "let the key put, get and delete objects in it",
            "InvalidAccessKeyId": "correct ARI_CONF_S3_ACCESS_KEY",
            "SignatureDoesNotMatch": "correct ARI_CONF_S3_SECRET_KEY",
        }.get(code, "see what its server logs")
        raise Wrong(f"the bucket {name} at {where} refuses ({code}): {todo}") from None
    except NoCredentialsError:
        raise Wrong("there is no key for S3: set ARI_CONF_S3_ACCESS_KEY and ARI_CONF_S3_SECRET_KEY") from None
    except BotoCoreError as error:
        raise Wrong(f"S3 does not answer at {where} ({error}): start it, or correct ARI_CONF_S3_ENDPOINT") from None
    return f"{name} at {where}: a probe was put, read and deleted"


def s3_client(settings: Settings) -> Any:
    key, secret = settings.s3_access_key, settings.s3_secret_key
    return boto3.client(
        "s3",
        endpoint_url=settings.s3_endpoint,
        region_name=settings.s3_region,
        aws_access_key_id=key.get_secret_value() if key else None,
        aws_secret_access_key=secret.get_secret_value() if secret else None,
        config=Config(
            connect_timeout=DEADLINE,
            read_timeout=DEADLINE,
            retries={"total_max_attempts": 1},
            s3={"addressing_style": "path" if settings.s3_path_style else "virtual"},
        ),
    )


# This machine.


def ffmpeg(settings: Settings) -> str:
    try:
        command = [settings.ffmpeg, "-version"]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=True)
    except (OSError, subprocess.SubprocessError):
        raise Wrong(
            f"{settings.ffmpeg} can't be run: `apt-get install ffmpeg`, or name one in ARI_CONF_FFMPEG; "
            "without it Play has no sound"
        ) from None
    return " ".join(ran.stdout.split()[:3])


def speech(settings: Settings) -> str:
    engines = [
        name
        for name, is_here in (("piper", find_spec("piper") is not None), ("flite", shutil.which("flite") is not None))
        if is_here
    ]
    wanted = settings.voice
    if not engines or (wanted != "auto" and wanted not in engines):
        what = "no speech engine is" if wanted == "auto" else f"{wanted} is not"
        raise Wrong(
            f"{what} installed, without which Speak is silent: `pip install ari_conf[speech]` brings piper, "
            "`apt-get install flite` flite"
        )
    return engines[0] if wanted == "auto" else wanted


def clock(settings: Settings) -> str:
    """Callbacks carry times, signatures of S3 depend on them: the machines must agree."""
    differences = {}
    for name, read in (("Asterisk", _clock_of_asterisk), ("Redis", _clock_of_redis), ("S3", _clock_of_s3)):
        with suppress(Exception):  # what does not answer is another check's
            differences[name] = read(settings) - time.time()
    if wrong := {name: by for name, by in differences.items() if abs(by) > CLOCKS_APART}:
        said = ", ".join(f"{name}'s is {abs(by):.0f} s {'ahead' if by > 0 else 'behind'}" for name, by in wrong.items())
        raise Wrong(f"the clocks differ from this machine's: {said}; run an NTP client, such as chrony, on each")
    return f"as that of {', '.join(differences)}" if differences else "nothing answered that it could be compared with"


def _clock_of_asterisk(settings: Settings) -> float:
    return parsedate_to_datetime(_ari(settings, "/asterisk/ping").headers["Date"]).timestamp()


def _clock_of_redis(settings: Settings) -> float:
    seconds, microseconds = redis.Redis.from_url(settings.redis_url.get_secret_value(), socket_timeout=DEADLINE).time()
    return float(seconds + microseconds / 1e6)


def _clock_of_s3(settings: Settings) -> float:
    endpoint = settings.s3_endpoint or f"https://s3.{settings.s3_region}.amazonaws.com"
    answer = requests.head(endpoint, timeout=DEADLINE)
    return parsedate_to_datetime(answer.headers["Date"]).timestamp()


def _why(error: Exception) -> str:
    """The few words at the bottom of what requests wraps."""
    cause: BaseException = error
    while isinstance(inner := getattr(cause, "reason", None) or next(iter(cause.args), None), BaseException):
        cause = inner
    return str(cause).rpartition(": ")[2] or type(cause).__name__


CHECKS: tuple[tuple[str, Check], ...] = (
    ("Asterisk", asterisk_version),
    ("its modules", asterisk_modules),
    ("application", application),
    ("recording folder", recording_folder),
    ("Redis", redis_server),
    ("broker", broker),
    ("bucket", bucket),
    ("ffmpeg", ffmpeg),
    ("speech", speech),
    ("clock", clock),
)

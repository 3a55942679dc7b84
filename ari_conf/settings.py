"""Settings, read once from environment, secret files, credentials and a TOML file into one frozen object.

`ari_conf.common.setting_sources` reads the sources, and has their precedence.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, ValidationInfo, field_validator

from ari_conf.common import database_url as database_urls
from ari_conf.common import redis_url as redis_urls
from ari_conf.common import setting_sources
from ari_conf.common.setting_sources import VARIABLE_PREFIX, Given
from ari_conf.errors import SettingsError

UP_FOLDER = "ARI_CONF_UP_FOLDER"
"""Name of the variable that directs commands to the system that `ari-conf up` has started in that folder."""
DEFAULT_ADMIN = "admin"
"""Name of an administrator's key that has none."""
VALUES = "values.json"
"""Name of the file in that folder with the variables of the system's components."""


class Settings(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    redis_url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    """Redis, for accounts, state, names and queued callbacks. TLS, sockets, Sentinel: docs/operations/redis.md."""
    broker_url: SecretStr | None = None
    """Redis for Celery's commands and events (`celery inspect`, Flower); if not set, the same Redis."""

    ari_url: str = "http://127.0.0.1:8088/ari"
    """Asterisk's REST interface, as `serve` reaches it."""
    ari_user: str = "ari_conf"
    """ARI's user, as in ari.conf."""
    ari_password: SecretStr = SecretStr("")
    """ARI's password."""
    ari_app: str = "ari_conf"
    """The name in the dialplan's Stasis()."""
    ari_socket: Literal["inbound", "outbound"] = "inbound"
    """Opener of the event WebSocket. inbound: `serve`. outbound: Asterisk, which may then crash when `serve` does."""
    ari_listen: str = "127.0.0.1:8089"
    """outbound: host:port on which `serve` accepts Asterisk's WebSocket."""
    media_listen: IPv4Address = IPv4Address("127.0.0.1")
    """For Wait's beep: an IPv4 address of this machine to which Asterisk can send audio, by UDP to any port."""
    ari_deadline: float = Field(5.0, gt=0)
    """Seconds after which a request to Asterisk has failed."""
    ari_connections: int = Field(16, ge=1, le=90)
    """Maximum number of HTTP connections to Asterisk, whose sessionlimit must be higher."""
    calls_per_account: int = Field(1000, ge=0)
    """Maximum number of concurrent calls of an account on this Asterisk; more are refused as busy. 0: no limit."""
    rtp_timeout: int = Field(55, ge=0)
    """`rtp_timeout` of the SIP endpoints, in seconds; `serve` asks a silent phone three times within it. 0: never."""
    jitter_buffer: Literal["never", "internet", "always"] = "internet"
    """Calls whose packets Asterisk puts in order (JITTERBUFFER): none, those from public addresses, or all.

    Always none with the Asterisk of Debian or Ubuntu: because of its patch, JITTERBUFFER makes callers inaudible."""
    asterisk_name: str | None = Field(None, min_length=1)
    """Name of this Asterisk's calls in Redis, the same for each `serve`. If not set: the entity ID of Asterisk."""
    stop_wait: float = Field(2.0, ge=0)
    """Seconds for which a stopping `serve` waits until its decisions are written to Redis and carried out."""
    recording_folder: Path | None = None
    """Asterisk's recording folder, if it is on this machine: `doctor` checks it."""

    documents: Path = Path("documents")
    """Folder of the documents that a dialplan names (NAME.xml)."""
    sounds_folder: Path = Path("/var/lib/ari_conf/sounds")
    """Folder that caches transcoded and spoken sounds; an Asterisk on this machine must be able to read it."""
    sounds_url: str | None = None
    """URL from which an Asterisk on another machine fetches sounds of `serve`, such as http://10.0.0.5:8090/sounds."""
    sounds_listen: str = "127.0.0.1:8090"
    """host:port on which `serve` serves sounds; used only if sounds_url is set."""
    sounds_limit_mb: int = Field(1024, ge=10)
    """Size limit of the sound cache, in MB. An account may use a quarter; the least recently used are evicted first."""
    voice: Literal["auto", "piper", "festival", "flite"] = "auto"
    """The engine of Speak. auto: for each voice the best that is installed (WOMAN: festival, MAN: piper, or flite)."""
    ffmpeg: str = "ffmpeg"
    """Name or path of the ffmpeg program."""

    public_url: str = "http://127.0.0.1:8080"
    """URL of `ari-conf web` as seen from outside; RecordUrl begins with it."""
    web_listen: str = "127.0.0.1:8080"
    """host:port on which `ari-conf web` listens."""

    admin_key: SecretStr | None = None
    """Key of the administrator's API and page, 32 to 200 characters; several as NAME:KEY, separated by commas. If not
    set, both are off."""
    api_rate: int = Field(100, ge=0)
    """Maximum number of API requests of an account per second. 0: no limit."""
    auth_failures: int = Field(10, ge=1)
    """Wrong tokens for an account from one address per minute; more get a 429. The right token is always accepted."""
    command_deadline: float = Field(3.0, gt=0)
    """Seconds within which the owner of a conference must start on `web`'s command; Plivo's SDK waits 5 for a reply."""
    event_streams: int = Field(20, ge=1)
    """Maximum number of event streams of an account per `web` process. Each page with live conferences uses one."""
    login_hours: float = Field(12.0, gt=0)
    """Hours for which a session on the dashboard is valid."""
    web_connections: int = Field(1000, ge=10)
    """Maximum number of open connections per `web` process; further ones get a 503."""
    metrics_listen: str = "127.0.0.1:8091"
    """host:port on which `serve` exposes /metrics, /healthz and /readyz; empty: none. `web` exposes its own."""
    trusted_proxies: str = "127.0.0.1"
    """Addresses and networks, separated by commas, of reverse proxies whose X-Forwarded-For and X-Forwarded-Proto are
    trusted."""

    allowed_networks: tuple[IPv4Network | IPv6Network, ...] = ()
    """Private or loopback networks that user URLs may point to, separated by commas."""

    s3_bucket: str = "recordings"
    """Bucket of the recordings."""
    s3_endpoint: str | None = None
    """URL of an S3-compatible server; AWS if not set."""
    s3_region: str = "us-east-1"
    """Region of the bucket."""
    s3_path_style: bool = True
    """true: the bucket is in the path of the URL; false: in the host name."""
    s3_access_key: SecretStr | None = None
    """Access key of S3. If not set: what boto3 finds automatically (environment, instance role)."""
    s3_secret_key: SecretStr | None = None
    """Secret key that belongs to s3_access_key."""
    s3_public_endpoint: str | None = None
    """URL of the S3 server for listeners who follow a RecordUrl, if it differs from s3_endpoint."""
    record_delivery: Literal["s3", "web"] = "s3"
    """s3: RecordUrl leads to the file in S3. web: `web` passes it on, if listeners can't reach S3, or not by TLS."""
    s3_encryption: Literal["", "AES256", "aws:kms"] = ""
    """Server-side encryption to request; empty: the bucket's default."""
    s3_kms_key: str | None = None
    """ID of the KMS key, with aws:kms."""
    s3_storage_class: str = "STANDARD"
    """Storage class of the recordings' objects."""
    s3_deadline: float = Field(30.0, gt=0)
    """Seconds after which a request to S3 without a response has failed."""

    ari_url_for_workers: str | None = None
    """Asterisk's REST interface for workers on other machines, if they reach it under another URL than ari_url."""
    recording_threads: int = Field(2, ge=1)
    """Number of recordings that one worker stores concurrently."""
    recordings_wideband: Literal["auto", "always"] = "auto"
    """auto: 16 kHz if a member called with a wideband codec before the recording began, else 8 kHz. always: 16 kHz."""
    recordings_limit_mb: int = Field(10_000, ge=1)
    """MB in recording_folder above which a warning appears: recordings wait there while S3 is unreachable."""
    record_url_s: int = Field(3600, ge=1, le=604800)
    """Seconds for which the presigned URL that RecordUrl leads to is valid."""

    transcription_engine: Literal["local", "http"] = "local"
    """local: faster-whisper in the worker (the extra `transcription`). http: an OpenAI-compatible server."""
    transcription_model: str = ""
    """local: folder of a faster-whisper model; empty: tiny.en, which comes with the extra. http: name of the model."""
    transcription_url: str = "https://api.openai.com/v1/audio/transcriptions"
    """http: URL of the server."""
    transcription_key: SecretStr | None = None
    """http: key of the server, sent as a bearer token."""
    transcription_cpus: int = Field(1, ge=1)
    """local: number of processor cores for one transcription."""

    database_url: SecretStr = SecretStr("sqlite:////var/lib/ari_conf/history.db")
    """Database of the history: a file of SQLite, or postgresql://USER:PASSWORD@HOST/DATABASE for several machines."""

    names_kept_minutes: float = Field(15, gt=0)
    """Minutes after which others may use the conference names of an Asterisk that no server owns any more."""
    problems_kept: int = Field(200, ge=1)
    """Number of problems kept for an account, the newest."""
    delivered_callbacks_days: int = Field(7, ge=0)
    """Days for which the history keeps delivered callbacks. 0: it keeps none."""
    dead_letters_kept: int = Field(10_000, ge=1)
    """Number of dead letters (undeliverable callbacks) kept for an account, the newest."""
    dead_letters_days: int = Field(30, ge=1)
    """Days for which dead letters are kept."""
    callback_threads: int = Field(64, ge=1)
    """Number of callbacks that one worker delivers concurrently."""
    worker_nice: int = Field(10, ge=0, le=19)
    """Niceness of the workers, as for nice(1), so that calls on the same machine come first."""

    log_format: Literal["auto", "text", "json"] = "auto"
    """auto: text on a terminal, otherwise JSON."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """info: a line for each call. debug: also each event and effect."""

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_booleans(cls, value: object, info: ValidationInfo) -> object:
        # TOML has booleans, which pydantic accepts as the numbers 0 and 1.
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ValueError("must not be true or false")
        return value

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _join_list(cls, value: object) -> object:
        return setting_sources.as_text(value) if isinstance(value, list) else value

    @field_validator("allowed_networks", mode="before")
    @classmethod
    def _split_commas(cls, value: object) -> object:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("redis_url", "broker_url")
    @classmethod
    def _validate_redis_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            redis_urls.parse(value.get_secret_value())
        return value

    @field_validator("database_url")
    @classmethod
    def _validate_database_url(cls, value: SecretStr) -> SecretStr:
        database_urls.check(value.get_secret_value())
        return value

    @field_validator("admin_key")
    @classmethod
    def _validate_admin_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value().strip():
            return None
        if value is not None:
            parse_admin_keys(value.get_secret_value())
        return value

    @field_validator("media_listen")
    @classmethod
    def _validate_media_address(cls, value: IPv4Address) -> IPv4Address:
        if value.is_unspecified or value.is_multicast:
            raise ValueError("must be an address of this machine to which Asterisk can send, such as 10.0.0.5")
        return value

    @field_validator("ari_listen", "web_listen", "sounds_listen", "metrics_listen")
    @classmethod
    def _validate_listen_address(cls, value: str, info: ValidationInfo) -> str:
        if not value and info.field_name == "metrics_listen":
            return value
        host, _, port = value.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise ValueError("must be host:port, such as 127.0.0.1:8089")
        return value

    @property
    def admin_keys(self) -> dict[str, str]:
        """Return the administrator's keys by name; empty: the administrator's API is off."""
        return {} if self.admin_key is None else parse_admin_keys(self.admin_key.get_secret_value())

    @property
    def broker(self) -> str:
        return (self.broker_url or self.redis_url).get_secret_value()


def parse_admin_keys(text: str) -> dict[str, str]:
    """Return the keys of `admin_key` by name. Raises ValueError, whose text has no part of a key."""
    found = dict[str, str]()
    for number, part in enumerate(text.split(","), 1):
        name, _, key = part.strip().rpartition(":")
        name = name or DEFAULT_ADMIN
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,40}", name):
            raise ValueError(f"key {number}: its name must have 1 to 40 letters, digits or _ . -")
        if not re.fullmatch(r"[A-Za-z0-9_.~+/=-]{32,200}", key):
            raise ValueError(f"key {number} must have 32 to 200 letters, digits or _ . ~ + / = -")
        if name in found or key in found.values():
            raise ValueError(f"key {number}: its name, or the key itself, is there twice")
        found[name] = key
    return found


def parse_listen_address(listen: str) -> tuple[str, int]:
    """Return (host, port) of a setting such as 127.0.0.1:8089."""
    host, _, port = listen.rpartition(":")
    return host.strip("[]"), int(port)


SECRETS = frozenset(
    name
    for name, field in Settings.model_fields.items()
    if SecretStr in (field.annotation, *get_args(field.annotation))
)
"""Names of the settings that are secret."""


@cache
def settings() -> Settings:
    """Return the settings of this process. Raises SettingsError with the place of each wrong value, and the reason."""
    return validate(given_here())


def given_here() -> dict[str, Given]:
    """Return the settings that are given to this process, with their places. Raises SettingsError."""
    found = given(environment_here(), setting_sources.DEFAULT_CONFIG)
    up = Path(os.environ.get(UP_FOLDER, "")) / VALUES
    return {
        name: replace(one, source="up", file=up) if one.source == "environment" and one.place not in os.environ else one
        for name, one in found.items()
    }


def environment_here() -> Mapping[str, str]:
    """Return the environment, with the variables of the system that `ari-conf up` has started in ARI_CONF_UP_FOLDER.

    Raises SettingsError if no system was started there.
    """
    up = {name: value for name, value in _read_up_values().items() if f"{name}_FILE" not in os.environ}
    return up | os.environ


def _read_up_values() -> dict[str, str]:
    if not (folder := os.environ.get(UP_FOLDER)):
        return {}
    try:
        found = json.loads((Path(folder) / VALUES).read_bytes())
    except (OSError, ValueError):
        raise SettingsError(
            f"no system was started in {folder}, which {UP_FOLDER} names: start it with `ari-conf up`, or run "
            f"`unset {UP_FOLDER}`"
        ) from None
    return {str(name): str(value) for name, value in found.items()} if isinstance(found, dict) else {}


def given(environment: Mapping[str, str], default_config: Path | None = None) -> dict[str, Given]:
    """Return the settings that are given in these variables, and in the files that they name. Raises SettingsError."""
    return setting_sources.read(environment, Settings.model_fields, SECRETS, default_config)


def from_environment(environment: Mapping[str, str]) -> Settings:
    """Return the settings in these variables and in the files that they name, and no others. Raises SettingsError."""
    return validate(given(environment))


def validate(found: Mapping[str, Given]) -> Settings:
    """Return the settings with these values. Raises SettingsError, which shows no value of a secret."""
    try:
        return Settings.model_validate({name: one.value for name, one in found.items()})
    except ValidationError as error:
        problems = (f"{found[str(e['loc'][0])].place}: {_word(e['msg'])}" for e in error.errors(include_input=False))
        raise SettingsError(f"settings: {'; '.join(dict.fromkeys(problems))}") from None


def _word(message: str) -> str:
    """Return pydantic's message in the words of this module's validators, which begin with "must"."""
    message = re.sub(r"^(Input|String|Value) should ", "must ", message.removeprefix("Value error, "))
    return re.sub(r"^(Input|value) is ", "is ", message)


def settings_table() -> list[tuple[str, str, str]]:
    """Return (variable, default, meaning) of every setting, for --help and docs/reference/settings.md."""
    rows = []
    for name, field in Settings.model_fields.items():
        default = field.default
        if isinstance(default, SecretStr):
            default = default.get_secret_value()
        shown = "" if default in (None, ()) else setting_sources.as_text(default)
        meaning = " ".join((field.description or "").split())  # a line break would end the row of a table
        rows.append((f"{VARIABLE_PREFIX}{name.upper()}", shown, meaning))
    return rows

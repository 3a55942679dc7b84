"""Every setting, read once from the environment (`ARI_CONF_` and the field's name) into one frozen object."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import cache
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from ari_conf import redis_url as redis_urls
from ari_conf.errors import SettingsError

UP_FOLDER = "ARI_CONF_UP_FOLDER"
"""The variable that leads commands to the system that `ari-conf up` has started in that folder."""
VALUES = "values.json"
"""In it: the variables that its parts get."""


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="ARI_CONF_", frozen=True, use_attribute_docstrings=True)

    redis_url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    """Redis: accounts, state, names, callbacks that wait. TLS, sockets, Sentinel: docs/operations/redis.md."""
    broker_url: SecretStr | None = None
    """Another Redis for Celery's messages; the same one if not set."""

    ari_url: str = "http://127.0.0.1:8088/ari"
    """Asterisk's REST interface, as `serve` reaches it."""
    ari_user: str = "ari_conf"
    """ARI's user, as in ari.conf."""
    ari_password: SecretStr = SecretStr("")
    """ARI's password."""
    ari_app: str = "ari_conf"
    """The name in the dialplan's Stasis()."""
    ari_socket: Literal["inbound", "outbound"] = "inbound"
    """Who opens the events' WebSocket. inbound: we. outbound: Asterisk, which may then crash when `serve` does."""
    ari_listen: str = "127.0.0.1:8089"
    """outbound: where Asterisk's WebSocket is awaited, host:port."""
    media_listen: IPv4Address = IPv4Address("127.0.0.1")
    """For Wait's beep: an IPv4 address of this machine to which Asterisk may send sound, by UDP to any port."""
    ari_deadline: float = Field(5.0, gt=0)
    """Seconds after which a request to Asterisk has failed."""
    ari_connections: int = Field(16, ge=1, le=90)
    """HTTP connections to Asterisk; its sessionlimit must be above it."""
    calls_per_account: int = Field(1000, ge=0)
    """Calls that an account may have at once on this Asterisk; more are refused as busy. 0: any number."""
    rtp_timeout: int = Field(55, ge=0)
    """`rtp_timeout` of the SIP endpoints: a phone that sends nothing is asked three times in it. 0: never."""
    jitter_buffer: Literal["never", "internet", "always"] = "internet"
    """For whose calls Asterisk puts packets in order (JITTERBUFFER): nobody's, those of public addresses, or all.

    Nobody's where Asterisk is Debian's or Ubuntu's package, whose patch makes callers inaudible by it."""
    asterisk_name: str | None = Field(None, min_length=1)
    """Under which this Asterisk's calls are kept in Redis. If not set: its own entity id, the same for each `serve`."""
    stop_wait: float = Field(2.0, ge=0)
    """Seconds for which `serve`, told to stop, waits for what it has decided to be written to Redis, and done."""
    recording_folder: Path | None = None
    """Asterisk's recording folder, if it is on this machine: `doctor` checks it."""

    documents: Path = Path("documents")
    """The folder of the documents that a dialplan names: NAME.xml."""
    sounds_folder: Path = Path("/var/lib/ari_conf/sounds")
    """Where converted and spoken sounds are cached; an Asterisk on this machine must be able to read it."""
    sounds_url: str | None = None
    """For an Asterisk elsewhere: the address under which it fetches them from `serve`, such as http://10.0.0.5:8090/sounds."""
    sounds_listen: str = "127.0.0.1:8090"
    """Where `serve` gives sounds out, host:port; only if sounds_url is set."""
    sounds_limit_mb: int = Field(1024, ge=10)
    """The cache's size, a quarter of it for one account at most; what was not used for longest goes first."""
    voice: Literal["auto", "piper", "festival", "flite"] = "auto"
    """The engine of Speak. auto: for each voice the best that is installed (WOMAN: festival, MAN: piper, or flite)."""
    ffmpeg: str = "ffmpeg"
    """The ffmpeg to run."""

    public_url: str = "http://127.0.0.1:8080"
    """The address under which `ari-conf web` is reached from outside: RecordUrl begins with it."""
    web_listen: str = "127.0.0.1:8080"
    """Where `ari-conf web` listens, host:port."""

    api_rate: int = Field(100, ge=0)
    """Requests to the API that an account may make in a second; 0: any number."""
    auth_failures: int = Field(10, ge=1)
    """Wrong tokens for an account from one address in a minute; more are a 429. The right one is always taken."""
    command_deadline: float = Field(3.0, gt=0)
    """Seconds within which the owner of a conference must take up `web`'s command; Plivo's SDK waits 5 for a reply."""
    event_streams: int = Field(20, ge=1)
    """Event streams that an account may have open at one `web`: each page that shows live conferences is one."""
    login_hours: float = Field(12.0, gt=0)
    """For how long a log-in on the page holds."""
    web_connections: int = Field(1000, ge=10)
    """Connections that one `web` has open at once; who comes when there are more gets a 503."""
    metrics_listen: str = "127.0.0.1:8091"
    """Where `serve` gives /metrics, /healthz and /readyz, host:port; empty: nowhere. `web` has its own."""
    trusted_proxies: str = "127.0.0.1"
    """Addresses and networks, by comma, of reverse proxies whose X-Forwarded-For and X-Forwarded-Proto are believed."""

    allowed_networks: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = ()
    """Networks, by comma, to which users' URLs may point although they are private or loopback."""

    s3_bucket: str = "recordings"
    """The recordings' bucket."""
    s3_endpoint: str | None = None
    """An S3-compatible server's address; AWS if not set."""
    s3_region: str = "us-east-1"
    """The bucket's region."""
    s3_path_style: bool = True
    """Address the bucket in the path; false: in the host name."""
    s3_access_key: SecretStr | None = None
    """If not set: what boto3 finds by itself (environment, instance role)."""
    s3_secret_key: SecretStr | None = None
    """With s3_access_key."""
    s3_public_endpoint: str | None = None
    """Under which those who follow a RecordUrl reach the S3 server, if not under s3_endpoint."""
    record_delivery: Literal["s3", "web"] = "s3"
    """s3: RecordUrl leads to the file in S3. web: `web` passes it on, where listeners reach no S3, or none by TLS."""
    s3_encryption: Literal["", "AES256", "aws:kms"] = ""
    """Server-side encryption to ask for; empty: what the bucket does by itself."""
    s3_kms_key: str | None = None
    """With aws:kms: the key's id."""
    s3_storage_class: str = "STANDARD"
    """Of the recordings' objects."""
    s3_deadline: float = Field(30.0, gt=0)
    """Seconds after which a request to S3 that isn't answered has failed."""

    ari_url_for_workers: str | None = None
    """Asterisk's REST interface for workers elsewhere, if they reach it in another way."""
    recording_threads: int = Field(2, ge=1)
    """Recordings that one worker stores at once."""
    recordings_wideband: Literal["auto", "always"] = "auto"
    """auto: 16 kHz if a member called with a wideband codec before the recording began, else 8 kHz. always: 16 kHz."""
    recordings_limit_mb: int = Field(10_000, ge=1)
    """More than this in recording_folder is a warning: recordings wait there as long as S3 is away."""
    record_url_s: int = Field(3600, ge=1, le=604800)
    """Seconds for which the address that RecordUrl leads to holds."""

    transcription_engine: Literal["local", "http"] = "local"
    """local: faster-whisper in the worker (the extra `transcription`). http: an OpenAI-compatible server."""
    transcription_model: str = ""
    """local: a faster-whisper model's folder; empty: the tiny.en that comes with the extra. http: the model's name."""
    transcription_url: str = "https://api.openai.com/v1/audio/transcriptions"
    """http: the server's address."""
    transcription_key: SecretStr | None = None
    """http: its key, sent as a bearer token."""
    transcription_cpus: int = Field(1, ge=1)
    """local: processor cores for one transcription."""

    names_kept_minutes: float = Field(15, gt=0)
    """Minutes after which the conference names of an Asterisk that nobody serves any more may be used by others."""
    problems_kept: int = Field(200, ge=1)
    """Problems kept for an account, the newest."""
    callbacks_kept: int = Field(1000, ge=0)
    """Delivered callbacks kept for an account, the newest, for a week; 0: none."""
    dead_letters_kept: int = Field(10_000, ge=1)
    """Callbacks that could not be delivered, kept for an account, the newest."""
    dead_letters_days: int = Field(30, ge=1)
    """For how long."""
    callback_threads: int = Field(64, ge=1)
    """Callbacks that one worker delivers at once."""
    worker_nice: int = Field(10, ge=0, le=19)
    """By how much workers yield to what else runs on their machine, as nice(1) has it: calls come first."""

    log_format: Literal["auto", "text", "json"] = "auto"
    """auto: readable on a terminal, else JSON."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """info: a line for each call. debug: each event and effect as well."""

    @field_validator("allowed_networks", mode="before")
    @classmethod
    def _by_comma(cls, value: object) -> object:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("redis_url", "broker_url")
    @classmethod
    def _of_redis(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            redis_urls.parse(value.get_secret_value())
        return value

    @field_validator("media_listen")
    @classmethod
    def _can_be_sent_to(cls, value: IPv4Address) -> IPv4Address:
        if value.is_unspecified or value.is_multicast:
            raise ValueError("must be one address of this machine, such as 10.0.0.5: Asterisk sends to it")
        return value

    @field_validator("ari_listen", "web_listen", "sounds_listen", "metrics_listen")
    @classmethod
    def _host_and_port(cls, value: str, info: ValidationInfo) -> str:
        if not value and info.field_name == "metrics_listen":
            return value
        host, _, port = value.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise ValueError("must be host:port, such as 127.0.0.1:8089")
        return value

    @property
    def broker(self) -> str:
        return (self.broker_url or self.redis_url).get_secret_value()


def address(listen: str) -> tuple[str, int]:
    """(host, port) of a setting such as 127.0.0.1:8089."""
    host, _, port = listen.rpartition(":")
    return host.strip("[]"), int(port)


@cache
def settings() -> Settings:
    """The settings of this process. Raises SettingsError, naming each variable that is wrong and what it must be."""
    return from_environment(_of_up() | os.environ)


def _of_up() -> dict[str, str]:
    """Those of the system of `ari-conf up` in ARI_CONF_UP_FOLDER, as it runs now."""
    if not (folder := os.environ.get(UP_FOLDER)):
        return {}
    try:
        found = json.loads((Path(folder) / VALUES).read_bytes())
    except (OSError, ValueError):
        raise SettingsError(
            f"no system was started in {folder}, which {UP_FOLDER} names: start it by `ari-conf up`, or "
            f"`unset {UP_FOLDER}`"
        ) from None
    return {str(name): str(value) for name, value in found.items()} if isinstance(found, dict) else {}


def from_environment(environment: Mapping[str, str]) -> Settings:
    """As `settings`, from these variables and no others."""
    variables = {name: f"ARI_CONF_{name.upper()}" for name in Settings.model_fields}
    given = {name: environment[variable] for name, variable in variables.items() if variable in environment}
    try:
        return Settings(_env_prefix="ARI_CONF_FROM_NOWHERE_ELSE_", **given)  # type: ignore[call-arg, arg-type]
    except ValidationError as error:
        wrong = "; ".join(f"ARI_CONF_{str(e['loc'][0]).upper()}: {_said(e['msg'])}" for e in error.errors())
        raise SettingsError(f"settings: {wrong}") from None


def _said(message: str) -> str:
    """Without pydantic's word for what our own checks say."""
    return message.removeprefix("Value error, ")


def table() -> list[tuple[str, str, str]]:
    """(variable, default, meaning) of every setting, for --help and the README."""
    rows = []
    for name, field in Settings.model_fields.items():
        default = field.default
        if isinstance(default, SecretStr):
            default = default.get_secret_value()
        shown = "" if default in (None, ()) else str(default)
        meaning = " ".join((field.description or "").split())  # a line break would end the README's table
        rows.append((f"ARI_CONF_{name.upper()}", shown, meaning))
    return rows

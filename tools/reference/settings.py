"""settings.md, from `ari_conf.settings`."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from ari_conf.settings import Settings, settings_table
from tools.reference.markdown import code, compare, document, linked, table

GROUPS = {
    "Redis": "redis_url broker_url",
    "Asterisk": "ari_url ari_user ari_password ari_app ari_socket ari_listen ari_deadline ari_connections media_listen "
    "rtp_timeout jitter_buffer asterisk_name",
    "Calls and failover": "calls_per_account allowed_networks stop_wait names_kept_minutes",
    "Documents, sounds and speech": "documents sounds_folder sounds_url sounds_listen sounds_limit_mb voice ffmpeg",
    "Web process and API": "public_url web_listen web_connections trusted_proxies api_rate auth_failures "
    "command_deadline event_streams login_hours admin_key",
    "Recordings": "recording_folder recordings_wideband recordings_limit_mb record_delivery record_url_s "
    "recording_threads ari_url_for_workers",
    "Object storage": "s3_bucket s3_endpoint s3_region s3_path_style s3_access_key s3_secret_key s3_public_endpoint "
    "s3_encryption s3_kms_key s3_storage_class s3_deadline",
    "Transcriptions": "transcription_engine transcription_model transcription_url transcription_key transcription_cpus",
    "Workers and callbacks": "callback_threads worker_nice callbacks_kept dead_letters_kept dead_letters_days",
    "Monitoring and logs": "metrics_listen problems_kept log_format log_level",
}
"""Heading -> names of the settings below it."""
SPECIAL = {
    "redis_url": "Redis URL, secret",
    "broker_url": "Redis URL, secret",
    **dict.fromkeys(("ari_listen", "web_listen", "sounds_listen"), "host:port"),
    "metrics_listen": "host:port, or empty",
}
"""Types that a validator of `Settings` enforces, and not the annotation."""
NAMES = {str: "text", bool: "true or false", Path: "path", SecretStr: "text, secret", IPv4Address: "IPv4 address"}

INTRODUCTION = """
This page lists every environment variable that configures `ari-conf serve`, `ari-conf web`, `ari-conf worker` and the
other commands.

- Every process reads its settings once, when it starts. Restart a process after you change a variable.
- Give all processes of one installation the same settings, except for the addresses that they listen on.
- A value that is not allowed stops the command with one sentence that names the variable and what is allowed. A
  variable that begins with `ARI_CONF_` and that nothing reads is reported by `ari-conf doctor`, and in the log when
  `serve` or `web` starts.
- `ari-conf serve --help` prints the same list.
- Settings for Asterisk's own configuration (`ARI_CONF_TRUNK_…`, `ARI_CONF_SIP_BIND` and others) belong to
  `asterisk/configure`: `asterisk/configure --help` and [SIP](../operations/sip.md).
"""


def _rows(names: list[str]) -> Iterator[tuple[str, str, str, str]]:
    shown = {variable: (default, meaning) for variable, default, meaning in settings_table()}
    for name in names:
        field = Settings.model_fields[name]
        variable = f"ARI_CONF_{name.upper()}"
        default, meaning = shown[variable]
        default = default.lower() if isinstance(field.default, bool) else default
        yield code(variable), code(default), SPECIAL.get(name) or allowed(field), linked(meaning)


def allowed(field: FieldInfo) -> str:
    return _type(field.annotation) + _range(field.metadata)


def _type(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return ", ".join(code(word) if word else "empty" for word in get_args(annotation))
    if get_origin(annotation) in (Union, UnionType):
        return " or ".join(dict.fromkeys(_type(each) for each in get_args(annotation) if each is not type(None)))
    if get_origin(annotation) is tuple and IPv4Network in get_args(get_args(annotation)[0]):
        return "networks, separated by commas"
    return NAMES.get(annotation) or {int: "whole number", float: "number"}[annotation]


def _range(metadata: list[Any]) -> str:
    low = next((f", {each.ge} or more" for each in metadata if isinstance(each, Ge)), "")
    above = next((f", above {each.gt}" for each in metadata if isinstance(each, Gt)), "")
    high = next((each.le for each in metadata if isinstance(each, Le)), None)
    return low + above if high is None else low.replace(" or more", f" to {high}")


def page() -> str:
    groups = {heading: names.split() for heading, names in GROUPS.items()}
    compare("settings.md", [name for names in groups.values() for name in names], Settings.model_fields)
    columns = ("Variable", "Default", "Type or allowed values", "Meaning")
    blocks = [f"## {heading}\n\n{table(columns, _rows(names))}" for heading, names in groups.items()]
    return document("Settings", INTRODUCTION, *blocks)

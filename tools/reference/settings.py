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
    "History": "database_url delivered_callbacks_days",
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
    "Workers and callbacks": "callback_threads worker_nice dead_letters_kept dead_letters_days",
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
This page lists every setting of `ari-conf serve`, `ari-conf web`, `ari-conf worker` and the other commands, and says
where they are read from.

- Every process reads its settings once, when it starts. Restart a process after you change a setting.
- Give all processes of one installation the same settings, except for the addresses that they listen on.
- `ari-conf settings` prints what is in force and where it is from; `ari-conf serve --help` prints this list.
- Settings for Asterisk's own configuration (`ARI_CONF_TRUNK_…`, `ARI_CONF_SIP_BIND` and others) belong to
  `asterisk/configure`, which reads the same sources: `asterisk/configure --help` and [SIP](../operations/sip.md).

## Sources

A setting is taken from the first of these sources that has it. `redis_url` is the example.
"""
SOURCES = (
    ("1", "a variable of the environment", "`ARI_CONF_REDIS_URL=redis://…`", "every setting"),
    ("2", "a secret file that a variable names", "`ARI_CONF_REDIS_URL_FILE=/run/secrets/redis_url`", "secrets"),
    (
        "3",
        "a credential of systemd, or another file in `$CREDENTIALS_DIRECTORY`",
        "`LoadCredential=ari_conf_redis_url:/etc/ari_conf/redis_url`",
        "every setting",
    ),
    ("4", "the TOML file", '`redis_url = "redis://…"`', "every setting"),
    (
        "5",
        "a secret file that the TOML file names; a relative path begins at the folder of the TOML file",
        '`redis_url_file = "redis_url"`',
        "secrets",
    ),
    ("6", "the default", "", ""),
)
MORE_ON_SOURCES = """
It is an error if a variable and its `_FILE`, or a key and its `_file`, are both set. The settings with the type
"secret" on this page are secrets.

**The TOML file** is the one that `ARI_CONF_CONFIG` names. If that variable is not set, it is
`/etc/ari_conf/ari_conf.toml`, if this file exists. If the variable is empty, no file is read. `ari-conf settings
--example` prints a file with every setting as a comment. Keys are the names of the variables without `ARI_CONF_`, in
lower case; there are no tables. Lists may be written as `["10.0.0.0/8", "192.168.0.0/16"]`.

```
redis_url_file = "/etc/ari_conf/redis_url"
ari_password_file = "/etc/ari_conf/ari_password"
public_url = "https://conference.example"
allowed_networks = ["10.20.0.0/16"]
api_rate = 200
```

**A secret file** contains the value alone, in one line; white space around it is removed.

**Permissions.** A TOML file that contains a secret, and every secret file, should be readable only for its owner and
the group of the services, such as by `chown root:ari_conf FILE; chmod 640 FILE`. A file that all users of the machine
can read is a warning. Files in `/run/secrets` are not judged: a container's runtime chooses their permissions.

**`ari-conf up`** starts a system of its own. It reads variables, secret files, and the TOML file that
`ARI_CONF_CONFIG` names, but not `/etc/ari_conf/ari_conf.toml`, which belongs to an installation.
"""
MISTAKES = (
    (
        "a value that is not allowed, or of the wrong type",
        "the command ends with status 1 and one sentence that names the variable, or the file and the key, and what is "
        "allowed. The value of a secret is never shown",
    ),
    (
        "a file that is named and can't be read, or is not valid TOML",
        "the same; the sentence names the file and the line",
    ),
    (
        "a name that no program reads: a variable that begins with `ARI_CONF_`, a credential that begins with "
        "`ari_conf_`, a key of the TOML file",
        "it has no effect. A warning names it and the setting that was probably meant: in the log of `serve`, `web` "
        "and `worker`, on standard error of the other commands, and in `ari-conf doctor`",
    ),
    ("a file with secrets that all users can read", "a warning in the same places"),
)


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
    return document(
        "Settings",
        INTRODUCTION,
        table(("", "Source", "Example", "For"), SOURCES),
        MORE_ON_SOURCES,
        f"## Mistakes\n\n{table(('Mistake', 'What happens'), MISTAKES)}",
        *blocks,
    )

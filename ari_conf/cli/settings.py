"""Command `ari-conf settings`."""

from __future__ import annotations

import json
from typing import Any

from pydantic import SecretStr

from ari_conf.cli.terminal import print_table
from ari_conf.common import redis_url, setting_sources
from ari_conf.common.setting_sources import DEFAULT_CONFIG, VARIABLE_PREFIX, Given
from ari_conf.core.elements import without_login
from ari_conf.settings import SECRETS, Settings, environment_here, given_here, validate

HIDDEN = "(hidden)"
REDIS_URLS = ("redis_url", "broker_url")
"""Secrets whose address is shown."""
HEADER = f"""\
# Settings of ari_conf: a TOML file, read from {DEFAULT_CONFIG} or from the path in {setting_sources.CONFIG}.
# Each line that begins with # and a name is a setting with its default. To change one, remove the # and restart.
# A variable {VARIABLE_PREFIX}NAME takes precedence over the key name. `ari-conf settings` shows what is in force.
# Keep secrets in files of their own, such as s3_secret_key_file = "/etc/ari_conf/s3_secret_key", or let only the
# owner of this file and the group of the services read it.
# Settings of `asterisk/configure`, such as sip_bind, may also be written here.
"""


def run(*, only_changed: bool, as_json: bool) -> None:
    given = given_here()
    settings = validate(given)
    names = [name for name in Settings.model_fields if name in given or not only_changed]
    if as_json:
        config = setting_sources.find_config(environment_here(), DEFAULT_CONFIG)
        rows = [_as_json(name, getattr(settings, name), given.get(name)) for name in names]
        print(json.dumps({"config": config and str(config), "settings": rows}, indent=2))
        return
    print_table(
        ("setting", "value", "from"),
        [
            (VARIABLE_PREFIX + name.upper(), show(name, getattr(settings, name)), _describe(given.get(name)))
            for name in names
        ],
        "Every setting is at its default.",
    )


def print_example() -> None:
    print(HEADER)
    for name, field in Settings.model_fields.items():
        for line in (field.description or "").split("\n"):
            print(f"# {line.strip()}".rstrip())
        print(f"#{name} = {_as_toml(field.default)}\n")


def show(name: str, value: object) -> str:
    """Return the value of a setting as text, without secrets and without the logins of URLs."""
    if isinstance(value, SecretStr):
        secret = value.get_secret_value()
        if name in REDIS_URLS:
            url = redis_url.parse(secret)
            return url.without_secrets() + (" (login hidden)" if url.username or url.password else "")
        return HIDDEN if secret else ""
    if value in (None, ()):
        return ""
    return without_login(setting_sources.as_text(list(value) if isinstance(value, tuple) else value))


def _describe(given: Given | None) -> str:
    if given is None:
        return "default"
    return f"{given.source} {given.file or given.place}" if given.source != "environment" else given.source


def _as_json(name: str, value: object, given: Given | None) -> dict[str, Any]:
    shown = show(name, value)
    return {
        "name": name,
        "variable": VARIABLE_PREFIX + name.upper(),
        "value": value if isinstance(value, bool | int | float) else shown or None,
        "secret": name in SECRETS,
        "source": given.source if given else "default",
        "place": given.place if given else None,
    }


def _as_toml(default: object) -> str:
    """Return the default in TOML; dots stand for a value if the default is none."""
    if default is None:
        return '"..."'
    if isinstance(default, bool | int | float):
        return setting_sources.as_text(default)
    if isinstance(default, tuple):
        return json.dumps([str(each) for each in default])
    return json.dumps(default.get_secret_value() if isinstance(default, SecretStr) else str(default))

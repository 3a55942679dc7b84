"""Mistakes in settings that stop no process: names that nothing reads, and secrets that every user can read."""

from __future__ import annotations

import re
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

import structlog

from ari_conf.asterisk_config import template_settings
from ari_conf.common import setting_sources
from ari_conf.common.installation import bundled_folder
from ari_conf.common.setting_sources import CONFIG, VARIABLE_PREFIX, Given
from ari_conf.errors import SettingsError
from ari_conf.settings import SECRETS, UP_FOLDER, Settings, environment_here

log = structlog.get_logger()

GET = bundled_folder("asterisk") / "get"
RUNTIME_SECRETS = Path("/run/secrets")
"""Folder in which container runtimes mount secrets. They choose its permissions, and the container has one user."""

NAMES = frozenset(Settings.model_fields) | {name.lower() for name in template_settings.SETTINGS}
"""Names of all settings: those of `ari-conf`, and those of `asterisk/configure`."""
ALL_SECRETS = SECRETS | {name.lower() for name in template_settings.SECRETS}


class Warnings(NamedTuple):
    """Sentences with the name or the path, and what to do; without values."""

    unknown: Sequence[str] = ()
    exposed: Sequence[str] = ()


def find_here() -> Warnings:
    """Return the warnings about the settings of this process.

    There are none if a file can't be read, which the command that needs the settings reports.
    """
    try:
        return find(environment_here(), setting_sources.DEFAULT_CONFIG)
    except SettingsError:
        return Warnings()


def find(environment: Mapping[str, str], default_config: Path | None = None) -> Warnings:
    """Return the warnings about the settings in these variables and the files that they name. Raises SettingsError."""
    config = setting_sources.find_config(environment, default_config)
    found = setting_sources.read(environment, NAMES, ALL_SECRETS, default_config)
    return Warnings(list(_find_unknown(environment, config)), list(_find_exposed(found)))


def log_all() -> None:
    """Log the warnings about the settings of this process."""
    found = find_here()
    for text in found.unknown:
        log.warning("unknown setting ignored", reason=text)
    for text in found.exposed:
        log.warning("secret exposed", reason=text)


def _find_unknown(environment: Mapping[str, str], config: Path | None) -> Iterator[str]:
    keys = NAMES | {f"{name}_file" for name in ALL_SECRETS}
    variables = {VARIABLE_PREFIX + key.upper() for key in keys} | {UP_FOLDER, CONFIG} | _script_variables()
    for name in sorted(environment):
        if name.upper().startswith(VARIABLE_PREFIX) and name not in variables:
            yield _has_no_effect(name, name.upper(), variables)
    credentials = {VARIABLE_PREFIX.lower() + name for name in NAMES}
    for name, file in setting_sources.list_credentials(environment).items():
        # Other programs of the unit may have credentials, too.
        if (name.startswith(VARIABLE_PREFIX.lower()) and name not in credentials) or name in NAMES:
            yield _has_no_effect(f"credential {file}", VARIABLE_PREFIX.lower() + _without_prefix(name), credentials)
    for key in setting_sources.read_toml(config) if config else ():
        if key not in keys:
            yield _has_no_effect(f"{config}: {key}", _without_prefix(key.lower()), keys)


def _has_no_effect(place: str, name: str, known: Collection[str]) -> str:
    meant = get_close_matches(name, sorted(known), 1, 0.8)
    hint = f"did you mean {meant[0]}?" if meant else "`ari-conf serve --help` lists all settings"
    return f"{place} is not a setting and has no effect: {hint}"


def _without_prefix(name: str) -> str:
    return name.removeprefix(VARIABLE_PREFIX.lower())


def _script_variables() -> set[str]:
    """Return the variables that only the scripts in asterisk/ read."""
    with suppress(OSError):
        return set(re.findall(r"ARI_CONF_[A-Z0-9_]+", GET.read_text()))
    return set()


def _find_exposed(found: Mapping[str, Given]) -> Iterator[str]:
    files = {one.file for name, one in found.items() if one.file is not None and _has_secret(name, one)}
    for file in sorted(files):
        if _is_readable_by_all(file):
            yield (
                f"{file} contains secrets, and all users of this machine can read it: make it readable for its owner "
                "and the group of the services alone, such as by `chmod 640`"
            )


def _has_secret(name: str, one: Given) -> bool:
    if one.source == "secret file":
        return RUNTIME_SECRETS not in Path(one.place).parents
    # A Redis URL is a secret only if it has a login.
    return one.source == "file" and name in ALL_SECRETS and not ("://" in str(one.value) and "@" not in str(one.value))


def _is_readable_by_all(file: Path) -> bool:
    try:
        mode, folders = file.stat().st_mode, file.resolve().parents
        return (
            stat.S_ISREG(mode)
            and bool(mode & stat.S_IROTH)
            and all(folder.stat().st_mode & stat.S_IXOTH for folder in folders)
        )
    except OSError:
        return False

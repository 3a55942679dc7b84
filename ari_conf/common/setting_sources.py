"""Sources of settings: environment, secret files, credentials of systemd, and a TOML file. Standard library only.

The setting `redis_url` is given by the first of these that exists:

    ARI_CONF_REDIS_URL         variable with the value
    ARI_CONF_REDIS_URL_FILE    variable with the path of a file that contains the value alone (secrets only)
    ari_conf_redis_url         file in $CREDENTIALS_DIRECTORY, where systemd puts the credentials of a unit
    redis_url                  key of the TOML file
    redis_url_file             key of the TOML file with the path of a file that contains the value alone (secrets only)

The TOML file is the one that ARI_CONF_CONFIG names, or else DEFAULT_CONFIG if it exists.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ari_conf.errors import SettingsError

VARIABLE_PREFIX = "ARI_CONF_"
CONFIG = VARIABLE_PREFIX + "CONFIG"
"""Name of the variable with the path of the TOML file; empty: no file, not even DEFAULT_CONFIG."""
DEFAULT_CONFIG = Path("/etc/ari_conf/ari_conf.toml")
CREDENTIALS = "CREDENTIALS_DIRECTORY"
MAX_BYTES = 1_000_000
"""Maximum size of a file with settings: a wrong path may lead to an endless device."""

Source = Literal["environment", "secret file", "credential", "file", "up"]
"""Kind of source. `up`: the values of the system that `ari-conf up` has started."""


@dataclass(frozen=True, slots=True)
class Given:
    """Value of a setting, with its place."""

    value: Any
    """Text; in a TOML file also a number, a boolean, a list or a date."""
    source: Source
    place: str
    """Name of the variable, path of the file, or path and key."""
    file: Path | None = None
    """The file that contains the value; None: a variable does."""


def read(
    environment: Mapping[str, str], names: Iterable[str], secrets: Collection[str], default_config: Path | None = None
) -> dict[str, Given]:
    """Return the given values of the settings `names`, by name in lower case. `secrets` are those that files may hold.

    Raises SettingsError if a file can't be read, or if a setting is given twice.
    """
    names = list(names)
    config = find_config(environment, default_config)
    found = _read_config(config, names, secrets) if config else {}
    credentials = list_credentials(environment)
    for name in names:
        if path := credentials.get(VARIABLE_PREFIX.lower() + name):
            found[name] = Given(_read_secret(path, str(path)), "credential", str(path), path)
    return found | _read_environment(environment, names, secrets)


def find_config(environment: Mapping[str, str], default: Path | None = None) -> Path | None:
    """Return the path of the TOML file, or None if there is none to read."""
    named = environment.get(CONFIG)
    if named is not None:
        return Path(named) if named else None
    try:
        if default is not None:
            default.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        pass  # its folder is closed to this user, which reading it reports
    return default


def read_toml(path: Path) -> dict[str, Any]:
    """Return the keys and values of the file. Raises SettingsError."""
    text = _read_text(path, str(path))
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(
            f"{path} is not valid TOML: {error}; text needs quotes, as in the output of `ari-conf settings --example`"
        ) from None


def list_credentials(environment: Mapping[str, str]) -> dict[str, Path]:
    """Return the files of the credentials, by name in lower case. Raises SettingsError."""
    folder = environment.get(CREDENTIALS)
    if not folder:
        return {}
    try:
        return {file.name.lower(): file for file in sorted(Path(folder).iterdir())}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise SettingsError(f"{folder}, which {CREDENTIALS} names, could not be read: {error.strerror}") from None


def as_text(value: Any) -> str:
    """Return a value as it is written in a variable."""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(as_text, value)) if isinstance(value, list) else str(value)


def _read_environment(
    environment: Mapping[str, str], names: Iterable[str], secrets: Collection[str]
) -> dict[str, Given]:
    found = {}
    for name in names:
        variable = VARIABLE_PREFIX + name.upper()
        file = environment.get(variable + "_FILE") if name in secrets else None
        if file is not None:
            if variable in environment:
                raise _given_twice(variable, variable + "_FILE")
            place = f"{file}, which {variable}_FILE names,"
            found[name] = Given(_read_secret(Path(file), place), "secret file", file, Path(file))
        elif variable in environment:
            found[name] = Given(environment[variable], "environment", variable)
    return found


def _read_config(config: Path, names: Iterable[str], secrets: Collection[str]) -> dict[str, Given]:
    found, written = {}, read_toml(config)
    for name in names:
        key, place = f"{name}_file", f"{config}: {name}"
        if name in written and isinstance(written[name], dict):
            raise SettingsError(f"{place}: a table is not allowed; expected a value")
        if name in secrets and key in written:
            if name in written:
                raise _given_twice(place, key)
            if not isinstance(written[key], str):
                raise SettingsError(f"{config}: {key}: must be the path of a file, in quotes")
            file = config.parent / written[key]
            found[name] = Given(_read_secret(file, f"{file}, which {config} names,"), "secret file", str(file), file)
        elif name in written:
            found[name] = Given(written[name], "file", place, config)
    return found


def _given_twice(one: str, other: str) -> SettingsError:
    return SettingsError(f"{one} and {other} are both set: remove one of them")


def _read_secret(path: Path, place: str) -> str:
    text = _read_text(path, place).strip()
    if not text:
        raise SettingsError(f"{place} is empty; expected the value alone")
    if len(text.splitlines()) > 1:
        raise SettingsError(f"{place} has several lines; expected the value alone")
    return text


def _read_text(path: Path, place: str) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        text = content.decode()
    except OSError as error:
        raise SettingsError(f"{place} could not be read: {error.strerror}") from None
    except ValueError:
        raise SettingsError(f"{place} is not UTF-8 text") from None
    if len(content) > MAX_BYTES:
        raise SettingsError(f"{place} is longer than {MAX_BYTES} bytes")
    return text

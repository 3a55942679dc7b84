"""Environment variables that nothing reads, with the variables that were probably meant."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from difflib import get_close_matches

from ari_conf.asterisk_config import template_settings
from ari_conf.common.installation import bundled_folder
from ari_conf.settings import UP_FOLDER, Settings

GET = bundled_folder("asterisk") / "get"


def unknown(environment: Mapping[str, str]) -> list[str]:
    """Return a sentence for each ARI_CONF_ variable that nothing reads, with the one that was probably meant."""
    known = {f"ARI_CONF_{name.upper()}" for name in Settings.model_fields} | _script_variables()
    found = []
    for name in sorted(name for name in environment if name.startswith("ARI_CONF_") and name not in known):
        meant = get_close_matches(name, sorted(known), 1, 0.8)
        hint = f"did you mean {meant[0]}?" if meant else "`ari-conf serve --help` lists all settings"
        found.append(f"{name} is not a setting and has no effect: {hint}")
    return found


def _script_variables() -> set[str]:
    """Return the variables that only `ari-conf up` or the scripts in asterisk/ read."""
    known = {UP_FOLDER} | {f"ARI_CONF_{name}" for name in template_settings.SETTINGS}
    with suppress(OSError):
        known |= set(re.findall(r"ARI_CONF_[A-Z0-9_]+", GET.read_text()))
    return known

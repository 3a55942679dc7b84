"""The names of the settings in the environment: one that is misspelt has no effect, and nothing else says so."""

from __future__ import annotations

import os
from collections.abc import Mapping

from ari_conf.doctor.found import Doubtful
from ari_conf.misspelt import unknown
from ari_conf.settings import Settings


def settings_known(_settings: Settings, environment: Mapping[str, str] = os.environ) -> str:
    if found := unknown(environment):
        raise Doubtful("; ".join(found))
    set_here = sum(name.startswith("ARI_CONF_") for name in environment)
    return f"{set_here} set, all of them known"

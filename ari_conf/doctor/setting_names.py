"""Check of the setting names in the environment: a misspelled one has no effect."""

from __future__ import annotations

import os
from collections.abc import Mapping

from ari_conf.doctor.check import Doubtful
from ari_conf.doctor.misspelled import unknown
from ari_conf.settings import Settings


def settings_known(_settings: Settings, environment: Mapping[str, str] = os.environ) -> str:
    if found := unknown(environment):
        raise Doubtful("; ".join(found))
    set_here = sum(name.startswith("ARI_CONF_") for name in environment)
    return f"{set_here} set, all of them known"

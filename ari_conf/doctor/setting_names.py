"""Check of the settings' names and files: a misspelled name has no effect, and no other user may read a secret."""

from __future__ import annotations

from ari_conf import settings_warnings
from ari_conf.doctor.check import Doubtful
from ari_conf.settings import Settings, given_here


def settings_known(_settings: Settings) -> str:
    found = settings_warnings.find_here()
    if texts := (*found.unknown, *found.exposed):
        raise Doubtful("; ".join(texts))
    return f"{len(given_here())} set, all of them known; `ari-conf settings` shows them"

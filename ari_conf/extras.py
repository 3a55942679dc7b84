"""How what is optional is installed: from where this was installed, since the name ari_conf is nobody's on PyPI."""

from __future__ import annotations

import sys
from pathlib import Path

PROJECT = Path(__file__).parents[1]


def extra(name: str) -> str:
    """A command for a shell, such as `/opt/x/bin/python -m pip install '/src/ari_conf[speech]'`."""
    source = str(PROJECT) if (PROJECT / "setup.cfg").exists() else "FOLDER_OF_ARI_CONF"
    return f"`{sys.executable} -m pip install '{source}[{name}]'`"

"""Install commands for optional dependencies, from this project's folder: nobody owns the name ari_conf on PyPI."""

from __future__ import annotations

import sys
from pathlib import Path

PROJECT = Path(__file__).parents[2]


def extra(name: str) -> str:
    """Return a shell command in backticks, such as `/opt/x/bin/python -m pip install '/src/ari_conf[speech]'`."""
    source = str(PROJECT) if (PROJECT / "setup.cfg").exists() else "FOLDER_OF_ARI_CONF"
    return f"`{sys.executable} -m pip install '{source}[{name}]'`"

"""Places of this installation: a checkout of the repository, or what a wheel installed. Standard library only."""

from __future__ import annotations

import os
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
CHECKOUT = PACKAGE.parent if (PACKAGE.parent / "setup.cfg").exists() else None
"""Folder of the repository; None if a wheel installed the package."""
WORKER_COMMAND = (sys.executable, "-P", str(PACKAGE.parent / "tasks" / "__main__.py"))
"""Command of a worker. It names the file, because `-m tasks` runs any tasks.py that PYTHONPATH has first."""


def bundled_folder(name: str) -> Path:
    """Return asterisk/, demo/ or documents/ of the repository. In a wheel they are in the package: see setup.py."""
    return (CHECKOUT or PACKAGE / "bundled") / name


def data_folder() -> Path:
    """Return the folder for what `up` and the demo keep: .local in a checkout, otherwise ~/.local/share/ari_conf.

    XDG_DATA_HOME replaces ~/.local/share (XDG Base Directory Specification 0.8).
    """
    if CHECKOUT is not None:
        return CHECKOUT / ".local"
    home = Path(os.environ.get("HOME") or "/")
    return Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share") / "ari_conf"

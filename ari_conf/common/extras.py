"""Install commands for optional dependencies. They never name ari_conf: nobody owns that name on PyPI."""

from __future__ import annotations

import re
import sys
from importlib.metadata import requires

from ari_conf.common.installation import CHECKOUT

DEBIAN_PREFIX = "/usr/lib/ari_conf"
"""Folder of the Debian package's virtual environment: see debian/rules."""


def extra(name: str) -> str:
    """Return a shell command in backticks that installs the extra, such as `…/python -m pip install '…[speech]'`.

    It names the checkout, or without one the requirements of the extra: `…/python -m pip install piper-tts==1.8.0`. The
    Debian package has no pip: there it is the command that builds another package.
    """
    if sys.prefix == DEBIAN_PREFIX:
        return f"`make deb WITH={name}`"
    what = f"'{CHECKOUT}[{name}]'" if CHECKOUT is not None else " ".join(_requirements(name))
    return f"`{sys.executable} -m pip install {what}`"


def _requirements(name: str) -> list[str]:
    """Return the requirements of the extra from the metadata, where each has the marker `extra == "NAME"`."""
    marked = [text.partition(";") for text in requires("ari_conf") or ()]
    return [package.strip() for package, _, marker in marked if re.search(rf"\bextra == ['\"]{name}['\"]", marker)]

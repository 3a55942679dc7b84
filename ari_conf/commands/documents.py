"""`ari-conf documents check`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ari_conf import document
from ari_conf.commands.terminal import say
from ari_conf.errors import InvalidDocument


def check(files: Sequence[Path]) -> int:
    """The exit code: 1 if one of them can't be run. What is only a warning doesn't count."""
    return 1 if sum(not _runs(file) for file in files) else 0


def _runs(file: Path) -> bool:
    try:
        found = document.parse(file.read_bytes())
    except OSError as error:
        return _say(f"{file}: can't be read: {error.strerror}", good=False)
    except InvalidDocument as error:
        return _say(f"{file}: can't be run: {error}", good=False)
    for warning in found.warnings:
        _say(f"{file}: {warning}", good=True)
    elements = ", ".join(type(element).__name__ for element in found.elements)
    return _say(f"{file}: {elements or 'nothing: the call is hung up'}", good=True)


def _say(line: str, *, good: bool) -> bool:
    say(line, soft_wrap=True, style="" if good else "red")
    return good

"""Command `ari-conf documents check`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from ari_conf.cli.terminal import say
from ari_conf.core.account import Account
from ari_conf.core.elements import Conference, Element
from ari_conf.documents import parser
from ari_conf.errors import InvalidDocument
from ari_conf.media.speech import SpeechSynthesizer

STDIN = Path("-")


def check(files: Sequence[Path]) -> int:
    """Check documents and return the exit code: 1 if one can't run, an element of one is skipped, or one runs nothing.

    Warnings do not change the exit code.
    """
    speech = SpeechSynthesizer.from_installed("auto", "ffmpeg")
    return 1 if sum(not _check_document(file, speech) for file in files) else 0


def _check_document(file: Path, speech: SpeechSynthesizer) -> bool:
    name = "standard input" if file == STDIN else str(file)
    try:
        found = parser.parse(_read(file))
    except OSError as error:
        return _report_line(f"{name}: could not be read: {error.strerror}", good=False)
    except InvalidDocument as error:
        return _report_line(f"{name}: can't be run: {error}", good=False)
    for warning in (*found.warnings, *speech.complaints(found.elements), *_too_many(found.elements)):
        _report_line(f"{name}: {warning}", good=True)
    elements = ", ".join(type(element).__name__ for element in found.elements)
    skipped = f" ({found.skipped} skipped)" if found.skipped else ""
    runs = bool(elements) and not found.skipped
    return _report_line(f"{name}: {elements or 'nothing: the call is hung up'}{skipped}", good=runs)


def _too_many(elements: Sequence[Element]) -> list[str]:
    """Return warnings about each maxMembers that needs an account with a raised limit."""
    wanted = [element.max_members for element in elements if isinstance(element, Conference)]
    refused = filter(None, map(Account("").refused_members, wanted))
    return [f"{text}, unless `ari-conf account set ACCOUNT --max-members` allows more" for text in refused]


def _read(file: Path) -> bytes:
    """Read the file, but no more than is needed to detect that it is too long."""
    if file == STDIN:
        return sys.stdin.buffer.read(parser.MAX_BYTES + 1)
    with file.open("rb") as opened:
        return opened.read(parser.MAX_BYTES + 1)


def _report_line(line: str, *, good: bool) -> bool:
    say(line, soft_wrap=True, style="" if good else "red")
    return good

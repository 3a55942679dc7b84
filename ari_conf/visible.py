"""Text that others wrote, made safe to show: without characters that a terminal or a log viewer obeys.

A caller chooses their display name, a tenant the words of a document, a server its error text. Raw escape sequences in
them rename windows, hide lines or type answers; bidirectional overrides reverse what follows.
"""

from __future__ import annotations

import re
import unicodedata

C0 = "\x00-\x1f"
ACTING = (
    C0 + "\x7f-\x9f"  # DEL and C1
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # they change the direction of the text that follows
    "\u2028\u2029"  # they begin a line
    "\ufff9-\ufffb"  # they hide an annotation
    "\ud800-\udfff"  # half a character, which can't be written as UTF-8
)
"""As the inside of a regular expression's brackets."""
UNSEEN = "\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b\u2060-\u2064\u206a-\u206f\u3164\ufeff\uffa0"
"""They stand for nothing that can be seen. (Joiners are kept: they shape letters and emoji.)"""
_acting = re.compile(f"[{ACTING}]")
_white = re.compile(r"\s")
_unseen = re.compile(f"(?!\\s)[{ACTING}{UNSEEN}]")
_acting_but_lines = re.compile(f"(?![\n\t])[{ACTING}]")


def visible(text: str, *, lines: bool = False) -> str:
    r"""The text with each such character as its escape, such as `\x1b`. With `lines`, tabs and line ends stay."""
    if text.isprintable():
        return text
    return (_acting_but_lines if lines else _acting).sub(_escape, text)


def stripped(text: str) -> str:
    """The text without such characters."""
    return text if text.isprintable() else _acting.sub("", text)


def one_spelling(name: str) -> str:
    """Of spellings that a reader can't tell apart: composed letters, one kind of space, none at the ends, and nothing
    that can't be seen."""
    if name.isascii() and name.isprintable():
        return name.strip()
    return _white.sub(" ", _unseen.sub("", unicodedata.normalize("NFC", name))).strip()


def _escape(found: re.Match[str]) -> str:
    number = ord(found[0])
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"

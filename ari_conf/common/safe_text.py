"""Safe text: untrusted text without the characters that a terminal or a log viewer interprets.

Callers choose their display names, customers the words of a document, servers their error texts. Raw escape sequences
in them rename windows, hide lines or type answers; bidirectional overrides reverse the text that follows.
"""

from __future__ import annotations

import re
import unicodedata

C0 = "\x00-\x1f"
ACTING = (
    C0 + "\x7f-\x9f"  # DEL and C1
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # direction of the text that follows
    "\u2028\u2029"  # line separators
    "\ufff9-\ufffb"  # hidden annotations
    "\ud800-\udfff"  # surrogates, which can't be encoded as UTF-8
)
"""Characters that a terminal or viewer interprets, for use within the brackets of a regular expression."""
UNSEEN = "\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b\u2060-\u2064\u206a-\u206f\u3164\ufeff\uffa0"
"""Invisible characters. Joiners are not among them: they shape letters and emoji."""
_acting = re.compile(f"[{ACTING}]")
_white = re.compile(r"\s")
_unseen = re.compile(f"(?!\\s)[{ACTING}{UNSEEN}]")
_acting_but_lines = re.compile(f"(?![\n\t])[{ACTING}]")


def visible(text: str, *, lines: bool = False) -> str:
    r"""Return the text with each such character escaped, such as `\x1b`. With `lines`, tabs and line ends stay."""
    if text.isprintable():
        return text
    return (_acting_but_lines if lines else _acting).sub(_escape, text)


def stripped(text: str) -> str:
    """Return the text without such characters."""
    return text if text.isprintable() else _acting.sub("", text)


def one_spelling(name: str) -> str:
    """Return the same text for all spellings that a reader can't tell apart.

    It has composed letters, one kind of space, no space at the ends, and no invisible characters."""
    if name.isascii() and name.isprintable():
        return name.strip()
    return _white.sub(" ", _unseen.sub("", unicodedata.normalize("NFC", name))).strip()


def _escape(found: re.Match[str]) -> str:
    number = ord(found[0])
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"

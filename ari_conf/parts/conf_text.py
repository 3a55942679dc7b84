"""Asterisk's configuration files as text: templates are filled in, sections and settings found. Standard library only.

A template has placeholders, @NAME@, and lines that are there only if something holds:

    ;@if tls
    ...
    ;@end
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Set
from glob import glob
from pathlib import Path

DEEPEST_INCLUDE = 10
"""As deep as Asterisk itself follows #include."""
_SECTION = re.compile(r"\[([^\]]+)\]\s*(?:\(([^)]*)\))?")
_INCLUDE = re.compile(r"#(?:try)?include\s+[<\"]?([^>\"\s]+)")
_COMMENT = re.compile(r"(?<!\\);(?:--(?!-).*?(?:--;|\Z)|[^\n]*)", re.S)
"""Whichever begins first: `;--`, which goes on to `--;`, also over lines, or `;`, to the line's end. `\\;` is a
semicolon."""
_HIDDEN = re.compile(r"^([+-]?\s*(?:password|secret)\s*=>?\s*)\S.*", re.M)


def filled(template: str, values: Mapping[str, str], holds: Set[str]) -> str:
    """Raises KeyError for a placeholder without a value."""
    lines: list[str] = []
    taken = [True]
    for line in template.splitlines():
        if line.startswith(";@if "):
            taken.append(taken[-1] and line.removeprefix(";@if ") in holds)
        elif line == ";@end":
            taken.pop()
        elif taken[-1]:
            lines.append(line)
    # One pass: what is filled in is not looked at again.
    text = re.sub(r"@([A-Z]+(?:_[A-Z]+)*)@", lambda found: values[found[1]], "\n".join(lines))
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n") + "\n"


def sections(path: Path, root: Path, ours: Path, depth: int = 0) -> Iterator[tuple[str, list[str]]]:
    """Each section with its lines, comments taken out, in the order in which Asterisk reads them.

    `root` is what #include is relative to. Files in `ours` are left out.
    """
    name, lines = "", list[str]()
    for line in _bare(path):
        if found := _INCLUDE.match(line):
            if depth == DEEPEST_INCLUDE:
                continue
            for included in map(Path, sorted(glob(str(root / found[1])))):  # noqa: PTH207  it may be absolute
                if included.is_file() and ours not in included.parents:
                    yield from sections(included, root, ours, depth + 1)
        elif found := _SECTION.match(line):
            yield name, lines
            name, lines = found[1], []
        else:
            lines.append(line)
    yield name, lines


def settings(path: Path, root: Path, section: str, ours: Path) -> list[tuple[str, str]]:
    """What is set in a section, wherever it goes on."""
    found = []
    for name, lines in sections(path, root, ours):
        if name == section:
            for line in lines:
                key, sign, value = line.partition("=")
                if sign:
                    found.append((key.strip().lower(), value.removeprefix(">").strip()))
    return found


def without_passwords(text: str) -> str:
    return _HIDDEN.sub(r"\1(hidden)", text)


def _bare(path: Path) -> Iterator[str]:
    """Lines without comments and blanks."""
    text = path.read_text(errors="replace") if path.exists() else ""
    text = _COMMENT.sub(lambda found: "\n" if "\n" in found[0] else "", text)
    for line in text.splitlines():
        if bare := line.strip():
            yield bare

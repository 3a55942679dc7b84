"""Text of Asterisk's configuration files: filling in templates, finding sections and settings. Standard library only.

A template has placeholders, @NAME@, and lines that depend on a condition:

    ;@if tls
    ...
    ;@end
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Set
from glob import glob
from pathlib import Path

MAX_INCLUDE_DEPTH = 10
"""Maximum depth of #include; it is that of Asterisk."""
_SECTION = re.compile(r"\[([^\]]+)\]\s*(?:\(([^)]*)\))?")
_INCLUDE = re.compile(r"#(?:try)?include\s+[<\"]?([^>\"\s]+)")
_COMMENT = re.compile(r"(?<!\\);(?:--(?!-).*?(?:--;|\Z)|[^\n]*)", re.S)
"""Pattern of a comment: from `;--` to `--;`, also across lines, or from `;` to the end of the line. `\\;` is a
semicolon."""
_PASSWORD = re.compile(r"^([+-]?\s*(?:password|secret)\s*=>?\s*)\S.*", re.M)


def fill_template(template: str, values: Mapping[str, str], conditions: Set[str]) -> str:
    """Return the template with its values and the lines whose conditions are among `conditions`.

    Raises KeyError for a placeholder without a value.
    """
    lines: list[str] = []
    included = [True]
    for line in template.splitlines():
        if line.startswith(";@if "):
            included.append(included[-1] and line.removeprefix(";@if ") in conditions)
        elif line == ";@end":
            included.pop()
        elif included[-1]:
            lines.append(line)
    # One pass, so that a value with the form of a placeholder is not replaced.
    text = re.sub(r"@([A-Z]+(?:_[A-Z]+)*)@", lambda found: values[found[1]], "\n".join(lines))
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n") + "\n"


def sections(path: Path, root: Path, excluded: Path, depth: int = 0) -> Iterator[tuple[str, list[str]]]:
    """Yield the name and the lines without comments of each section, in the order in which Asterisk reads them.

    #include is relative to `root`. Files in the folder `excluded` are skipped.
    """
    name, lines = "", list[str]()
    for line in _stripped_lines(path):
        if found := _INCLUDE.match(line):
            if depth == MAX_INCLUDE_DEPTH:
                continue
            for included in map(Path, sorted(glob(str(root / found[1])))):  # noqa: PTH207  it may be absolute
                if included.is_file() and excluded not in included.parents:
                    yield from sections(included, root, excluded, depth + 1)
        elif found := _SECTION.match(line):
            yield name, lines
            name, lines = found[1], []
        else:
            lines.append(line)
    yield name, lines


def settings(path: Path, root: Path, section: str, excluded: Path) -> list[tuple[str, str]]:
    """Return (key, value) of each setting in a section, including later sections of the same name."""
    found = []
    for name, lines in sections(path, root, excluded):
        if name == section:
            for line in lines:
                key, sign, value = line.partition("=")
                if sign:
                    found.append((key.strip().lower(), value.removeprefix(">").strip()))
    return found


def without_passwords(text: str) -> str:
    return _PASSWORD.sub(r"\1(hidden)", text)


def _stripped_lines(path: Path) -> Iterator[str]:
    """Yield the stripped lines, without comments and empty lines."""
    text = path.read_text(errors="replace") if path.exists() else ""
    text = _COMMENT.sub(lambda found: "\n" if "\n" in found[0] else "", text)
    for line in text.splitlines():
        if bare := line.strip():
            yield bare

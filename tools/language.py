"""Language check: words that the style guide avoids, and docstrings that start with a question word.

    python -m tools.language          # every file that git tracks
    python -m tools.language FILE …

It prints `file:line: problem: sentence` for each finding and exits with status 1 if it has any. It reads comments,
docstrings and texts with spaces in Python, the prose of Markdown, and every line of JavaScript, Lua, shell and other
files. docs/development/style-guide.md has the rules.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PROJECT = Path(__file__).parents[1]
EXEMPT = {
    "demo/speech/__init__.py",
    "docs/development/style-guide.md",
    "docs/development/glossary.md",
    "tools/language.py",
    "tests/tools/test_language.py",
}
"""Pages that name the words themselves."""
AVOIDED = {
    r"he|him|his|himself": 'callers and members are "they"',
    r"whom|whomever|whoever|whosoever": "name the actor",
    r"upon": "on",
    r"anew": "again, or restart",
    r"lest": "so that … not",
    r"thereof|therein|hereby|herein": "name the thing",
    r"for ever": "indefinitely, or forever",
    r"as yet": "so far",
    r"would have it": "delete it",
}
_AVOIDED = [(re.compile(rf"\b(?:{words})\b", re.IGNORECASE), advice) for words, advice in AVOIDED.items()]
_QUESTION = re.compile(r"\s*(?:who|whom|whose|what|which|where|when|why|how|whether)\b", re.IGNORECASE)
_FENCE = re.compile(r"^\s*(?:```|~~~)")
_CODE = re.compile(r"`[^`]*`")


class Sentence(NamedTuple):
    line: int
    text: str
    is_docstring: bool = False


class Finding(NamedTuple):
    path: str
    line: int
    problem: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.problem}: {self.text}"


def check(path: str, source: str) -> list[Finding]:
    """Return the findings in one file. Raises SyntaxError if a Python file cannot be parsed."""
    if path in EXEMPT:
        return []
    if path.endswith(".py"):
        sentences = _python(source)
    elif path.endswith(".md"):
        sentences = _markdown(source)
    else:
        sentences = _lines(source)
    found = []
    for sentence in sentences:
        text = " ".join(_CODE.sub("", sentence.text).split())
        if sentence.is_docstring and _QUESTION.match(text):
            found.append(Finding(path, sentence.line, "a docstring starts with a question word", text[:100]))
        for pattern, advice in _AVOIDED:
            if match := pattern.search(text):
                at = max(0, match.start() - 40)
                found.append(Finding(path, sentence.line, f'"{match[0]}": write {advice}', text[at : at + 100]))
    return found


def _python(source: str) -> Iterator[Sentence]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield Sentence(token.start[0], token.string.lstrip("#"))
    tree = ast.parse(source)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        id(statement.value)
        for node in ast.walk(tree)
        if isinstance(node, documented)
        for statement in node.body
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield Sentence(node.lineno, node.value, id(node) in docstrings)


def _markdown(source: str) -> Iterator[Sentence]:
    in_code = False
    for number, line in enumerate(source.splitlines(), 1):
        if _FENCE.match(line):
            in_code = not in_code
        elif not in_code:
            yield Sentence(number, line)


def _lines(source: str) -> Iterator[Sentence]:
    for number, line in enumerate(source.splitlines(), 1):
        yield Sentence(number, line)


def tracked() -> list[str]:
    """Return the tracked files that contain the project's own sentences."""
    patterns = ["*.py", "*.md", "*.js", "*.lua", "*.html", "*.sh", "*.cfg", "*.ini", "Makefile", "asterisk/*"]
    listed = subprocess.run(["git", "ls-files", *patterns], cwd=PROJECT, capture_output=True, text=True, check=True)
    return [path for path in listed.stdout.splitlines() if "/vendor/" not in path]


def main(paths: list[str]) -> int:
    found = list[Finding]()
    for path in paths or tracked():
        found += check(path, (PROJECT / path).read_text(errors="replace"))
    for finding in found:
        print(finding)
    return 1 if found else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", metavar="FILE")
    sys.exit(main(parser.parse_args().paths))

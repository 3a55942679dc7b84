"""Link check: the relative links and anchors in the project's Markdown, as GitHub resolves them.

    python -m tools.links

It prints `file:line: link: problem` for each broken link and exits with status 1 if it has any. Pages in docs/ link to
files in docs/ only, since the site (mkdocs.yml) consists of them; they name other files as code.
"""

from __future__ import annotations

import argparse
import posixpath
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from markdown_it import MarkdownIt

PROJECT = Path(__file__).parents[1]
_MARKDOWN = MarkdownIt("commonmark").enable("table")
_NOT_IN_ANCHORS = re.compile(r"[^\w\- ]")


class Link(NamedTuple):
    line: int
    target: str


class Page(NamedTuple):
    links: list[Link]
    anchors: set[str]


class Finding(NamedTuple):
    path: str
    line: int
    target: str
    problem: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.target}: {self.problem}"


def read(source: str) -> Page:
    """Return the links and images of a Markdown text, and the anchors that GitHub gives its headings."""
    page = Page([], set())
    tokens = _MARKDOWN.parse(source)
    for before, token in zip([None, *tokens], tokens, strict=False):
        children = token.children or []
        for child in children:
            if target := child.attrGet("href") or child.attrGet("src"):
                page.links.append(Link(token.map[0] + 1 if token.map else 0, str(target)))
        if before and before.type == "heading_open":
            text = "".join(child.content for child in children if child.type in ("text", "code_inline"))
            page.anchors.add(_anchor(text, page.anchors))
    return page


def _anchor(heading: str, taken: set[str]) -> str:
    anchor = _NOT_IN_ANCHORS.sub("", heading.strip().lower()).replace(" ", "-")
    candidates = [anchor, *(f"{anchor}-{number}" for number in range(1, len(taken) + 1))]
    return next(candidate for candidate in candidates if candidate not in taken)


def check(pages: Mapping[str, str], files: set[str]) -> list[Finding]:
    """Return the broken links of the pages.

    `pages` maps the paths of Markdown files, relative to the project, to their texts; `files` has the paths of all
    files.
    """
    read_pages = {path: read(source) for path, source in pages.items()}
    return [
        Finding(path, line, target, problem)
        for path, page in read_pages.items()
        for line, target in page.links
        if (problem := _problem(path, target, read_pages, files))
    ]


def _problem(path: str, target: str, pages: Mapping[str, Page], files: set[str]) -> str:
    url = urlsplit(target)
    if url.scheme or url.netloc:
        return ""
    if url.path.startswith("/"):
        return "is an absolute path; use a relative one"
    name = posixpath.normpath(posixpath.join(posixpath.dirname(path), unquote(url.path))) if url.path else path
    if path.startswith("docs/") and not name.startswith("docs/"):
        return "is outside docs/, and therefore not part of the site; name the file as code"
    if name not in files:
        return "does not exist, or is not tracked by git"
    if url.fragment and (name not in pages or unquote(url.fragment) not in pages[name].anchors):
        return "no heading has this anchor"
    return ""


def main() -> int:
    listed = subprocess.run(["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True, check=True)
    files = set(listed.stdout.splitlines())
    found = check({path: (PROJECT / path).read_text() for path in sorted(files) if path.endswith(".md")}, files)
    for finding in found:
        print(finding)
    return 1 if found else 0


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    sys.exit(main())

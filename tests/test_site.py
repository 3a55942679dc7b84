"""The documentation as a site (mkdocs.yml): it builds without a broken link, and each page has what GitHub shows."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

PROJECT = Path(__file__).parents[1]
PAGES = sorted(str(path.relative_to(PROJECT / "docs")) for path in (PROJECT / "docs").rglob("*.md"))
BLOCKS = {"h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "li", "table", "tr", "pre", "blockquote", "img"}


class Blocks(HTMLParser):
    """The blocks in the article of a page, in their order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found = list[str]()
        self._in_article = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_article |= tag == "article"
        if self._in_article and tag in BLOCKS:
            self.found.append(tag)

    def handle_endtag(self, tag: str) -> None:
        self._in_article &= tag != "article"


def copy(folder: Path) -> Path:
    shutil.copytree(PROJECT / "docs", folder / "docs")
    shutil.copy(PROJECT / "mkdocs.yml", folder)
    return folder


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = copy(tmp_path_factory.mktemp("site"))
    built = build(folder)
    assert built.returncode == 0, built.stderr
    return folder / "build/site"


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_the_blocks_that_github_shows(site: Path, page: str) -> None:
    github = MarkdownIt("commonmark").enable("table").render((PROJECT / "docs" / page).read_text())
    shown = Blocks(f"<article>{github}</article>").found
    folder = page.removesuffix(".md").removesuffix("index")
    assert Blocks((site / folder / "index.html").read_text()).found == shown


def test_a_broken_link_fails_the_build(tmp_path: Path) -> None:
    folder = copy(tmp_path)
    broken = ["missing.md", "guide/callbacks.md#missing", "#missing", "screens/missing.png", "../LICENSE", "/guide/"]
    with (folder / "docs/index.md").open("a") as index:
        index.writelines(f"\n[link]({link})\n" for link in broken)
    (folder / "docs/unlisted.md").write_text("# Not in the navigation\n")
    built = build(folder)
    assert built.returncode != 0 and "Aborted with 7 warnings" in built.stdout, built.stderr


def test_the_list_of_pages_has_each_page() -> None:
    listed = set(re.findall(r"\]\(([^)#]+\.md)", (PROJECT / "docs/index.md").read_text()))
    assert sorted(listed | {"index.md"}) == PAGES

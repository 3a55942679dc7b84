"""The link check resolves relative links and anchors as GitHub does."""

from __future__ import annotations

import pytest

from tools.links import check, read

FILES = {"README.md", "LICENSE", "ari_conf/core/engine.py", "docs/index.md", "docs/a/b.md", "docs/a/picture.png"}
B = "# The `core`, and: more\n\n## Twice\n\n## Twice\n\n```\n# no heading\n```\n"


def problems(path: str, source: str) -> list[str]:
    pages = {"docs/a/b.md": B, path: source}
    return [f"{finding.line} {finding.target}" for finding in check(pages, FILES | {path})]


@pytest.mark.parametrize(
    "link",
    [
        "[b](a/b.md)",
        "[b](a/b.md#the-core-and-more)",
        "[b](a/b.md#twice-1)",
        "![picture](a/picture.png)",
        "[text](#here)",
        "[b][reference]\n\n[reference]: a/b.md",
        "[elsewhere](https://example.com/a/missing.md)",
        "`[code](missing.md)`",
        "```\n[code](missing.md)\n```",
    ],
)
def test_links_that_lead_somewhere(link: str) -> None:
    assert problems("docs/index.md", f"# Here\n\n{link}\n") == []


@pytest.mark.parametrize(
    ("line", "link"),
    [
        (3, "[b](missing.md)"),
        (3, "[b](a/b.md#missing)"),
        (3, "[b](a/b.md#no-heading)"),
        (3, "[b](a/b.md#twice-2)"),
        (3, "[text](#missing)"),
        (3, "![picture](a/missing.png)"),
        (3, "[![picture](a/missing.png)](a/b.md)"),
        (3, "[picture](a/picture.png#part)"),
        (3, "[folder](a)"),
        (3, "[absolute](/docs/a/b.md)"),
        (3, "[outside](../LICENSE)"),
        (3, "[outside](../ari_conf/core/engine.py)"),
        (3, "[case](A/b.md)"),
        (5, "| a |\n|---|\n| [b](missing.md) |"),
        (3, "[b][reference]\n\n[reference]: missing.md"),
    ],
)
def test_links_that_lead_nowhere(line: int, link: str) -> None:
    found = problems("docs/index.md", f"# Here\n\n{link}\n")
    assert len(found) == 1 and found[0].startswith(f"{line} ")


def test_pages_outside_docs_link_to_every_file() -> None:
    links = "[license](LICENSE), [engine](ari_conf/core/engine.py), [docs](docs/index.md)"
    assert problems("README.md", links) == []


def test_anchors_are_those_of_github() -> None:
    headings = "# What `--merge` changes\n\n## 2. Install ari_conf\n\n## [A link](x.md) – *emphasis*\n\nTitle\n=====\n"
    assert read(headings).anchors == {"what---merge-changes", "2-install-ari_conf", "a-link--emphasis", "title"}

"""The language check finds what it promises to find, and nothing in code."""

from __future__ import annotations

import pytest

from tools.language import Finding, check


def lines(path: str, source: str) -> list[int]:
    return [finding.line for finding in check(path, source)]


@pytest.mark.parametrize(
    "source",
    [
        '"""Whom an event is for."""\n',
        '"""What is there."""\n',
        "# The member hears his own sound.\n",
        'log.info("calls go on for ever")\n',
        'class A:\n    """How it works."""\n',
        'A = 1\n"""When it ends."""\n',
    ],
)
def test_python_that_does_not_follow_the_rules(source: str) -> None:
    assert check("ari_conf/a.py", source)


@pytest.mark.parametrize(
    "source",
    [
        '"""The recipient of an event."""\n',
        "# The members hear their own sounds.\n",
        "his = 1\n",
        'KEY = "his"\n',
        'def a():\n    return "what is there"\n',
        '"""`whom` is the name of an argument."""\n',
    ],
)
def test_python_that_follows_them(source: str) -> None:
    assert check("ari_conf/a.py", source) == []


def test_code_in_markdown_is_not_read() -> None:
    assert lines("docs/a.md", "He waits.\n```\nhe = 1\n```\nthe text\nupon `upon`\n") == [1, 6]


def test_a_finding_says_where_and_what_to_write() -> None:
    assert str(Finding("a.py", 3, '"upon": write on', "depends upon it")) == 'a.py:3: "upon": write on: depends upon it'


def test_pages_that_name_the_words_are_exempt() -> None:
    assert check("docs/development/style-guide.md", "he, whom, upon") == []

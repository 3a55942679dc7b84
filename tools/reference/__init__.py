"""Reference pages in docs/reference/ that are generated from the code. `python -m tools.reference` writes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from tools.reference import cli, hangup_codes, log_events, metrics, problems, redis_keys, settings, xml

FOLDER = Path(__file__).parents[2] / "docs" / "reference"
PAGES: dict[str, Callable[[], str]] = {
    "settings.md": settings.page,
    "metrics.md": metrics.page,
    "cli.md": cli.page,
    "hangup-codes.md": hangup_codes.page,
    "problems.md": problems.page,
    "xml.md": xml.page,
    "redis-keys.md": redis_keys.page,
    "log-events.md": log_events.page,
}
"""File name -> the function that returns the page. The function raises IncompleteTable if the page lacks a text."""


def is_current(name: str, folder: Path = FOLDER) -> bool:
    path = folder / name
    return path.exists() and path.read_text() == PAGES[name]()


def outdated(folder: Path = FOLDER) -> list[str]:
    return [name for name in PAGES if not is_current(name, folder)]


def write(names: Iterable[str] = PAGES, folder: Path = FOLDER) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text(PAGES[name]())

"""Tests of the page's files: each is in the wheel, and refers only to files that exist."""

from __future__ import annotations

import configparser
import re
from fnmatch import fnmatch
from pathlib import Path

import ari_conf
from ari_conf.web.routes.dashboard import FOLDER

PACKAGE = Path(ari_conf.__file__).parent
FILES = sorted(path for path in FOLDER.rglob("*") if path.is_file())
NAMED = re.compile(r"""(?:from\s*|import\s*|href=|src=)"(/static/[^"]+|\.{1,2}/[^"]+)\"""")


def test_each_is_in_the_wheel():
    setup = configparser.ConfigParser()
    setup.read(PACKAGE.parent / "setup.cfg")
    patterns = setup["options.package_data"]["ari_conf"].split()
    # A `*` in package_data stands for one folder or file, and not for several.
    kept = {str(path.relative_to(PACKAGE)) for path in FILES}
    matched = {name for name in kept for p in patterns if fnmatch(name, p) and name.count("/") == p.count("/")}
    assert kept == matched


def test_each_names_only_what_is_there():
    found = 0
    for path in FILES:
        if path.suffix not in (".html", ".js", ".mjs", ".css"):
            continue
        for name in NAMED.findall(path.read_text()):
            found += 1
            there = FOLDER / name.removeprefix("/static/") if name.startswith("/") else path.parent / name
            assert there.is_file(), f"{path}: {name}"
    assert found > 50


def test_nothing_stands_inline():
    """The page's rules forbid inline code: a browser would ignore it."""
    for path in FOLDER.glob("*.html"):
        assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", path.read_text()), path


def test_the_vendored_say_their_version_and_licence():
    response = (FOLDER / "vendor/README.md").read_text()
    for path in (FOLDER / "vendor").glob("*.mjs"):
        assert re.search(rf"\| {path.name} \| \S+ \d+\.\d+\.\d+ \|.*\| \S+, \w+\.LICENSE \|", response)

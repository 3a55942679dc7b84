"""Tests of the statements in README.md."""

import re
import subprocess
from pathlib import Path

from ari_conf.documents import parser

PROJECT = Path(__file__).parents[1]
README = PROJECT / "README.md"
SECTIONS = ("Quick start", "Features", "How it fits together", "Documentation", "Tests", "License")


def test_its_sections_come_in_the_order_in_which_a_newcomer_needs_them():
    found = re.findall(r"^## (.*)$", README.read_text(), re.MULTILINE)
    assert [section for section in found if section in SECTIONS] == list(SECTIONS)


def test_named_files_exist():
    names = re.findall(r"`((?:ari_conf|tasks|asterisk|demo|documents|tests|tools)/[\w/.]*)[ `]", README.read_text())
    assert names and not [name for name in names if not (PROJECT / name).exists()]


def test_named_make_targets_exist():
    said = subprocess.run(["make", "-C", PROJECT, "help"], capture_output=True, text=True, check=True).stdout
    assert {"demo", "up", "test"} <= set(re.findall(r"make (\w+)", said))


def test_its_documents_can_be_run():
    for example in re.findall(r"```xml\n(.*?)```", README.read_text(), re.DOTALL):
        assert parser.parse(example.encode()).warnings == ()


def test_the_kept_documents_can_be_run():
    kept = sorted((PROJECT / "documents").glob("*.xml"))
    assert kept and [path.name for path in kept if parser.parse(path.read_bytes()).warnings] == []

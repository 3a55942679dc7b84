"""The project's address and its maintainer are set in setup.cfg, and nowhere else."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tools import identity

SELF = {"setup.cfg", "tests/tools/test_identity.py"}


def test_every_place_names_what_setup_cfg_says() -> None:
    assert list(identity.changed(identity.read())) == [], "run `python -m tools.identity`"


def test_no_other_file_names_it() -> None:
    found = subprocess.run(
        ["git", "grep", "-lF", *(f"-e{word}" for word in identity.read())],
        cwd=identity.PROJECT, stdout=subprocess.PIPE, text=True, check=True,
    ).stdout.split()  # fmt: skip
    assert set(found) - SELF <= set(identity.places(identity.read()))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for name in ("setup.cfg", *identity.places(identity.read())):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(identity.PROJECT / name, tmp_path / name)
    return tmp_path


def test_a_new_address_and_maintainer_reach_each_file(copy: Path) -> None:
    new = identity.Identity("https://git.example.com/a\\1.git", "Ann Example <ann@example.com>")
    found = dict(identity.changed(new, copy))
    assert {str(path.relative_to(copy)) for path in found} == set(identity.places(new))
    for path, text in found.items():
        assert new.repository in text or new.maintainer in text
        path.write_text(text)
    assert not list(identity.changed(new, copy))
    for path, text in identity.changed(identity.read(), copy):
        assert text == (identity.PROJECT / path.relative_to(copy)).read_text()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (identity.read().repository, "two words", "an address without spaces"),
        (identity.read().repository, "$(reboot)", "an address without spaces"),
        (identity.read().maintainer, "Ann", "expected NAME <ADDRESS>"),
    ],
)
def test_unusable_values_are_refused(copy: Path, old: str, new: str, words: str) -> None:
    config = copy / "setup.cfg"
    config.write_text(config.read_text().replace(old, new))
    with pytest.raises(ValueError, match=words):
        identity.read(copy)

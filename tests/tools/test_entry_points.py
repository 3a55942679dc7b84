"""Tests that each program of the project answers `--help` with its usage, and does nothing else."""

import re
import subprocess
import sys

import pytest

from tools.links import PROJECT

LIBFUZZERS = {"tests.fuzz.one"}
"""Programs whose command line is libFuzzer's, and which `make fuzz` alone installs."""


def programs() -> list[str]:
    """Return the modules that run as `python -m MODULE`."""
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=PROJECT, capture_output=True, text=True, check=True)
    found = (
        path
        for path in listed.stdout.splitlines()
        if re.search("^if __name__ ==", (PROJECT / path).read_text(), re.M) or path.endswith("/__main__.py")
    )
    modules = {path.removesuffix(".py").removesuffix("/__main__").replace("/", ".") for path in found}
    return sorted(modules - LIBFUZZERS)


@pytest.mark.parametrize("module", programs())
def test_help_shows_the_usage_of_a_program(module: str):
    command = [sys.executable, "-m", module, "--help"]
    result = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0 and "usage:" in result.stdout.lower(), result.stderr[-500:]


@pytest.mark.parametrize(
    "script", ["asterisk/configure", "asterisk/get", "asterisk/run-in", "debian/build", "debian/root"]
)
def test_help_shows_the_usage_of_a_script(script: str):
    command = [str(PROJECT / script), "--help"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0 and script in result.stdout, result.stderr[-500:]

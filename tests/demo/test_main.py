"""The command-line arguments of `python -m demo`."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(("word", "code"), [("--help", 0), ("-h", 0), ("--folder", 2)])
def test_arguments_start_nothing(word: str, code: int) -> None:
    done = subprocess.run([sys.executable, "-m", "demo", word], capture_output=True, text=True, timeout=60)
    assert done.returncode == code
    assert done.stdout.startswith("usage: python -m demo\n\n`make demo` and `ari-conf demo`: three callers")

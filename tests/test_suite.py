"""Tests of the test run: several processes run the tests and one prints the count, the failures and the table."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[1]
CONFTEST = "from tests.conftest import pytest_collection_modifyitems, pytest_configure  # noqa: F401\n"
ROWS = """
import pytest
from tests.integration import table

@pytest.mark.row("{name}", "first")
def test_first(request):
    request.node.stash[table.SEEN], request.node.stash[table.ASTERISK] = ["a tone", "silence"], "Asterisk 22"

@pytest.fixture
def leaves_something():
    yield
    assert False, "a channel is left"

@pytest.mark.row("{name}", "second")
def test_second(leaves_something): pass
"""


def run(folder: Path, files: dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "tox.ini").write_text("[pytest]\n")
    (folder / "conftest.py").write_text(CONFTEST)
    for name, text in files.items():
        (folder / name).write_text(text)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--numprocesses", "2"]
    command += ["--dist", "loadscope", "--no-loadscope-reorder", "-o", "console_output_style=classic"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment["PYTHONPATH"] = os.pathsep.join([str(PROJECT), environment.get("PYTHONPATH", "")])
    environment["CONFORMANCE_TABLE"] = str(folder / "table.md")
    return subprocess.run([*command, *options], cwd=folder, env=environment, capture_output=True, text=True)


def test_the_count_is_of_all_and_the_table_has_the_rows_of_all_in_their_order(tmp_path: Path) -> None:
    done = run(tmp_path, {f"test_{name}.py": ROWS.format(name=name) for name in "ab"})
    assert done.returncode == 1
    assert re.search(r"=+ 4 passed, 2 errors in .*=\n\Z", done.stdout), done.stdout
    assert done.stdout.count("E       AssertionError: a channel is left") == 2
    for line in ("FAILED (teardown) test_a.py::test_second", "FAILED (teardown) test_b.py::test_second"):
        assert line in done.stdout
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert "Asterisk 22, " in lines[4] and "2 of 4 rows hold" in lines[4]
    seen, nothing = "a tone; silence | yes |", " | NO |"
    assert lines[-4:] == [
        f"| a | first | {seen}", f"| a | second | {nothing}", f"| b | first | {seen}", f"| b | second | {nothing}"
    ]  # fmt: skip


def test_a_process_that_dies_fails_what_it_ran_and_the_rest_goes_on(tmp_path: Path) -> None:
    dies = "import os\ndef test_dies(): os._exit(3)\ndef test_after(): pass\n"
    done = run(tmp_path, {"test_a.py": dies, "test_b.py": "def test_well(): pass\n"})
    assert done.returncode == 1
    assert re.search(r"=+ 1 failed, 2 passed in .*=\n\Z", done.stdout), done.stdout
    assert re.search(r"worker 'gw\d' crashed while running 'test_a.py::test_dies'", done.stdout)


def test_the_running_scenarios_are_printed(tmp_path: Path) -> None:
    done = run(tmp_path, {f"test_{name}.py": "def test_one(): pass\n" for name in "ab"})
    assert done.returncode == 0
    for file in ("test_a.py", "test_b.py"):
        assert re.search(rf"^ +\d+:\d\d +\d of 2 gw\d {file}$", done.stdout, re.MULTILINE), done.stdout


def test_long_scenarios_start_first(tmp_path: Path) -> None:
    (tmp_path / "tests" / "bench").mkdir(parents=True)
    files = dict.fromkeys(("test_a.py", "tests/bench/test_b.py"), "def test_one(): pass\n")
    done = run(tmp_path, files, "--numprocesses", "1")
    assert done.stdout.index("gw0 tests/bench/test_b.py") < done.stdout.index("gw0 test_a.py"), done.stdout

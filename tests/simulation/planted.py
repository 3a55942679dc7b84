"""Bugs planted into a copy of the core, one at a time; for each the plays or the simulation must fail.

`python -m tests.simulation.planted` prints the table; with words, only the bugs whose promise contains one of them.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.simulation.bugs import ATTRIBUTES, BUGS, Bug

ROOT = Path(__file__).parents[2]
PROMISE = "a promise does not hold:"
SIMULATED = {
    "smooth": "test_simulation import long_courses as run; run('smooth', SEEDS)",
    "phones": "test_simulation import long_courses as run; run('phones', SEEDS)",
    "rough": "test_simulation import long_courses as run; run('rough', SEEDS)",
    "commanded": "test_commands import commanded_courses as run; run(15 * SEEDS)",
    "broken": "test_broken_steps import broken_courses as run; run(SEEDS)",
    "placed": "test_simulation import long_courses as run; run('placed', SEEDS)",
    "cut placed": "test_placed_crashes import cut_placed_courses as run; run(20, 5)",
    "cut": "test_crashes import cut_courses as run; run(14, 9)",
    "calls": "test_live_commands import command_courses as run; run(SEEDS)",
    "dials": "test_dials import dial_courses as run; run('smooth', SEEDS)",
    "rough dials": "test_dials import dial_courses as run; run('rough', SEEDS)",
    "cut dials": "test_dials import cut_dial_courses as run; run(range(20), 5)",
    "cut calls": "test_crashes import LIVE, cut_courses as run; run(14, 9, LIVE)",
}
SIMULATE = f"""
import sys, traceback
SEEDS = {{seeds}}
try:
    from tests.simulation.{{run}}
except AssertionError as error:
    # One of the core's own, or any other exception, says that it breaks, and not that a promise is seen to be broken.
    if "/tests/" in traceback.extract_tb(error.__traceback__)[-1].filename:
        print("{PROMISE}", error, *error.__notes__)
    raise
"""
SEEDS = 60
DEADLINE_S = 120


@dataclass(frozen=True)
class Verdict:
    bug: Bug
    caught: bool
    words: str
    """The failure that caught the bug, or the reason why none did."""
    seconds: float


def plant(bug: Bug) -> str:
    """Return the module's text with the bug in it. Raises LookupError if the code has changed: then correct the bug."""
    path = ROOT / "ari_conf/core" / bug.module
    text = path.read_text()
    if (times := text.count(bug.old)) != 1:
        raise LookupError(
            f"{bug.promise}: the text to be replaced stands {times} times in core/{bug.module}, and must stand there "
            f"once. The code has changed: mend the bug in tests/simulation/bugs.py. The text:\n{bug.old}"
        )
    return text.replace(bug.old, bug.new)


def judge(bug: Bug) -> Verdict:
    began = time.monotonic()
    try:
        text = plant(bug)
        compile(text, bug.module, "exec")
    except (LookupError, SyntaxError) as error:
        return Verdict(bug, False, str(error), 0.0)
    with tempfile.TemporaryDirectory(prefix="ari_conf-planted-") as folder:
        _copy(Path(folder))
        (Path(folder) / "ari_conf/core" / bug.module).write_text(text)
        caught, words = _run(Path(folder), bug.by)
    return Verdict(bug, caught, words, time.monotonic() - began)


def _copy(folder: Path) -> None:
    without = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "ari_conf/core", folder / "ari_conf/core", ignore=without)
    (folder / "ari_conf/__init__.py").touch()
    (folder / "ari_conf/store").mkdir()
    (folder / "ari_conf/store/__init__.py").touch()
    shutil.copy(ROOT / "ari_conf/store/state_codec.py", folder / "ari_conf/store")
    for part in ("core", "fakes", "simulation"):
        shutil.copytree(ROOT / "tests" / part, folder / "tests" / part, ignore=without)
    (folder / "tests/__init__.py").touch()


def _run(folder: Path, by: str) -> tuple[bool, str]:
    plays = ("-q", "--maxfail=3", "-p", "no:cacheprovider", "--tb=line", f"tests/core/{by}.py")
    command = [sys.executable, "-m", "pytest", *plays]
    if by in SIMULATED:
        command = [sys.executable, "-c", SIMULATE.format(run=SIMULATED[by], seeds=SEEDS)]
    else:
        (folder / "tox.ini").write_text("[pytest]\n")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "PYTHONPATH", "COV"))}
    environment |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0"}
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=DEADLINE_S, check=False
        )
    except subprocess.TimeoutExpired:
        return False, f"{by}: not ended after {DEADLINE_S} s"
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()] or [""]
    if by in SIMULATED:
        found = [line for line in lines if line.startswith(PROMISE)]
    else:
        # Only a failure in a line of the tests counts: a core that raises does not show a broken promise.
        found = [line for line in lines if re.match(rf"{re.escape(str(folder))}/tests/\S+:\d+: ", line)]
    return done.returncode == 1 and bool(found), found[0].removeprefix(f"{folder}/") if found else lines[-1]


def judge_all(bugs: tuple[Bug, ...] = BUGS) -> list[Verdict]:
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        return list(pool.map(judge, bugs))


def table(verdicts: list[Verdict]) -> str:
    rows = [f"| {'':6} | {'promise':58} | {'by':28} | {'s':>4} | what was seen"]
    for v in verdicts:
        seen = "caught" if v.caught else "MISSED"
        rows.append(f"| {seen:6} | {v.bug.promise[:58]:58} | {v.bug.by:28} | {v.seconds:4.1f} | {v.words[:100]}")
    return "\n".join([*rows, f"{sum(v.caught for v in verdicts)} of {len(verdicts)} planted bugs are caught"])


def fewer_than_two() -> list[str]:
    """Attributes of Conference with fewer than two bugs."""
    return [name for name in ATTRIBUTES if sum(name in bug.promise.split(":")[0].split(", ") for bug in BUGS) < 2]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*")
    words = parser.parse_args().words
    verdicts = judge_all(tuple(b for b in BUGS if not words or any(w in b.promise for w in words)))
    print(table(verdicts))
    sys.exit(not all(v.caught for v in verdicts))

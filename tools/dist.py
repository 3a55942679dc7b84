"""Build the sdist and the wheel, with the manual pages and the completion of shells.

    python -m tools.dist [FOLDER]          # FOLDER: dist

It builds from a copy of the files that git tracks. So nothing is left in the source, and no other file gets into a
package. The times in the packages are that of the last commit, or SOURCE_DATE_EPOCH, so a commit always gives the same
wheel.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tools import completion

PROJECT = Path(__file__).parents[1]


class BuildFailed(Exception):
    """The text has the end of the output."""


def build(folder: Path) -> list[Path]:
    """Build both into the folder, and return their paths. Raises BuildFailed."""
    times = {"SOURCE_DATE_EPOCH": _git("log", "-1", "--format=%ct").strip()}
    environment = times | os.environ
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as place:
        source, built = Path(place) / "source", Path(place) / "built"
        for name in _git("ls-files", "-z").split("\0"):
            if (PROJECT / name).is_file():
                (source / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(PROJECT / name, source / name)
        # The sdist has all of it, so that it can be changed and tested.
        (source / "MANIFEST.in").write_text("graft .\n")
        # In a process of its own, since the date is in its environment.
        _run([sys.executable, "-m", "tools.man", str(source / "share" / "man" / "man1")], environment)
        completion.write(source / "share", completion.INSTALLED)
        _run([sys.executable, "-m", "build", "--outdir", str(built), str(source)], environment)
        return [Path(shutil.copy(path, folder)) for path in sorted(built.iterdir())]


def _git(*words: str) -> str:
    try:
        return subprocess.run(["git", *words], cwd=PROJECT, stdout=subprocess.PIPE, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise BuildFailed(f"the list of files comes from git: {error}") from None


def _run(command: list[str], environment: dict[str, str]) -> None:
    ran = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True)
    if ran.returncode:
        raise BuildFailed(f"{' '.join(command)}:\n{ran.stdout[-2000:]}{ran.stderr[-2000:]}")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tools.dist", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?", default=PROJECT / "dist")
    try:
        for path in build(parser.parse_args().folder):
            print(path)
    except BuildFailed as failed:
        sys.exit(f"tools/dist: {failed}")


if __name__ == "__main__":
    main()

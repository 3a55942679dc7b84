"""`python -m tools.reference` writes the pages; with `--check` it exits with status 1 and names outdated pages."""

from __future__ import annotations

import argparse
import sys

from tools import reference
from tools.reference.markdown import IncompleteTable


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.reference", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with status 1 if a page is outdated")
    try:
        if not parser.parse_args().check:
            reference.write()
        elif outdated := reference.outdated():
            sys.exit(f"docs/reference: not current: {', '.join(outdated)}; run `python -m tools.reference`")
    except IncompleteTable as error:
        sys.exit(f"tools/reference: {error}")


if __name__ == "__main__":
    main()

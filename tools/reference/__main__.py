"""`python -m tools.reference` writes the pages and diagrams; with `--check` it exits with status 1 and names outdated
pages."""

from __future__ import annotations

import argparse
import sys

from tools import reference
from tools.reference import state_diagrams
from tools.reference.markdown import IncompleteTable


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.reference", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with status 1 if a page is outdated")
    try:
        if not parser.parse_args().check:
            reference.write()
            state_diagrams.write()
        elif outdated := [*reference.outdated(), *([] if state_diagrams.is_current() else [state_diagrams.PAGE.name])]:
            sys.exit(f"docs: not current: {', '.join(outdated)}; run `python -m tools.reference`")
    except IncompleteTable as error:
        sys.exit(f"tools/reference: {error}")


if __name__ == "__main__":
    main()

"""Entry point of `ari-conf` and `python -m ari_conf`."""

from __future__ import annotations

import sys

from ari_conf.common.safe_text import visible
from ari_conf.errors import AriConfError


def main() -> None:
    """Run a command. Exit codes: 0 success; 1 failure, with the reason in a sentence on stderr; 2 wrong usage."""
    try:
        if sys.argv[1:] == ["serve"]:
            # Calls wait while `serve` restarts, so it does not load the libraries of the command line.
            from ari_conf.cli.processes import serve

            serve()
        else:
            from ari_conf.cli.main import app

            app(prog_name="ari-conf")
    except AriConfError as error:
        # The text may quote another server.
        print(f"ari-conf: {visible(str(error), lines=True)}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()

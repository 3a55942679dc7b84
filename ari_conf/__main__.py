"""`ari-conf`, `python -m ari_conf`."""

from __future__ import annotations

import sys

from ari_conf.errors import AriConfError
from ari_conf.visible import visible


def main() -> None:
    """Exit codes: 0 done; 1 it could not be done, and a sentence on stderr says why; 2 wrong usage."""
    try:
        if sys.argv[1:] == ["serve"]:
            # The one that is restarted while calls wait: without the time that the command line's libraries take.
            from ari_conf.commands.serve import serve

            serve()
        else:
            from ari_conf.cli import app

            app(prog_name="ari-conf")
    except AriConfError as error:
        # It may quote what another server said.
        print(f"ari-conf: {visible(str(error), lines=True)}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()

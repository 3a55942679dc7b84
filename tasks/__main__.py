"""`python -m tasks OPTIONS`: the worker of `ari-conf worker`, which is `celery -A tasks worker OPTIONS`.

Workers have nothing to tell each other, since they find their work in Redis: so they start without gossip and mingle.
"""

import sys
from pathlib import Path

if not __package__:
    # `ari-conf worker` runs this file by its path, so that no other `tasks` in sys.path is taken for this package.
    here = Path(__file__).parent
    sys.path = [str(here.parent), *(folder for folder in sys.path if folder != str(here))]
    import tasks  # noqa: F401

    del sys.path[0]
    __package__ = "tasks"  # Celery's usage shows it

from celery.__main__ import main  # type: ignore[import-untyped]

OPTIONS = ["-A", "tasks", "worker", "--without-gossip", "--without-mingle"]
# At SIGHUP, Celery runs argv again, which then begins with them.
if sys.argv[1 : 1 + len(OPTIONS)] != OPTIONS:
    sys.argv[1:1] = OPTIONS
main()

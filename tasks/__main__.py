"""`python -m tasks OPTIONS`: the worker of `ari-conf worker`, which is `celery -A tasks worker OPTIONS`.

Workers have nothing to tell each other, since they find their work in Redis: so they start without gossip and mingle.
"""

import sys

from celery.__main__ import main  # type: ignore[import-untyped]

sys.argv[1:1] = ["-A", "tasks", "worker", "--without-gossip", "--without-mingle"]
main()

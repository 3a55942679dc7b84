"""Limits of dialing that scripts share with Python: whole numbers only."""

from __future__ import annotations

MINUTE_MS = 60_000
DAY_MS = 86_400_000
PENDING_MS = 30_000
"""Milliseconds for which an admitted call counts until the server has it: longer than any command is executed, so that
a web process which dies after the admission blocks no slot for long."""
MAX_DELAY_MS = 60_000
"""Maximum milliseconds that a call waits because its trunk places only so many calls per second."""
SLACK_MS = 60_000
"""Milliseconds for which a call counts beyond the end of its time limit, if the server has not reported its end."""
KEPT_MS = 2 * DAY_MS
"""Milliseconds after which the records of an account or trunk without calls are deleted: longer than any call."""

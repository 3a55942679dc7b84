"""How late this machine is: what is promised within a second can't be seen within one where nothing runs in time."""

from __future__ import annotations

import threading
import time

LOOK_S = 0.01


class Lateness:
    """Of threads of this process, which is also the one that serves: the sum of the delays that one of them meets."""

    def __init__(self) -> None:
        self._total = 0.0
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        while True:
            began = time.monotonic()
            time.sleep(LOOK_S)
            self._total += time.monotonic() - began - LOOK_S

    def now(self) -> float:
        """Seconds until now; the difference of two is how much of the time between them was the machine's."""
        return self._total


lateness = Lateness()

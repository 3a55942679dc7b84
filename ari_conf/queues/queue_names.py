"""The queues of workers: the one list that the worker, its check, the doctor, the metrics and the documentation read.

A new queue is one line in QUEUE_BY_TASK, and its task in `tasks`.
"""

from __future__ import annotations

CALLBACKS, RECORDINGS, TRANSCRIPTIONS = "callbacks", "recordings", "transcriptions"
REMOVALS, HISTORY = "removals", "history"
QUEUE_BY_TASK = {
    "ari_conf.callback": CALLBACKS,
    "ari_conf.recording": RECORDINGS,
    "ari_conf.transcription": TRANSCRIPTIONS,
    "ari_conf.removal": REMOVALS,
    "ari_conf.history": HISTORY,
}
"""Queue of each task of the workers."""
ALL = tuple(QUEUE_BY_TASK.values())
"""The queues that a worker without `-Q` consumes."""

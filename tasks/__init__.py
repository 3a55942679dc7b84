"""The Celery application: `celery -A tasks worker`."""

from tasks import memory

memory.reduce_memory()

from tasks.app import app  # noqa: E402

__all__ = ["app"]

"""The Celery application: `celery -A tasks worker`."""

from tasks.app import app

__all__ = ["app"]

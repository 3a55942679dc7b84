"""Prefixes of all keys of ari_conf in Redis."""

PREFIX = "ari_conf:"
CELERYS_PREFIX = PREFIX + "celery:"
"""Prefix of all of Celery's keys and channels, so that a Redis ACL can name everything by PREFIX alone."""

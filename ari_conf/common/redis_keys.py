"""Prefixes of all keys of ari_conf in Redis."""

PREFIX = "ari_conf:"
CELERYS_PREFIX = PREFIX + "celery:"
"""Prefix of all of Celery's keys and channels, so that a Redis ACL can name everything by PREFIX alone."""
PENDING_RESULTS_KEY = PREFIX + "pending-results"
"""Key of the results that asynchronous API calls owe: see `web.async_calls`."""
STATE_VERSION_KEY = PREFIX + "state-version"
"""Key of the version of all that is in Redis: see `state_version`."""

"""Limits of the partitioned queue. The Lua scripts in `queues/scripts` apply them."""

MAX_PARTITION_ENTRIES = 10_000
"""Maximum callbacks in one partition; further ones are dropped, and reported in the account's problems."""
MAX_ACCOUNT_ENTRIES = 100_000
MAX_ACCOUNT_MB = 256
"""Maximum undelivered callbacks of one account, and their maximum size in MB (1024 * 1024 bytes); likewise."""
MAX_DEAD_LETTER_BYTES = 64 * 1024**2
"""Maximum bytes of an account's dead letters in Redis' memory; the oldest are removed."""
MAX_INBOX_ENTRIES = 200_000
MAX_INBOX_BYTES = 128 * 1024**2
"""Maximum entries of an account, and their maximum bytes, that wait for the history's database; the oldest are removed.
"""
RECOUNT_INTERVAL_MS = 60_000
"""Minimum milliseconds between two counts of an account's undelivered callbacks, whose running count may be wrong."""
PROBLEMS_TTL_MS = 90 * 24 * 3600 * 1000
UNKNOWN_ACCOUNT_PROBLEMS_TTL_MS = 24 * 3600 * 1000
"""Milliseconds to keep problems after the latest: of an account, and of a name that no account has, such as a typo."""
MAX_UNKNOWN_ACCOUNTS = 1000
"""Maximum names that no account has, under which problems are kept: the newest."""
MAX_RECEIVER_FAILURES = 60
RECEIVER_FAILURE_MS = 500
"""Requests to one receiver of an account that may fail in a row; then one is allowed every RECEIVER_FAILURE_MS."""
MAX_ACCOUNT_FAILURES = 300
ACCOUNT_FAILURE_MS = 100
"""The same for all failing receivers of an account together: each name and port of one server is a receiver."""
GIVE_UP_MS = 60_000
"""Milliseconds of failures after which no callback waits for a receiver; all attempts of a callback take less."""
MAX_RECEIVERS_PER_CLAIM = 200
"""Maximum receivers of an account that are examined in one claim; the next claim continues with others."""

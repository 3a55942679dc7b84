"""History: what has ended, in a database: calls, conferences, members, recordings, callbacks and problems.

Workers write it (`tasks.history`); the web process reads it (`queries`). `ari-conf serve` has nothing to do with it.
"""

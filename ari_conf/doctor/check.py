"""Results of a check, as exceptions, and its deadline."""

DEADLINE = 5.0
"""Seconds to wait for each response."""


class CheckFailed(Exception):
    """Failure that makes calls, callbacks or recordings fail. The text says what is wrong and what to do."""


class Doubtful(Exception):
    """Warning. The text says what may go wrong, or what could not be checked, and what to do."""

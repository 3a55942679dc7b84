"""What a check says."""

DEADLINE = 5.0
"""Seconds for each answer."""


class Wrong(Exception):
    """The text says what is wrong and what to do: calls, callbacks or recordings fail because of it."""


class Doubtful(Exception):
    """The text says what may go wrong, or what could not be looked at, and what to do."""

"""What a check says."""

DEADLINE = 5.0
"""Seconds for each answer."""


class Wrong(Exception):
    """The text says what is wrong and what to do."""

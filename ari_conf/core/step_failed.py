"""Failure of a step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from ari_conf.core.effects import Effect
from ari_conf.core.events import Event


class StepFailed(Exception):
    """A step raised, which is a bug; the exception is the cause.

    The calls and conferences that the step touched are in an inconsistent state: `Engine.abort_failed_step` ends them.
    """

    def __init__(self, *, decided: list[Effect] | None = None) -> None:
        super().__init__("a step raised")
        self.event: Event | None = None
        """The event of the step; None: the step repeated effects."""
        self.effects_before: Sequence[Effect] = ()
        """Effects of the steps before the failed one, if the event led to several steps."""
        self.decided = decided
        """Effects of the failed step if all of them were decided, so that only the indexes are out of date."""

    @classmethod
    def of(cls, error: Exception) -> Self:
        """Return the error itself if it is a StepFailed, and otherwise one that has it as its cause."""
        if isinstance(error, cls):
            return error
        failure = cls()
        failure.__cause__ = error
        return failure

"""Attempt to place a call over one trunk."""

from __future__ import annotations

from ari_conf.core.placing import DialAttempt

__all__ = ["DialAttempt"]

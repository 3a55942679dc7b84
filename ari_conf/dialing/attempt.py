"""Attempt to place a call over one trunk."""

from __future__ import annotations

from ari_conf.core.frozen import Frozen


class DialAttempt(Frozen):
    trunk: str
    """Name of the trunk, for limits, metrics and logs."""
    endpoint: str
    """Dial string, such as PJSIP/15551234@provider."""

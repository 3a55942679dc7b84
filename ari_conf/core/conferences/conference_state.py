"""States of a conference's name claim and of its bridge, and what all members' audio depends on."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class ClaimState(StrEnum):
    """State of the claim to the conference's name, which one server at a time has."""

    REQUESTED = "requested"
    """ClaimName has no result yet. A claim gets only one result, so the conference waits for it even if it ends."""
    GRANTED = "granted"
    """The name is this conference's."""
    RELEASED = "released"
    """The claim was refused, or the name is free again."""


class BridgeState(StrEnum):
    NONE = "none"
    """Not requested yet."""
    CREATING = "creating"
    """CreateBridge is in progress."""
    READY = "ready"
    """Asterisk has created it."""
    DESTROYING = "destroying"
    """DestroyBridge is in progress, and repeated until the bridge no longer exists."""
    DESTROYED = "destroyed"
    """No longer exists."""


class SharedAudioState(NamedTuple):
    """Everything that a member's media state depends on, apart from that member."""

    started: bool
    ending: bool
    bridge_ready: bool
    one_member_present: bool

"""States of a member, and the transitions between them."""

from __future__ import annotations

from enum import StrEnum

from ari_conf.core.transitions import Transitions


class MemberState(StrEnum):
    AWAITING_NAME = "awaiting_name"
    """The conference's name is being claimed. The member is not admitted yet."""
    WAITING = "waiting"
    """Waits for the conference to start, and hears the wait sound."""
    AWAITING_BRIDGE = "awaiting_bridge"
    """Waits for the bridge to exist."""
    ENTERING_BRIDGE = "entering_bridge"
    """AddChannel is in progress."""
    IN_BRIDGE = "in_bridge"
    """Hears the others and is heard."""
    LEAVING_FOR_HOLD = "leaving_for_hold"
    """Leaves the bridge to go on hold."""
    ON_HOLD = "on_hold"
    """Outside the bridge at the API's request: hears music, and is still a member."""
    LEAVING = "leaving"
    """Leaves the conference; the channel may still be in the bridge."""
    LEFT = "left"
    """No member any more."""


(
    AWAITING_NAME,
    WAITING,
    AWAITING_BRIDGE,
    ENTERING_BRIDGE,
    IN_BRIDGE,
    LEAVING_FOR_HOLD,
    ON_HOLD,
    LEAVING,
    LEFT,
) = MemberState
"""The states as constants, because an access by the class takes ten times as long."""

TRANSITIONS: Transitions[MemberState] = {
    AWAITING_NAME: {
        WAITING: "name granted, enter callback",
        LEFT: "name refused, or hung up",
    },
    WAITING: {
        AWAITING_BRIDGE: "conference started",
        LEAVING: "exit reason",
    },
    AWAITING_BRIDGE: {
        ENTERING_BRIDGE: "bridge ready, AddChannel",
        ON_HOLD: "hold requested",
        LEAVING: "exit reason",
    },
    ENTERING_BRIDGE: {
        IN_BRIDGE: "ChannelEnteredBridge",
        LEAVING: "exit reason, or AddChannel failed",
    },
    IN_BRIDGE: {
        LEAVING_FOR_HOLD: "hold requested, RemoveChannel",
        AWAITING_BRIDGE: "outside after a failed re-entry",
        LEAVING: "exit reason, or removed by another",
    },
    LEAVING_FOR_HOLD: {
        AWAITING_BRIDGE: "ChannelLeftBridge",
        IN_BRIDGE: "RemoveChannel failed",
        LEAVING: "exit reason",
    },
    ON_HOLD: {
        AWAITING_BRIDGE: "hold ended",
        LEAVING: "exit reason",
    },
    LEAVING: {
        LEFT: "outside the bridge, or hung up",
    },
    LEFT: {},
}

"""States of a call, and which may follow which."""

from __future__ import annotations

from enum import StrEnum

from ari_conf.core.transitions import Transitions


class CallState(StrEnum):
    IDENTIFYING = "identifying"
    """The account and the headers of the call are being looked up."""
    FETCHING = "fetching"
    """A document is being requested."""
    RUNNING = "running"
    """An element of the document runs, other than Conference."""
    IN_CONFERENCE = "in_conference"
    """A Conference element runs: the call has asked to join, or is a member."""
    HANGING_UP = "hanging_up"
    """Asterisk has been asked to hang up, until it confirms that the channel no longer exists."""
    ENDED = "ended"
    """The channel no longer exists."""


# Constants, because Python 3.11 looks up `CallState.ENDED` in Python code, which costs as much as a call of a function.
IDENTIFYING, FETCHING, RUNNING, IN_CONFERENCE, HANGING_UP, ENDED = CallState

TRANSITIONS: Transitions[CallState] = {
    IDENTIFYING: {
        FETCHING: "CallIdentified",
        HANGING_UP: "no account, no document",
        ENDED: "ChannelHungUp",
    },
    FETCHING: {
        FETCHING: "DocumentFailed, fallback URL; transfer",
        RUNNING: "DocumentFetched",
        IN_CONFERENCE: "DocumentFetched, Conference",
        HANGING_UP: "DocumentFailed, no fallback",
        ENDED: "ChannelHungUp",
    },
    RUNNING: {
        RUNNING: "next element",
        FETCHING: "Redirect, action of GetDigits, transfer",
        IN_CONFERENCE: "Conference",
        HANGING_UP: "no element left, Hangup",
        ENDED: "ChannelHungUp",
    },
    IN_CONFERENCE: {
        IN_CONFERENCE: "next Conference",
        RUNNING: "MemberReleased, JoinSkipped",
        FETCHING: "MemberReleased, action or transfer",
        HANGING_UP: "API, Hangup schedule",
        ENDED: "ChannelHungUp",
    },
    HANGING_UP: {ENDED: "ChannelHungUp"},
    ENDED: {},
}

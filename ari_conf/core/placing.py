"""Placing: orders to place calls, as plain data: destination, ways to reach it, and what happens then.

The API sends them in the command `PlaceCalls`; `calls/outgoing.py` has the state of such a call.
"""

from __future__ import annotations

from typing import Literal

from ari_conf.core.elements import Conference
from ari_conf.core.frozen import Frozen

RING_TIMEOUT_S, TIME_LIMIT_S, MAX_TIME_LIMIT_S = 120, 14_400, 86_400
"""Plivo's defaults for ring_timeout and time_limit, and the most that a time_limit may be."""
RINGBACK = "ring:1"
"""Tone that stands for the ringing of the far phone."""
MAX_DESTINATIONS = 1000
"""Destinations of one request: Plivo's limit."""


class DialAttempt(Frozen):
    """One way to reach the destination. A call tries its ways in order, while they are congested."""

    trunk: str
    """Name of the trunk, for limits, metrics and logs."""
    endpoint: str
    """Dial string of Asterisk's, such as `PJSIP/15551234@provider`."""


class MachineDetectionSettings(Frozen):
    """Settings of answering-machine detection: the request's parameters `machine_detection…`."""

    if_machine: Literal["continue", "hangup"] = "continue"
    url: str | None = None
    """URL that is told the verdict while the document runs. None: the document is requested after the verdict."""
    method: str = "POST"
    time_ms: int = 5000
    """Milliseconds since the answer after which it is undecided."""
    maximum_speech_ms: int = 5000
    """Milliseconds of speech that a person's greeting may have in total."""
    initial_silence_ms: int = 4500
    """Milliseconds of silence before the greeting that a person may leave."""
    maximum_words: int = 3
    """Sentences that a person's greeting may have."""
    initial_greeting_ms: int = 1500
    """Milliseconds that a person may speak without a pause."""


class Confirmation(Frozen):
    """Key that the person who answers has to press: before, the call does not continue."""

    key: str
    """One of 0-9 * #."""
    sound_url: str | None = None
    """URL of the sound document that asks for the key. None: the server asks for it."""
    sound_method: str = "GET"
    timeout_s: int | None = None
    """Seconds after the prompt within which the key is awaited. None: KEY_TIMEOUT_S."""


class CallOptions(Frozen):
    """Parameters that the calls of one request have in common."""

    answer_url: str | None = None
    """URL of the document that runs when the call is answered. None: `conference` is joined instead."""
    answer_method: str = "POST"
    ring_url: str | None = None
    ring_method: str = "POST"
    hangup_url: str | None = None
    hangup_method: str = "POST"
    fallback_url: str | None = None
    fallback_method: str = "POST"
    conference: Conference | None = None
    """Element that runs when the call is answered, in place of a document."""
    ring_timeout_s: int = RING_TIMEOUT_S
    """Seconds after which a call that is not answered is canceled."""
    hangup_on_ring_s: int | None = None
    """Seconds from the beginning of the ringing until the call is canceled. None: it is not."""
    time_limit_s: int = TIME_LIMIT_S
    """Seconds from the answer on after which the call is hung up."""
    send_digits: str | None = None
    """Digits to send after the answer, with pauses: see `digit_sequence.py`."""
    headers: tuple[tuple[str, str], ...] = ()
    """X-PH-* headers of the INVITE, which are also parameters of each request about the call."""
    machine_detection: MachineDetectionSettings | None = None
    confirmation: Confirmation | None = None
    """None: the answer is enough."""
    is_race: bool = False
    """True: the calls of the request compete: the first that is answered and confirmed wins."""
    status_url: str | None = None
    """URL that is told CallInitiated, CallRinging, CallAnswered and CallCompleted."""
    status_method: str = "POST"
    dial_music: str | None = None
    """Sound that the members of `conference` hear until the call is answered or has ended: a tone, or a URL."""
    parent_call_uuid: str | None = None
    """Call of the account that these calls belong to, for the history."""


class CallToPlace(Frozen):
    call_uuid: str
    """UUID of the call, which is also that of its request: the API has replied with it before anything is dialed."""
    to: str
    from_: str
    """Number that the destination is shown."""
    caller_name: str
    attempts: tuple[DialAttempt, ...]
    """Ways to reach the destination, at least one."""
    time_limit_s: int | None = None
    """Time limit of the dialing policy, which counts if it is below that of the options. None: it has none."""
    delay_ms: int = 0
    """Milliseconds to wait before dialing, because the trunk places only so many calls per second."""

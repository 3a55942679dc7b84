"""Confirmation: the person who has answered a placed call presses a key, and only then the call continues.

It keeps voicemail, and children who answer, out of a conference; and of several calls that compete, the first that is
confirmed wins.
"""

from __future__ import annotations

from ari_conf.core.elements import GetDigits, Prompt, Speak
from ari_conf.core.placing import Confirmation

KEY_TIMEOUT_S = 5
"""Seconds after the prompt within which the key is awaited."""
ATTEMPTS = 3
"""Total number of times that the prompt is played."""
KEY_NAMES = {"*": "star", "#": "pound"}


def key_element(confirmation: Confirmation, prompt: tuple[Prompt, ...]) -> GetDigits:
    """Return the element that asks for the key. `prompt`: what the sound document has; possibly nothing."""
    key = confirmation.key
    spoken = Speak(f"You have a call. Press {KEY_NAMES.get(key, key)} to accept it.")
    return GetDigits(
        prompt or (spoken,),
        timeout=KEY_TIMEOUT_S if confirmation.timeout_s is None else confirmation.timeout_s,
        finish_on_key="",
        num_digits=1,
        retries=ATTEMPTS,
        valid_digits=key,
        log=False,
    )

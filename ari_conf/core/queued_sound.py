"""Queued sounds: what the API plays to a single call or member."""

from __future__ import annotations

from ari_conf.core.elements import Play, Speak
from ari_conf.core.frozen import Frozen


class SoundList(Frozen):
    """Sounds that the API plays as one: several, repeated together, or for a limited time."""

    sounds: tuple[Play | Speak, ...]
    loop: bool = False
    """True: the sounds are repeated until they are stopped."""
    length: int | None = None
    """Seconds for which the sounds are heard; None: no limit."""


QueuedSound = Play | Speak | SoundList


def sounds_of(queued: QueuedSound) -> tuple[Play | Speak, ...]:
    return queued.sounds if isinstance(queued, SoundList) else (queued,)


def is_of(queued: QueuedSound, kind: type[Play] | type[Speak]) -> bool:
    return all(isinstance(sound, kind) for sound in sounds_of(queued))


SOUND_TYPES: dict[str, type[Play] | type[Speak]] = {"Play": Play, "Speak": Speak}
"""Kinds of sounds, as commands name them."""

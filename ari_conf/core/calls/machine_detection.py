"""Answering-machine detection: decides from what is heard after the answer if a person or a machine has answered.

People say a few words and wait. Machines talk in long sentences, in many, or not at all at first, and end with a beep.
The events come from a listener on the call's channel (`ListenForMachine`); the numbers are those of the request.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from ari_conf.core.effects import Effect, ListenForMachine, Params
from ari_conf.core.events import (
    DeadlineReached,
    Event,
    ListeningFailed,
    ListeningStarted,
    PhraseEnded,
    PhraseStarted,
    ToneHeard,
)
from ari_conf.core.placing import MachineDetectionSettings

LAG_MS = 240
"""Milliseconds after which the end of a phrase is reported at the latest: a phrase that may already have ended is not
yet too long."""
SENTENCE_PAUSE_MS, SENTENCE_MS = 240, 200
"""Milliseconds of silence that separate sentences, and milliseconds of the shortest sentence."""
SILENCE_AFTER_GREETING_MS, SILENCE_PER_SPEECH, LONGEST_SILENCE_AFTER_GREETING_MS = 800, 0.4, 1600
"""Milliseconds of silence after which a greeting was a person's, plus this share of the greeting's speech, and at most
so many: after a longer greeting, a machine's beep may follow."""
TALKATIVE_SHARE = 0.4
"""Share of the longest speech from which it was a machine that spoke, if the time is over."""
CONTINUES_MS = 400
"""Milliseconds since the start of a new listener in which speech is taken for the phrase that the old one heard."""


class Verdict(StrEnum):
    HUMAN = "human"
    MACHINE = "machine"
    UNDECIDED = "undecided"
    """Treated as a person."""


class Reason(StrEnum):
    """Reason of a verdict."""

    SILENCE_AFTER_GREETING = "silence after the greeting"
    LONG_PHRASE = "a long phrase"
    MANY_SENTENCES = "many sentences"
    LONG_SPEECH = "long speech"
    INITIAL_SILENCE = "silence from the start"
    BEEP = "a beep"
    TIME = "time is over"
    NOT_HEARD = "nothing could be heard"


class MachineDetection(msgspec.Struct):
    """Detection of one call, from its answer on. Times are epoch milliseconds."""

    settings: MachineDetectionSettings
    channel_id: str
    call_uuid: str
    started_at: int
    listening_since: int | None = None
    """Time at which the first audio arrived; None: nothing is heard yet, or no longer."""
    interrupted: bool = False
    """True once another process has taken over: something may have been missed meanwhile."""
    speaking_since: int | None = None
    """Start of the phrase that is being spoken."""
    quiet_since: int | None = None
    """End of the latest phrase."""
    speech_ms: int = 0
    """Length of the phrases so far that have ended."""
    sentences: int = 0
    """Number of sentences that these phrases are."""
    sentence_ended_at: int | None = None
    """End of the latest of these phrases."""
    verdict: Verdict | None = None
    reason: Reason | None = None
    decided_at: int | None = None

    @property
    def is_decided(self) -> bool:
        return self.verdict is not None

    @property
    def is_machine(self) -> bool:
        return self.verdict is Verdict.MACHINE

    @property
    def holds_document(self) -> bool:
        """Return True while the document has to wait for the verdict."""
        return self.settings.url is None and not self.is_decided

    @property
    def params(self) -> Params:
        """Return the parameters of the request to machine_detection_url that the standard ones don't have."""
        told: Params = () if self.is_machine else (("Machine", "false"),)
        return (*told, ("IfMachine", self.settings.if_machine))

    @property
    def deadline(self) -> int | None:
        return None if self.is_decided else min(at for at, _, _ in self._due_times())

    def start(self) -> list[Effect]:
        return [ListenForMachine(self.channel_id, True, self.call_uuid)]

    def interrupt(self) -> None:
        """Note that the process that listened no longer exists: from now on, silence and time prove nothing until
        something is heard again."""
        self.interrupted, self.listening_since = True, None

    def resume(self) -> list[Effect]:
        """Return the effect that a process that takes over repeats."""
        return [] if self.is_decided else self.start()

    def handle_event(self, event: Event, now: int) -> list[Effect]:
        """Take the event in; afterwards, `is_decided` may be True."""
        if self.is_decided:
            return []
        match event:
            case ListeningStarted():
                self._on_listening(now)
            case ListeningFailed():
                return self._decide(Verdict.UNDECIDED, Reason.NOT_HEARD, now)
            case PhraseStarted(_, ago_ms):
                self._on_phrase_started(now - ago_ms, now)
            case PhraseEnded(_, ago_ms, is_speech):
                self._on_phrase_ended(now - ago_ms, is_speech)
            case ToneHeard():
                return self._decide(Verdict.MACHINE, Reason.BEEP, now)
            case DeadlineReached():
                pass
            case _:
                return []
        at, verdict, reason = min(self._due_times())
        return self._decide(verdict, reason, now) if at <= now else []

    def _on_listening(self, now: int) -> None:
        self.listening_since = now
        if self.interrupted and (self.quiet_since is not None or self.speaking_since is not None):
            # The silence that nobody listened to is no evidence.
            self.quiet_since = now

    def _on_phrase_started(self, at: int, now: int) -> None:
        if self.speaking_since is None:
            self.speaking_since = at
        elif self.interrupted and (self.listening_since or 0) + CONTINUES_MS < now:
            # The phrase that the old listener heard has ended unheard.
            self._on_phrase_ended(self.quiet_since or at, is_speech=True)
            self.speaking_since = at
        self.quiet_since = None

    def _on_phrase_ended(self, at: int, is_speech: bool) -> None:
        if self.speaking_since is None:
            return
        if is_speech:
            self.sentences += self._is_new_sentence(self.speaking_since)
            self.speech_ms += max(0, at - self.speaking_since)
            self.sentence_ended_at = at
        self.speaking_since = None
        if self.sentences:
            self.quiet_since = at

    def _is_new_sentence(self, started_at: int) -> bool:
        return self.sentence_ended_at is None or started_at - self.sentence_ended_at >= SENTENCE_PAUSE_MS

    def _decide(self, verdict: Verdict, reason: Reason, now: int) -> list[Effect]:
        self.verdict, self.reason, self.decided_at = verdict, reason, now
        return [ListenForMachine(self.channel_id, False, self.call_uuid)]

    def _due_times(self) -> list[tuple[int, Verdict, Reason]]:
        """Return what the verdict will be, and when, if nothing else is heard."""
        chosen = self.settings
        end = self.started_at + chosen.time_ms
        if self.listening_since is None:
            return [(end, Verdict.UNDECIDED, Reason.NOT_HEARD)]
        found = [(end, *self._verdict_at(end))]
        if self.quiet_since is not None:
            at = self.quiet_since + self._silence_of_a_person_ms()
            found.append((at, Verdict.HUMAN, Reason.SILENCE_AFTER_GREETING))
        elif self.speaking_since is not None:
            since = self.speaking_since
            found += [
                (since + chosen.initial_greeting_ms + LAG_MS, Verdict.MACHINE, Reason.LONG_PHRASE),
                (since + chosen.maximum_speech_ms - self.speech_ms + LAG_MS, Verdict.MACHINE, Reason.LONG_SPEECH),
            ]
            if self.sentences + self._is_new_sentence(since) > chosen.maximum_words:
                found.append((since + SENTENCE_MS + LAG_MS, Verdict.MACHINE, Reason.MANY_SENTENCES))
        elif not self.interrupted:
            at = self.listening_since + chosen.initial_silence_ms
            found.append((at, Verdict.MACHINE, Reason.INITIAL_SILENCE))
        return found

    def _verdict_at(self, end: int) -> tuple[Verdict, Reason]:
        """Return the verdict if nothing has decided until the end of the time."""
        speaking_ms = 0 if self.speaking_since is None else max(0, end - self.speaking_since)
        if self.speech_ms + speaking_ms >= TALKATIVE_SHARE * self.settings.maximum_speech_ms:
            return Verdict.MACHINE, Reason.LONG_SPEECH
        if speaking_ms >= self.settings.initial_greeting_ms:
            return Verdict.MACHINE, Reason.LONG_PHRASE
        return Verdict.UNDECIDED, Reason.TIME

    def _silence_of_a_person_ms(self) -> int:
        silence_ms = SILENCE_AFTER_GREETING_MS + int(SILENCE_PER_SPEECH * self.speech_ms)
        return min(silence_ms, LONGEST_SILENCE_AFTER_GREETING_MS)

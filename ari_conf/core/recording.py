"""Recording: what recordings of conferences and of calls have in common, from the request until the hand-over.

A recording has one or more tracks, each of which Asterisk writes to a file of its own. It has started once one of them
has, and has stopped once none is left. Nothing of a recording depends on the file: storing it is a worker's job.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple

import msgspec

from ari_conf.core import ids
from ari_conf.core.effects import Effect, Params, Snoop, StartRecording, StopRecording
from ari_conf.core.events import RecordingFinished, RecordingStarted
from ari_conf.core.expectations import AsteriskState, Expectation

STOP_TIMEOUT_MS = 5000
"""Milliseconds after which a recording counts as stopped if Asterisk, which normally confirms immediately, has not."""


class RecordingState(StrEnum):
    REQUESTED = "requested"
    """StartRecording is in progress: Asterisk has not reported the start."""
    RUNNING = "running"
    """Asterisk has reported the start. If the recording no longer exists, it has ended and was not lost before that."""
    STOPPING = "stopping"
    """StopRecording is in progress."""
    STOPPED = "stopped"
    """Ended: it is handed over once."""
    REFUSED = "refused"
    """Never existed: it has no callback, and no sequence number is used for one."""


class Track(NamedTuple):
    """Track of a recording in Asterisk."""

    name: str
    """Empty for a conference's recording, which has only this one."""
    source_id: str
    """Bridge, or snoop channel, that is recorded."""
    snoop: Snoop | None = None


class Recording(msgspec.Struct, kw_only=True):
    """Base of `ConferenceRecording` and `CallRecording`, which say what is recorded (`tracks`) and by which events
    Asterisk reports it."""

    recording_id: str
    auth_id: str
    started_at: int
    """Epoch milliseconds of the request, or of the audible start once Asterisk has reported it."""
    wideband: bool = False
    params: Params = ()
    """Standard parameters of the callback: those of the requesting call at the time of the request."""
    state: RecordingState = RecordingState.REQUESTED
    may_have_no_file: bool = False
    """True if Asterisk did not report the start, or reported a failure: only its disk shows whether a file exists."""
    ended_at: int | None = None
    deadline: int | None = None
    """Epoch milliseconds of the time limit; of a recording that is stopping, those at which it counts as stopped."""
    handed_over: bool = False
    api_id: str = ""
    """Id of the API request that started the recording; empty: an element did."""
    ended_tracks: tuple[str, ...] = ()
    """Names of the tracks that have ended."""

    @property
    def tracks(self) -> tuple[Track, ...]:
        raise NotImplementedError

    def started_event(self, track: Track) -> RecordingStarted:
        raise NotImplementedError

    def finished_event(self, track: Track) -> RecordingFinished:
        raise NotImplementedError

    @property
    def is_running(self) -> bool:
        """Return True if the recording runs, or is about to, and is not being stopped."""
        return self.state in (RecordingState.REQUESTED, RecordingState.RUNNING)

    @property
    def is_finished(self) -> bool:
        return self.state in (RecordingState.STOPPED, RecordingState.REFUSED)

    @property
    def open_tracks(self) -> tuple[Track, ...]:
        """Return the tracks that have not ended, as far as is known."""
        return tuple(track for track in self.tracks if track.name not in self.ended_tracks)

    def start(self) -> list[Effect]:
        return [self._start(track) for track in self.tracks]

    def _start(self, track: Track) -> StartRecording:
        return StartRecording(track.source_id, self.recording_id, self.auth_id, self.wideband, track.snoop)

    def mark_started(self, now: int) -> None:
        if self.is_running:
            self.started_at, self.state = now, RecordingState.RUNNING

    def stop(self, now: int) -> list[Effect]:
        if not self.is_running:
            return []
        self.state, self.ended_at, self.deadline = RecordingState.STOPPING, now, now + STOP_TIMEOUT_MS
        return [self.stop_effect(track) for track in self.open_tracks]

    def stop_effect(self, track: Track) -> StopRecording:
        return StopRecording(track.source_id, self.recording_id, self.auth_id)

    def mark_track_ended(self, name: str, now: int, failed: bool = False) -> list[Effect]:
        """Note the end of a track. The others are then stopped, and the recording ends with the last one."""
        self.may_have_no_file = self.may_have_no_file or failed
        if name not in self.ended_tracks:
            self.ended_tracks = (*self.ended_tracks, name)
        if self.open_tracks:
            return self.stop(now)
        self.mark_stopped(now)
        return []

    def mark_stopped(self, now: int, failed: bool = False) -> None:
        if not self.is_finished:
            self.state, self.deadline = RecordingState.STOPPED, None
            self.may_have_no_file = self.may_have_no_file or failed
            self.ended_at = self.ended_at or now

    def mark_refused(self) -> None:
        self.state, self.deadline, self.handed_over = RecordingState.REFUSED, None, True

    def on_deadline(self, now: int) -> list[Effect]:
        if self.deadline is None or self.deadline > now:
            return []
        if self.is_running:
            # The deadline of a running recording is its time limit.
            return self.stop(now)
        self.mark_stopped(now)
        return []

    # Recovery.

    def expectations(self) -> Iterator[Expectation]:
        """Yield what the recording expects of Asterisk: see `expectations.py`."""
        if self.is_finished:
            return
        unconfirmed = self.state is RecordingState.REQUESTED
        for track in self.open_tracks:
            over, runs = self.finished_event(track), self.started_event(track)
            key = ids.recording_key(track.source_id, self.recording_id)
            about = Expectation("recording", key, track.source_id, track.source_id, self.auth_id, if_gone=over)
            yield about._replace(if_there=runs, confirmed_started=False) if unconfirmed else about

    def resume(self, there: AsteriskState) -> list[Effect]:
        """Return the effects in progress, which may have been lost with the previous process."""
        if self.state is not RecordingState.REQUESTED:
            return []
        keys = {track: ids.recording_key(track.source_id, self.recording_id) for track in self.open_tracks}
        return [self._start(track) for track, key in keys.items() if key not in there.recordings]

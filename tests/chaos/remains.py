"""Leftovers of a run: playable recordings, each exactly once; and nothing else anywhere."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ari_conf.media.cache import PLAYBACK_GRACE_S, SoundCache
from ari_conf.recordings.bucket import Bucket
from ari_conf.recordings.sidecar import object_key
from demo import audio_analysis
from demo.received_audio import Samples
from tests.chaos.callback_judge import ReceivedRequest
from tests.chaos.hearing import GAP_MS, Finding
from tests.chaos.seen import Leg, Stall, stood_still
from tests.integration.stage import Stage
from tests.lateness import Patience

SETTLED_S = 60.0
"""Seconds within which all queued entries are delivered and stored, and all created objects removed."""
SLIPS_MS, SHIFT_MS = 2000, 50
"""Audio that was not recorded while the machine stalled is missing: the file's time runs ahead of the clock."""
LENGTH_MS = 500.0
"""The allowed difference between a recording's length and that in its callback."""


@dataclass
class Recordings:
    told: int = 0
    seconds: float = 0.0
    longest_gap_ms: float = 0.0
    findings: list[Finding] = field(default_factory=list)

    def wrong(self, at_ms: float, text: str) -> None:
        self.findings.append(Finding(at_ms, text))


def swept(stage: Stage) -> None:
    """Remove immediately what killed processes left unfinished; a later server would remove it eventually."""
    settings = stage.system.settings
    SoundCache(settings.sounds_folder, settings.sounds_limit_mb * 1_000_000).sweep(time.time() + PLAYBACK_GRACE_S + 1)


async def settled(stage: Stage, within_s: float = SETTLED_S) -> Mapping[str, Any]:
    """Wait until nothing remains that should be gone, or the time is over, and return what remains."""
    await asyncio.to_thread(swept, stage)
    patience = Patience(within_s)
    # Twice, since what moves from one place to another during the check may be seen in neither.
    while (left := await _left(stage) or await _left(stage)) and not patience.over:  # noqa: ASYNC110
        await asyncio.sleep(0.2)
    return left


async def _left(stage: Stage) -> dict[str, Any]:
    left = await stage._left()
    if stored := await stage.ari.request("GET", "/recordings/stored"):
        left["recordings in Asterisk"] = stored
    uploads = await asyncio.to_thread(Bucket(stage.system.settings).call, "list_multipart_uploads")
    if begun := uploads.get("Uploads"):
        left["uploads"] = [one["Key"] for one in begun]
    return left


def judge(
    bucket: Bucket,
    account: str,
    requests: Iterable[ReceivedRequest],
    recorders: Mapping[str, set[str]],
    legs: Sequence[Leg],
    stalls: Sequence[Stall] = (),
) -> Recordings:
    """Judge the recordings.

    `recorders`: by conference name, the numbers whose entering starts a recording. `legs`: of callers who were in a
    recorded conference from its start, or entered and stayed to its end: their voices must have no gap in the recording
    either.
    """
    found = Recordings()
    once = {
        (r.params["ConferenceUUID"], r.params["ConferenceSequence"]): r
        for r in requests
        if "ConferenceUUID" in r.params
    }
    records = [r for r in once.values() if r.params["ConferenceAction"] == "record"]
    found.told = len(records)
    _one_each(found, once.values(), records, recorders)
    keys: set[str] = set()
    for record in records:
        params = record.params
        form = params["RecordUrl"].rstrip("/").rpartition(".")[2]
        names = [object_key(account, params["RecordingID"], int(params["RecordingStartMs"]), e) for e in (form, "json")]
        keys.update(names)
        if bucket.get_json(names[1]) is None:
            found.wrong(record.at_ms, f"recording {params['RecordingID']}: its document is not in the bucket")
        try:
            audio = decoded(b"".join(bucket.read(names[0])))
        except Exception as error:  # whatever it is, the recording cannot be played
            found.wrong(record.at_ms, f"recording {params['RecordingID']} can't be played: {error}")
            continue
        _plays(found, record, audio)
        _no_gap(found, record, audio, legs, stalls)
    _orphans(found, bucket, account, keys)
    return found


def _one_each(
    found: Recordings,
    once: Iterable[ReceivedRequest],
    records: Sequence[ReceivedRequest],
    recorders: Mapping[str, set[str]],
) -> None:
    """Check that each conference that a recording caller entered has one recording."""
    wanted = {
        r.params["ConferenceUUID"]: r
        for r in once
        if r.params["ConferenceAction"] == "enter" and r.params["From"] in recorders.get(r.params["ConferenceName"], ())
    }
    stored = Counter(r.params["ConferenceUUID"] for r in records)
    for conference, enter in wanted.items():
        if stored[conference] != 1:
            name = f"{enter.params['ConferenceName']} ({conference[:8]})"
            found.wrong(enter.at_ms, f"{name} was to be recorded, and has {stored[conference]} recordings")
    for conference in set(stored) - set(wanted):
        found.wrong(records[0].at_ms, f"conference {conference[:8]} was not to be recorded, and was")
    for recording_id, times in Counter(r.params["RecordingID"] for r in records).items():
        if times > 1:
            found.wrong(records[0].at_ms, f"recording {recording_id} was told {times} times")


def _plays(found: Recordings, record: ReceivedRequest, audio: Samples) -> None:
    lasts = len(audio) / 8
    found.seconds += lasts / 1000
    if abs(lasts - int(record.params["RecordingDurationMs"])) > LENGTH_MS:
        said = record.params["RecordingDurationMs"]
        found.wrong(record.at_ms, f"recording {record.params['RecordingID']} lasts {lasts:.0f} ms, told were {said}")


def _no_gap(
    found: Recordings, record: ReceivedRequest, audio: Samples, legs: Sequence[Leg], stalls: Sequence[Stall]
) -> None:
    start, end = int(record.params["RecordingStartMs"]), int(record.params["RecordingEndMs"])
    for leg in legs:
        inside = min(leg.to_ms, end) - max(leg.from_ms, start)
        if not leg.conference.startswith(f"{record.params['ConferenceName']},") or inside < 3000:
            continue
        if not audio_analysis.intervals_of(audio, leg.hz):
            found.wrong(record.at_ms, f"recording {record.params['RecordingID']}: caller {leg.caller} is not in it")
        for a, b in audio_analysis.gaps(audio, leg.hz):
            # Stalled audio may be elsewhere in the recording, but the gap is no longer for that.
            shifts = range(-SLIPS_MS, SLIPS_MS + 1, SHIFT_MS) if b - a > GAP_MS else ()
            own = max((stood_still(start + a + by, b - a, [*leg.late, *stalls]) for by in shifts), default=0.0)
            if b - a - own <= GAP_MS < b - a:
                continue
            found.longest_gap_ms = max(found.longest_gap_ms, b - a)
            if b - a > GAP_MS:
                text = f"recording {record.params['RecordingID']}: caller {leg.caller} is missing for {b - a:.0f} ms"
                found.wrong(start + a, text)


def _orphans(found: Recordings, bucket: Bucket, account: str, keys: set[str]) -> None:
    there: set[str] = set()
    for page in bucket._s3.get_paginator("list_objects_v2").paginate(Bucket=bucket.name):
        there.update(one["Key"] for one in page.get("Contents", ()))
    for key in sorted(there - keys):
        found.wrong(0.0, f"{key} is in the bucket, and belongs to no recording that was told")
    for key in sorted(keys - there):
        found.wrong(0.0, f"{key} is not in the bucket, and was told")


def decoded(file: bytes) -> Samples:
    command = ["ffmpeg", "-v", "error", "-i", "-", "-f", "s16le", "-ac", "1", "-ar", "8000", "-"]
    return np.frombuffer(subprocess.run(command, input=file, capture_output=True, check=True).stdout, "<i2")

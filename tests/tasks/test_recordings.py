"""Recordings during faults: nothing is lost, nothing comes twice, and the cause is visible."""

from __future__ import annotations

import io
import subprocess
import wave
from typing import Any

import jsonschema_rs
import numpy as np
import pytest
from typer.testing import CliRunner

from ari_conf.cli.main import app as cli
from ari_conf.core.ids import RecordingName
from ari_conf.media.tones import wav
from ari_conf.recordings import index, jobs
from ari_conf.recordings.sidecar import schema
from ari_conf.server import recording_disk
from ari_conf.settings import settings
from tests.strict_s3 import LEAST, strict_s3
from tests.tasks.store_stage import ACCOUNT, DAY, StoreStage

LONG_S = 900
"""Seconds of audio; at 8 kHz they are 14.4 MB, two parts of an upload."""


def samples_of(file: bytes) -> bytes:
    with wave.open(io.BytesIO(file)) as sound:
        return sound.readframes(sound.getnframes())


def lasts_ms(file: bytes) -> float:
    command = ["ffmpeg", "-v", "error", "-i", "-", "-f", "s16le", "-ac", "1", "-ar", "8000", "-"]
    return len(subprocess.run(command, input=file, capture_output=True, check=True).stdout) / 16


# Without faults.


@pytest.mark.parametrize("rate", [8000, 16000])
def test_wav_is_kept_as_it_is_and_described(stage: StoreStage, rate: int) -> None:
    samples = stage.records(LONG_S * 8000 / rate, rate)
    stage.worker()
    stage.hand_on("wav")
    assert samples_of(file := stage.stored_once("wav")) == samples
    assert b"".join(stage.bucket.read_by_range(stage.key("wav"))) == file
    assert stage.key("wav") == f"recordings/{ACCOUNT}/{DAY}/{stage.recording_id}.wav"
    document = stage.bucket.get_json(stage.key("json"))
    jsonschema_rs.validate(schema(), document)
    assert document is not None and document["sample_rate"] == rate
    assert document["duration_ms"] == LONG_S * 8_000_000 // rate
    assert document["talk"] == [{"member_id": 1, "start_ms": 1000, "end_ms": 2000}]
    metadata = stage.bucket.call("head_object", Key=stage.key("wav"))["Metadata"]
    assert metadata["conference-name"] == "gr%C3%B6%C3%9Fer", "S3 takes only ASCII in metadata"


@pytest.mark.parametrize("rate", [8000, 16000])
def test_mp3_lasts_as_long(stage: StoreStage, rate: int) -> None:
    stage.records(65.4, rate)
    stage.worker()
    stage.hand_on("mp3")
    assert abs(lasts_ms(stage.stored_once("mp3")) - 65_400) < 300
    assert stage.receiver.received[0].params["RecordingDuration"] == "65"


def test_started_twice_and_by_two_workers(stage: StoreStage) -> None:
    samples = stage.records(LONG_S)
    stage.worker(), stage.worker()
    stage.hand_on()
    stage.hand_on()
    assert samples_of(stage.stored_once()) == samples


@pytest.mark.parametrize("form", ["mp3", "wav"])
def test_of_no_length(stage: StoreStage, form: str) -> None:
    stage.records(0)
    stage.worker()
    stage.hand_on(form)
    file = stage.stored_once(form)
    assert lasts_ms(file) < 300
    assert stage.receiver.received[0].params["RecordingDurationMs"] == "0"


def test_one_that_asterisk_broke_off(stage: StoreStage) -> None:
    """If Asterisk dies, the file's header says that the file is empty; the actual data counts."""
    samples = stage.records(3)
    whole = stage.tape.read_bytes()
    stage.tape.write_bytes(whole[:40] + bytes(4) + whole[44:])
    stage.worker()
    stage.hand_on()
    assert samples_of(stage.stored_once()) == samples


# S3.


def test_s3_is_away_for_a_while(stage: StoreStage) -> None:
    samples = stage.records(5)
    stage.s3_proxy.refuse()
    stage.worker()
    stage.hand_on()
    stage.until(lambda: stage.pending() and stage.pending()[0].job.attempts >= 2)
    (waits,) = stage.pending()
    assert "S3" in waits.job.error
    assert stage.tape.exists() and not stage.receiver.received
    stage.s3_proxy.accept_again()
    assert samples_of(stage.stored_once()) == samples


def test_s3_is_away_for_an_hour(stage: StoreStage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hour is the sum of the worker's waits, each cut short, because Redis's own clock can't be changed."""
    samples = stage.records(5)
    stage.s3_proxy.refuse()
    stage.worker()
    stage.hand_on()
    for name, value in stage.values.items():
        monkeypatch.setenv(name, value)
    settings.cache_clear()
    waited, tries, said = 0.0, 0, ""
    while waited < 3600:
        tries, wait_s = stage.retry(after=tries)
        assert min(300, 2 ** (tries - 1)) - 2 <= wait_s <= min(300, 2 ** (tries - 1)) + 1
        assert stage.tape.exists() and not stage.receiver.received
        waited += wait_s
        if not said and tries >= 8:
            said = CliRunner().invoke(cli, ["recordings", "pending"], catch_exceptions=False).stdout
            assert f"{stage.recording_id}\tto be stored, tried {tries} times, again in " in said and "S3" in said
        if waited < 3600:
            stage.due_now()
    assert 15 <= tries <= 25
    assert "exceed 0 MB" in str(
        recording_disk.disk_usage_warning(recording_disk.usage_by_account(stage.asterisk.recordings), 0)
    ), "the disk's limit warns"
    stage.s3_proxy.accept_again()
    assert 298 < wait_s < 301, "5 minutes after S3 is back it is tried at the latest"
    stage.due_now()
    assert samples_of(stage.stored_once()) == samples
    settings.cache_clear()


def test_s3_stalls(stage: StoreStage) -> None:
    samples = stage.records(LONG_S)
    stage.s3_proxy.hold = b"partNumber=1"
    stage.worker()
    stage.hand_on()
    assert stage.s3_proxy.held.wait(30)
    stage.until(lambda: stage.pending()[0].job.attempts >= 1)
    assert "upload_part" in stage.pending()[0].job.error
    assert stage.tape.exists() and not stage.receiver.received
    stage.s3_proxy.let_go()
    assert samples_of(stage.stored_once()) == samples


def test_s3_breaks_off_in_the_middle_of_a_part(stage: StoreStage) -> None:
    samples = stage.records(LONG_S)
    stage.s3_proxy.cut = b"partNumber=2"
    stage.worker()
    stage.hand_on()
    assert stage.s3_proxy.held.wait(30)
    assert samples_of(stage.stored_once()) == samples


def test_an_upload_that_somebody_abandoned_is_aborted(stage: StoreStage) -> None:
    stage.records(LONG_S)
    upload = stage.bucket.upload(stage.key("wav"), "audio/wav", {})
    upload.write(bytes(9 * 1024 * 1024))
    assert stage.bucket.call("list_multipart_uploads", Prefix=stage.key("wav"))["Uploads"]
    stage.worker()
    stage.hand_on()
    stage.stored_once()


@pytest.mark.parametrize("unknown", [403, 501])
def test_a_key_that_may_only_put_get_and_delete_is_enough(stage: StoreStage, unknown: int) -> None:
    samples = stage.records(LONG_S if unknown == 403 else 5)
    with strict_s3() as server:
        server.unknown = unknown
        stage.worker(**server.variables)
        stage.hand_on()
        stage.is_told()
        assert samples_of(server.objects[stage.key("wav")]) == samples
        assert sorted(server.objects) == sorted((stage.key("wav"), stage.key("json")))
        assert not stage.tape.exists() and not stage.problems()


def test_missing_file_is_lost_only_if_s3_answers_that_it_does_not_have_it(stage: StoreStage) -> None:
    """S3 denies existing objects to an access key without permission to get objects."""
    with strict_s3(LEAST - {"GetObject"}) as server:
        stage.worker(**server.variables)
        stage.hand_on()
        stage.until(lambda: stage.pending() and "s3:GetObject" in stage.pending()[0].job.error)
        assert jobs.given_up(stage.redis, [ACCOUNT]) == []
        server.allowed = LEAST
        stage.due_now()
        stage.until(lambda: jobs.given_up(stage.redis, [ACCOUNT]))


# The worker.


def test_killed_while_it_downloads_and_encodes(stage: StoreStage) -> None:
    stage.records(LONG_S)
    stage.ari_proxy.slow_s = 0.05
    first = stage.worker()
    stage.hand_on("mp3")
    stage.until(lambda: any(one.percent for one in stage.pending()))
    first.kill()
    stage.ari_proxy.let_go()
    assert stage.tape.exists() and not stage.receiver.received
    stage.worker()
    assert abs(lasts_ms(stage.stored_once("mp3")) - LONG_S * 1000) < 300


@pytest.mark.parametrize("where", [b"partNumber=1", b"partNumber=2", b"uploadId=", b".json HTTP"])
def test_killed_while_it_uploads(stage: StoreStage, where: bytes) -> None:
    """The kill comes during a part, before the end of the upload, or during the upload of the description."""
    samples = stage.records(LONG_S)
    stage.s3_proxy.hold = {b".json HTTP": b"PUT /recordings/" + stage.key("json").encode()}.get(where, where)
    first = stage.worker()
    stage.hand_on()
    assert stage.s3_proxy.held.wait(30)
    first.kill()
    stage.s3_proxy.let_go()
    assert stage.tape.exists() and not stage.receiver.received
    stage.worker()
    assert samples_of(stage.stored_once()) == samples


@pytest.mark.parametrize("deleted", [False, True], ids=["before the delete", "after the delete"])
def test_killed_around_the_delete(stage: StoreStage, deleted: bool) -> None:
    samples = stage.records(LONG_S)
    if deleted:
        stage.ari_proxy.hold_replies_to = b"DELETE /ari/recordings"
    else:
        stage.ari_proxy.hold = b"DELETE /ari/recordings"
    first = stage.worker()
    stage.hand_on()
    assert stage.ari_proxy.held.wait(30)
    first.kill()
    assert stage.tape.exists() is not deleted and not stage.receiver.received
    stage.ari_proxy.let_go()
    stage.worker()
    assert samples_of(stage.stored_once()) == samples


def test_told_to_end_in_the_middle(stage: StoreStage) -> None:
    """The worker returns the recording to the queue immediately, so that another can take it."""
    stage.records(LONG_S)
    stage.ari_proxy.slow_s = 0.05
    first = stage.worker()
    stage.hand_on("mp3")
    stage.until(lambda: any(one.percent for one in stage.pending()))
    first.end()
    assert first.process.returncode == 0
    assert [one.state for one in stage.pending()] == ["ready"]
    stage.ari_proxy.let_go()
    stage.worker()
    stage.stored_once("mp3")


def test_no_room_on_the_workers_disk(stage: StoreStage) -> None:
    """The worker needs no room: none of its files may grow by a byte."""
    samples = stage.records(LONG_S)
    stage.worker(["bash", "-c", 'ulimit -f 0; exec "$@" >/dev/null 2>&1', "-"])
    stage.hand_on()
    assert samples_of(stage.stored_once()) == samples


# Asterisk.


def test_asterisk_is_restarted_between_stop_and_download(stage: StoreStage) -> None:
    samples = stage.records(5)
    stage.asterisk.stop()
    stage.worker()
    stage.hand_on()
    stage.until(lambda: stage.pending() and stage.pending()[0].job.attempts >= 2)
    assert "Asterisk is unreachable" in stage.pending()[0].job.error
    stage.asterisk.start()
    assert samples_of(stage.stored_once()) == samples


def test_asterisk_breaks_off(stage: StoreStage) -> None:
    samples = stage.records(LONG_S)
    stage.ari_proxy.slow_s = 0.05
    stage.worker()
    stage.hand_on()
    stage.until(lambda: any(one.percent for one in stage.pending()))
    stage.ari_proxy.let_go()
    assert samples_of(stage.stored_once()) == samples


def test_one_that_nobody_has_is_listed_told_and_may_come_back(stage: StoreStage) -> None:
    stage.worker()
    stage.hand_on()
    stage.until(lambda: jobs.given_up(stage.redis, [ACCOUNT]))
    ((_, kind, job),) = jobs.given_up(stage.redis, [ACCOUNT])
    assert (kind, job.recording_id, job.error) == ("recordings", stage.recording_id, "Asterisk has no such recording")
    assert stage.recording_id in stage.problems()[0] and "lost" in stage.problems()[0]
    assert not stage.pending() and not stage.receiver.received
    samples = stage.records(2)
    assert jobs.retry(stage.redis, [ACCOUNT]) == 1
    assert samples_of(stage.stored_once()) == samples
    assert jobs.given_up(stage.redis, [ACCOUNT]) == []


def test_one_that_never_began_is_no_loss(stage: StoreStage) -> None:
    """The failure to start was reported when it happened."""
    stage.worker()
    stage.hand_on(failed=True)
    stage.until(lambda: not stage.pending() and stage.redis.hget("ari_conf:recordings:counts", "ack"))
    assert jobs.given_up(stage.redis, [ACCOUNT]) == [] and stage.problems() == []
    assert not stage.receiver.received


# Of calls.


def records_call(stage: StoreStage, **tracks: int) -> dict[str, np.ndarray[Any, Any]]:
    """Add the tracks of a call's recording to Asterisk: name -> milliseconds. Return their samples."""
    found = {}
    for n, (track, ms) in enumerate(tracks.items()):
        path = stage.asterisk.recordings / f"{RecordingName(ACCOUNT, '', stage.recording_id, 'u1', track)}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        found[track] = np.random.default_rng(n).integers(-3000, 3000, ms * 8).astype("<i2")
        path.write_bytes(wav(found[track].tobytes(), 8000))
    return found


def stored_call(stage: StoreStage, form: str, *tracks: str) -> bytes:
    stage.worker()
    stage.hand_on(form, conference_id="", conference_name="", tracks=tracks)
    file = stage.stored_once(form)
    assert not list((stage.asterisk.recordings / ACCOUNT).glob(f"*{stage.recording_id}*")), "both files are deleted"
    document = stage.bucket.get_json(stage.key("json"))
    jsonschema_rs.validate(schema(), document)
    assert document is not None and (document["conference"], document["channels"]) == (None, len(tracks))
    assert stage.bucket.call("head_object", Key=stage.key(form))["Metadata"]["call-uuid"] == "u1"
    stored = jobs.get(stage.redis, stage.recording_id)
    assert stored is not None and stored.is_of_call and not stored.by_api
    assert index.search(stage.redis, ACCOUNT, by={"call": "u1"})[0] == 1
    return file


@pytest.mark.parametrize("lengths", [{"in": 90_000, "out": 90_000}, {"in": 3000, "out": 3500}, {"in": 500, "out": 0}])
def test_two_tracks_are_left_and_right(stage: StoreStage, lengths: dict[str, int]) -> None:
    tracks = records_call(stage, **lengths)
    both = np.frombuffer(samples_of(stored_call(stage, "wav", "in", "out")), "<i2").reshape(-1, 2)
    assert len(both) == max(lengths.values()) * 8
    for n, track in enumerate(("in", "out")):
        samples = tracks[track]
        assert (both[: len(samples), n] == samples).all() and not both[len(samples) :, n].any(), "then it is silent"


def test_a_track_that_never_began_is_silent(stage: StoreStage) -> None:
    tracks = records_call(stage, out=1000)
    both = np.frombuffer(samples_of(stored_call(stage, "wav", "in", "out")), "<i2").reshape(-1, 2)
    assert not both[:, 0].any() and (both[:, 1] == tracks["out"]).all()


@pytest.mark.parametrize("tracks", [("in", "out"), ("both",)])
def test_the_mp3_of_a_call_lasts_as_long(stage: StoreStage, tracks: tuple[str, ...]) -> None:
    records_call(stage, **dict.fromkeys(tracks, 20_000))
    assert abs(lasts_ms(stored_call(stage, "mp3", *tracks)) - 20_000) < 300


def test_a_call_of_which_nothing_was_recorded_is_lost(stage: StoreStage) -> None:
    stage.worker()
    stage.hand_on("wav", conference_id="", conference_name="", tracks=("in", "out"))
    stage.until(stage.problems)
    assert stage.problems() == [f"recording {stage.recording_id} of call u1 is lost: Asterisk has no such recording"]

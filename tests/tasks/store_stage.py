"""The stage for storing recordings: a real Asterisk with the recordings, a real S3, real workers, proxies before
both servers."""

from __future__ import annotations

import asyncio
import time
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from ari_conf.core.effects import AddAttendanceNote, AddSpeechNote, PostCallback, StoreRecording
from ari_conf.core.ids import RecordingName
from ari_conf.local import processes, s3
from ari_conf.local.asterisk import LocalAsterisk
from ari_conf.local.processes import Process
from ari_conf.queues import partitioned_queue
from ari_conf.recordings import jobs
from ari_conf.recordings.bucket import Bucket
from ari_conf.recordings.sidecar import object_key
from ari_conf.settings import Settings, from_environment
from ari_conf.store import accounts
from ari_conf.store.problems import read_problems
from tests.redis import RedisServer
from tests.tasks.fleet import Receiver, Worker, until
from tests.tasks.proxy import Proxy

START_MS = 1_790_000_000_000
DAY = "2026/09/21"
ACCOUNT, CONFERENCE = "MA1", "c1"


class S3Server:
    def __init__(self, folder: Path) -> None:
        self.port = processes.free_port()
        self._process: Process = asyncio.run(
            s3.start(folder / "s3", self.port, "recordings", "key", "secret-of-the-tests", folder / "s3.log")
        )

    def end(self) -> None:
        asyncio.run(processes.stop(self._process))


class StoreStage:
    def __init__(self, redis_server: RedisServer, s3_server: S3Server, asterisk: LocalAsterisk, folder: Path) -> None:
        self.redis_server, self.redis, self.asterisk, self.folder = (
            redis_server,
            redis_server.client,
            asterisk,
            folder,
        )
        self.s3_proxy, self.ari_proxy = Proxy(s3_server.port), Proxy(asterisk.http_port)
        self.direct = self._settings(s3_server.port, asterisk.http_port)
        self.bucket = Bucket(self.direct)
        self.workers: list[Worker] = []
        self.receiver = Receiver(lambda _: 200)
        self.receiver.__enter__()
        accounts.add(self.redis, 1, ACCOUNT)
        self.recording_id = str(uuid4())

    def _settings(self, s3_port: int, ari_port: int) -> Settings:
        self.values = {
            "ARI_CONF_REDIS_URL": self.redis_server.url,
            "ARI_CONF_S3_ENDPOINT": f"http://127.0.0.1:{s3_port}",
            "ARI_CONF_S3_ACCESS_KEY": "key",
            "ARI_CONF_S3_SECRET_KEY": "secret-of-the-tests",
            "ARI_CONF_S3_DEADLINE": "2",
            "ARI_CONF_ARI_URL": f"http://127.0.0.1:{ari_port}/ari",
            "ARI_CONF_ARI_USER": self.asterisk.user,
            "ARI_CONF_ARI_PASSWORD": self.asterisk.password,
        }
        return from_environment(self.values)

    def worker(self, prefix: list[str] | None = None, **more: str) -> Worker:
        endpoint = {"ARI_CONF_S3_ENDPOINT": f"http://127.0.0.1:{self.s3_proxy.port}"}
        worker = Worker(self.redis_server, self.folder, 2, prefix, **self.values | endpoint | more)
        self.workers.append(worker)
        return worker

    def end(self) -> None:
        self.s3_proxy.let_go()
        self.ari_proxy.let_go()
        for worker in self.workers:
            worker.end()
        self.s3_proxy.end()
        self.ari_proxy.end()
        self.receiver.__exit__()

    # Setup of a scenario.

    @property
    def tape(self) -> Path:
        return self.asterisk.recordings / f"{self.name}.wav"

    @property
    def name(self) -> RecordingName:
        return RecordingName(ACCOUNT, CONFERENCE, self.recording_id)

    def records(self, seconds: float, rate: int = 8000, loud: bool = True) -> bytes:
        """Add a recording to Asterisk and return its samples."""
        noise = np.random.default_rng(1).integers(-3000, 3000, round(seconds * rate)) * loud
        self.tape.parent.mkdir(parents=True, exist_ok=True)
        samples = noise.astype("<i2").tobytes()
        with wave.open(str(self.tape), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(rate)
            file.writeframes(samples)
        return samples

    def effect(self, form: str = "wav", **more: Any) -> StoreRecording:
        params = (("ConferenceAction", "record"), ("RecordingID", self.recording_id), ("N", "1"))
        callback = PostCallback("conference", ACCOUNT, f"{self.receiver.url}/cb", "POST", params)
        fields = {
            "recording_id": self.recording_id,
            "auth_id": ACCOUNT,
            "conference_id": CONFERENCE,
            "conference_name": "größer",
            "call_uuid": "u1",
            "record_url": f"http://conference.example/{self.recording_id}.{form}",
            "file_format": form,
            "start_ms": START_MS,
            "end_ms": START_MS + 60_000,
            "callback": callback,
            "transcribe": False,
            "transcription_url": None,
            "transcription_method": "POST",
            **more,
        }
        return StoreRecording(**fields)  # type: ignore[arg-type]

    def hand_on(self, form: str = "wav", **more: Any) -> None:
        """Enqueue the recording as `serve` does at its end."""
        effect = self.effect(form, **more)
        pipe = self.redis.pipeline(transaction=True)
        jobs.add_note(pipe, AddAttendanceNote(self.recording_id, 1, "u1", "15551", "15550", START_MS, None))
        jobs.add_note(pipe, AddSpeechNote(self.recording_id, 1, START_MS + 1000, START_MS + 2000))
        settings = self._settings_of_serve()
        partitioned_queue.enqueue(
            pipe, [jobs.enqueue_item(effect, settings, time.time_ns() // 1_000_000)], jobs.STORE_QUEUE
        )
        pipe.execute()

    def _settings_of_serve(self) -> Settings:
        return from_environment(self.values | {"ARI_CONF_ARI_URL": f"http://127.0.0.1:{self.ari_proxy.port}/ari"})

    # Observations.

    def key(self, extension: str) -> str:
        return object_key(ACCOUNT, self.recording_id, START_MS, extension)

    def is_told(self, seconds: float = 40) -> None:
        self.receiver.wait(lambda: len(self.receiver.received) >= 1, seconds)

    def until(self, condition: Callable[[], Any], seconds: float = 40) -> None:
        until(lambda: bool(condition()), seconds)

    def pending(self) -> list[jobs.PendingJob]:
        return jobs.pending(self.redis)

    def retry(self, after: int) -> tuple[int, float]:
        """Wait until more than `after` tries have failed; return their number and the seconds until the next."""
        found: list[tuple[int, float]] = []

        def failed_again() -> bool:
            waiting = [(one.job.attempts, one.due_in_ms / 1000) for one in self.pending() if one.state == "waiting"]
            found[:] = [one for one in waiting if one[0] > after]
            return bool(found)

        self.until(failed_again)
        return found[0]

    def due_now(self) -> None:
        """Make all waiting jobs due now."""
        waiting = self.redis.zrange("ari_conf:recordings:delayed", 0, -1)
        self.redis.zadd("ari_conf:recordings:delayed", dict.fromkeys(waiting, 0), xx=True)

    def problems(self) -> list[str]:
        return [problem.text for problem in read_problems(self.redis, ACCOUNT)]

    def stored_once(self, form: str = "wav") -> bytes:
        """Wait for the recording, assert one object, one callback and no remains anywhere, and return the object."""
        self.is_told()
        self.until(lambda: not self.pending())
        self.until(lambda: not self.redis.keys("ari_conf:callbacks:partition:*"))
        assert len(self.receiver.received) == 1, "one callback"
        assert jobs.given_up(self.redis, [ACCOUNT]) == [], "the recording was stored, but given up as lost as well"
        told = self.receiver.received[0].params
        keys = [one["Key"] for one in self.bucket.call("list_objects_v2", Prefix=f"recordings/{ACCOUNT}/")["Contents"]]
        assert sorted(key for key in keys if self.recording_id in key) == sorted([self.key(form), self.key("json")])
        assert not self.bucket.call("list_multipart_uploads", Prefix=self.key(form)).get("Uploads")
        assert not self.tape.exists()
        assert not self.redis.keys("ari_conf:recording-notes:*")
        document = self.bucket.get_json(self.key("json"))
        assert document is not None and str(document["duration_ms"]) == told["RecordingDurationMs"]
        stored = jobs.get(self.redis, self.recording_id)
        assert stored is not None and stored.callback == (f"{self.receiver.url}/cb", "POST"), "for its deletion"
        return b"".join(self.bucket.read(self.key(form)))

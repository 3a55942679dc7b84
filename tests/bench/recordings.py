"""Recording storage benchmark, `make bench-recordings`: speed and memory.

It compares a worker with the same job done by hand, one after the other in the same run. Both get the same bytes from
the same Asterisk and leave the same object in the same S3. By hand: `requests` loads the whole file into memory, the
encoder encodes it there, and boto3 uploads the result with `upload_fileobj`, with its own threads and no check
afterwards. The worker streams, verifies and writes a sidecar, and needs no more memory for hours than for a minute.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
import time
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import numpy as np
import requests

from ari_conf.local.asterisk import LocalAsterisk, find, running
from ari_conf.recordings.s3_client import client as s3_client
from demo import audio_analysis
from demo.speech import speech_files
from tasks.asterisk_recording import ENCODERS, PcmStream
from tests import redis
from tests.tasks.store_stage import S3Server, StoreStage

WITHIN, MEMORY_MB, MAX_MB = 1.10, 10, 100
HOURS = 4.0
PATIENCE_S = 60.0
"""The S3 timeout in seconds for both: a busy machine is not a failure here."""


def speech(seconds: float) -> bytes:
    """Return recorded speech, repeated to that length."""
    once = np.concatenate([audio_analysis.wav(one.path) for one in speech_files()])
    return np.resize(once, round(seconds * 8000)).astype("<i2").tobytes()


def by_hand(stage: StoreStage, samples: bytes, form: str) -> tuple[float, float, float]:
    """Return the seconds for the download from Asterisk, the encoding, and the upload."""
    write(stage, samples)
    url = f"{stage.direct.ari_url}/recordings/stored/{quote(str(stage.name), safe='')}/file"
    login = (stage.direct.ari_user, stage.direct.ari_password.get_secret_value())
    began = time.perf_counter()
    answer = requests.get(url, auth=login, timeout=60)
    answer.raise_for_status()
    with wave.open(io.BytesIO(answer.content)) as file:
        found = file.readframes(file.getnframes())
    assert found == samples
    downloaded = time.perf_counter()
    encoder = ENCODERS[form](PcmStream(8000, len(found), iter(())))
    whole = encoder.start() + encoder.feed(found) + encoder.finish()
    encoded = time.perf_counter()
    patient = stage.direct.model_copy(update={"s3_deadline": PATIENCE_S})
    s3_client(patient, patient.s3_endpoint).upload_fileobj(io.BytesIO(whole), stage.bucket.name, "by-hand")
    uploaded = time.perf_counter()
    stage.tape.unlink()
    return downloaded - began, encoded - downloaded, uploaded - encoded


def by_worker(stage: StoreStage, samples: bytes, form: str) -> tuple[float, float]:
    """Return (seconds, the worker's peak memory in MB)."""
    write(stage, samples)
    worker = stage.worker(
        ARI_CONF_LOG_FORMAT="json",
        ARI_CONF_S3_ENDPOINT=str(stage.direct.s3_endpoint),
        ARI_CONF_S3_DEADLINE=str(PATIENCE_S),
    )
    stage.until(lambda: stage.redis.zcard("ari_conf:recordings:workers"), 30)
    stage.hand_on(form)
    stage.is_told(900)
    status = Path(f"/proc/{worker.process.pid}/status").read_text()
    (peak,) = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
    worker.end()
    log = Path(worker.log.name).read_text().splitlines()
    (line,) = [json.loads(one) for one in log if '"recording stored"' in one]
    stage.receiver.received.clear()
    return float(line["seconds"]), int(peak) / 1024


def write(stage: StoreStage, samples: bytes) -> None:
    stage.recording_id = f"bench{time.monotonic_ns()}"
    stage.tape.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(stage.tape), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(samples)


@contextmanager
def stage(folder: Path) -> Iterator[StoreStage]:
    """Run Redis, S3 and Asterisk, which a worker reaches without a proxy between."""
    redis_server, s3_server = redis.start(folder / "redis"), S3Server(folder)
    with running(LocalAsterisk(folder / "asterisk", find(), outbound=False)) as asterisk:
        found = StoreStage(redis_server, s3_server, asterisk, folder)
        found.ari_proxy.end()
        straight: Any = SimpleNamespace(port=asterisk.http_port, let_go=lambda: None, end=lambda: None)
        found.ari_proxy = straight
        try:
            yield found
        finally:
            found.end()
            s3_server.end()
            redis_server.kill()


def main(out: Callable[[str], None] = print) -> bool:
    short, long = speech(60), speech(HOURS * 3600)
    good = True
    with stage(Path(tempfile.mkdtemp())) as of_the_bench:
        for form in ("mp3", "wav"):
            _, small = by_worker(of_the_bench, short, form)
            runs = [(*by_hand(of_the_bench, long, form), *by_worker(of_the_bench, long, form)) for _ in range(3)]
            got, encoded, sent, ours, peak = (median(run[n] for run in runs) for n in range(5))
            hand = got + encoded + sent
            fast, lean = ours <= hand * WITHIN, abs(peak - small) <= MEMORY_MB and peak < MAX_MB
            good = good and fast and lean
            speed = f"{HOURS:g} h in {ours:.1f} s, {HOURS * 3600 / ours:.0f} x real time"
            out(
                f"{form}: {speed}; by hand {hand:.1f} s ({got:.1f} s from Asterisk, {encoded:.1f} s encoder, "
                f"{sent:.1f} s upload): {'within' if fast else 'NOT within'} 10 %"
            )
            out(
                f"     the worker's peak: {small:.0f} MB for 1 min, {peak:.0f} MB for {HOURS:g} h "
                f"({'' if lean else 'NOT '}within {MEMORY_MB} MB and under {MAX_MB} MB)"
            )
    return good


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    sys.exit(0 if main() else 1)

"""The removal of accounts by real workers, with a real S3, Asterisk and Redis: also by workers that are killed."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from ari_conf.administration import removal
from ari_conf.administration.audit import Actor
from ari_conf.recordings import index, jobs, library
from ari_conf.recordings.sidecar import object_key
from ari_conf.store import accounts, removals
from tests.tasks.store_stage import ACCOUNT, START_MS, StoreStage

OTHER = "MA10"
"""Another account, whose auth id begins with that of the removed one."""


def stored(stage: StoreStage, auth_id: str, count: int) -> None:
    """Store recordings with their files and sidecars."""
    for n in range(count):
        recording_id = f"{auth_id}-{n}"
        keys = [object_key(auth_id, recording_id, START_MS, extension) for extension in ("mp3", "json")]
        for key in keys:
            stage.bucket.put_json(key, {"n": n})
        kept = index.StoredRecording(
            recording_id=recording_id, auth_id=auth_id, conference_id="c1", conference_name="x", call_uuid="u1",
            file_format="mp3", key=keys[0], size=1, duration_ms=1, start_ms=START_MS, end_ms=START_MS + 1, stored_ms=1,
            record_url="http://x.example/",
        )  # fmt: skip
        jobs.add(stage.redis, kept, [], None)


def files(stage: StoreStage, auth_id: str) -> list[str]:
    found = stage.bucket.call("list_objects_v2", Prefix=f"recordings/{auth_id}/").get("Contents", [])
    return [one["Key"] for one in found]


def begin(stage: StoreStage, **more: Any) -> None:
    removal.begin(stage.redis, Actor("alice", "api"), stage.direct, ACCOUNT, None, **more)
    # Let the time pass for which a server may still know the account.
    removals.change(stage.redis, ACCOUNT, lambda now: structs.replace(now, phase_ms=1), None)


def error(stage: StoreStage) -> str:
    found = removals.get(stage.redis, ACCOUNT)
    return found.error if found is not None else ""


def is_removed(stage: StoreStage) -> bool:
    return removals.get(stage.redis, ACCOUNT) is None


def test_a_purge_continues_where_a_killed_worker_stopped(stage: StoreStage):
    accounts.add(stage.redis, 1, OTHER)
    stored(stage, ACCOUNT, 120)
    stored(stage, OTHER, 2)
    stage.bucket.put_json(f"recordings/{ACCOUNT}/2026/01/01/stray.wav", {})
    first = stage.worker()
    begin(stage, purge=True)
    stage.until(lambda: index.search(stage.redis, ACCOUNT)[0] < 120)
    first.kill()
    left = index.search(stage.redis, ACCOUNT)[0]
    now = removals.get(stage.redis, ACCOUNT)
    assert now is not None and now.phase == "data" and now.total.recordings == 120
    stage.worker()
    stage.until(lambda: is_removed(stage))
    assert left > 0, "the first worker was to be killed in between"
    assert files(stage, ACCOUNT) == [] and len(files(stage, OTHER)) == 4
    assert library.count(stage.redis, OTHER) == 2
    assert not list(stage.redis.scan_iter(f"*{ACCOUNT}-*"))


def test_a_purge_waits_for_s3(stage: StoreStage):
    stored(stage, ACCOUNT, 3)
    stage.s3_proxy.refuse()
    stage.worker()
    begin(stage, purge=True)
    stage.until(lambda: "S3" in error(stage))
    assert library.count(stage.redis, ACCOUNT) == 3
    stage.s3_proxy.accept_again()
    stage.until(lambda: is_removed(stage))
    assert files(stage, ACCOUNT) == []


@pytest.mark.parametrize("purge", [True, False], ids=["purge", "keep"])
def test_a_recording_that_is_not_stored_yet_is_discarded_only_by_a_purge(stage: StoreStage, purge: bool):
    stage.records(2)
    stage.hand_on()
    begin(stage, purge=purge)
    stage.worker()
    if purge:
        stage.until(lambda: is_removed(stage))
        assert not stage.tape.exists() and files(stage, ACCOUNT) == [] and not stage.receiver.received
        return
    # Its callback is signed, although the account no longer exists.
    stage.stored_once()
    assert stage.receiver.received[0].headers["X-Plivo-Signature-V3"]
    stage.until(lambda: (found := removals.get(stage.redis, ACCOUNT)) is not None and found.phase == "removed")
    kept = removals.get(stage.redis, ACCOUNT)
    assert kept is not None and kept.left.counted() == {"recordings": 1, "history_entries": 2}

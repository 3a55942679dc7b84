"""Tests of RecordUrl without a login, which reveals nothing about accounts, and of a slow S3, which must not slow the
API."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from redis import Redis

from ari_conf.recordings import index, jobs
from ari_conf.recordings.index import StoredRecording
from ari_conf.store import accounts
from ari_conf.web.routes import recording_sidecars
from tests.web.conftest import Api, Owner, Served, account
from tests.web.test_event_stream import eventually


def stored(redis: Redis, auth_id: str, recording_id: str) -> None:
    kept = StoredRecording(
        recording_id=recording_id,
        auth_id=auth_id,
        conference_id="c1",
        conference_name="standup",
        call_uuid="u1",
        file_format="mp3",
        key=f"recordings/{auth_id}/2026/01/01/{recording_id}.mp3",
        size=1,
        duration_ms=1,
        start_ms=1,
        end_ms=2,
        stored_ms=3,
        record_url="http://127.0.0.1/x",
    )
    jobs.add(redis, kept, [], None)


@pytest.fixture
def variables() -> dict[str, str]:
    keys = {"ARI_CONF_S3_ACCESS_KEY": "k", "ARI_CONF_S3_SECRET_KEY": "s"}
    return {"ARI_CONF_S3_ENDPOINT": "http://127.0.0.1:1", "ARI_CONF_EVENT_STREAMS": "20"} | keys


@pytest.fixture
def three(served: Served, owner: Owner) -> dict[str, Api]:
    """Return clients of accounts whose recordings need a login or none."""
    found = {name: account(served, name) for name in ("open", "closed")}
    accounts.update(owner.redis, "closed", recording_auth="basic")
    return found


def test_the_existence_of_an_account_is_not_revealed(three: dict[str, Api], owner: Owner):
    for auth_id in ("open", "closed"):
        stored(owner.redis, auth_id, f"of-{auth_id}")
    response = set()
    for auth_id in ("open", "closed", "nobody", "x" * 5000, "%00", "open%2F..%2Fclosed"):
        for recording in ("none.mp3", "of-open.wav", "of-closed.wav", "x" * 5000 + ".mp3", "%00.mp3"):
            for method in ("GET", "HEAD"):
                answer = three["open"].send(method, f"/v1/Account/{auth_id}/Recording/{recording}", Authorization="")
                text = answer.json["error"] if method == "GET" else ""
                response.add((answer.status, text, tuple(name for name, _ in sorted(answer.headers.items()))))
        assert three["open"].get(f"/v1/Account/{auth_id}/Recording/of-nobody.mp3").status == 404
    assert len(response) == 2, response
    assert {status for status, *_ in response} == {404}


def test_access_to_a_recording_follows_the_setting_of_the_account(three: dict[str, Api], owner: Owner):
    for auth_id in ("open", "closed"):
        stored(owner.redis, auth_id, f"of-{auth_id}")
    closed = three["closed"]
    assert closed.get("Recording/of-open.mp3").status == 404
    assert three["open"].get("Recording/of-open.mp3", Authorization="").status == 302
    assert closed.get("Recording/of-closed.mp3", Authorization="").status == 401
    assert closed.get("Recording/of-closed.mp3").status == 302
    assert three["open"].get("/v1/Account/closed/Recording/of-closed.mp3").status == 404, "another account's login"
    assert "X-Amz-Signature" in closed.get("Recording/of-closed.mp3").headers["Location"]


def test_one_that_can_not_be_read_is_left_out_of_the_list(three: dict[str, Api], owner: Owner):
    for name in ("a", "b"):
        stored(owner.redis, "open", name)
    owner.redis.set(index.key("a"), '{"recording_id": 1}')
    response = three["open"].get("Recording/").json
    assert [one["recording_id"] for one in response["objects"]] == ["b"]
    assert three["open"].get("Recording/a.mp3").status == 404


def test_a_wait_for_s3_delays_no_list_and_no_other_account(three: dict[str, Api], owner: Owner, monkeypatch: Any):
    """S3 hangs, and one account requests as many documents as it can."""
    hangs, under_way = threading.Event(), list[str]()
    for auth_id in ("open", "closed"):
        stored(owner.redis, auth_id, f"of-{auth_id}")

    def read(parts: Any, stored: StoredRecording) -> dict[str, Any]:
        under_way.append(stored.auth_id)
        if stored.auth_id == "open":
            hangs.wait(60)
        return {"of": stored.auth_id}

    monkeypatch.setattr(recording_sidecars, "_read", read)
    with ThreadPoolExecutor(60) as threads:
        asked = [threads.submit(three["open"].get, "Recording/of-open/Document/") for _ in range(60)]
        try:
            eventually(lambda: len(under_way) >= 2)
            eventually(lambda: sum(one.done() for one in asked) >= 8)
            assert three["closed"].get("Recording/of-closed/Document/").json["document"] == {"of": "closed"}
            for path in ("Recording/", "Callback/", "Conference/", "Recording/of-open/"):
                assert three["open"].get(path).status == 200
            assert under_way.count("open") == 2
        finally:
            hangs.set()
        answers = [one.result() for one in asked]
    assert sorted({response.status for response in answers}) == [200, 429]
    refused = [response for response in answers if response.status == 429]
    assert len(refused) == 8 and int(refused[0].headers["Retry-After"]) > 0

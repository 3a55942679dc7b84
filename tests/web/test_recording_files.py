"""Tests of the file behind a RecordUrl: from a real S3, with HEAD too, and relayed by `web`."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from redis import Redis

from ari_conf.recordings import jobs
from ari_conf.recordings.bucket import Bucket
from ari_conf.recordings.index import StoredRecording
from ari_conf.settings import from_environment
from ari_conf.store import accounts
from ari_conf.web import recording_stream
from ari_conf.web.errors import ApiError
from ari_conf.web.recording_stream import PIECE_BYTES, span
from tests.strict_s3 import StrictS3, strict_s3
from tests.tasks.store_stage import S3Server
from tests.web.conftest import Api, Owner, Served, account
from tests.web.test_event_stream import eventually

KEY = "recordings/open/2026/01/01/r1.mp3"
SOUND = bytes(range(256)) * (PIECE_BYTES // 256 * 3 + 5)
"""More than three pieces."""


def keep(redis: Redis, auth_id: str, size: int = len(SOUND)) -> None:
    outcome = {
        "conference_id": "c1",
        "conference_name": "größer",
        "call_uuid": "u1",
        "file_format": "mp3",
        "size": size,
    }
    times = {"duration_ms": 1, "start_ms": 1, "end_ms": 2, "stored_ms": 3}
    key = KEY.replace("/open/", f"/{auth_id}/").replace("r1", f"of-{auth_id}")
    kept = StoredRecording(
        recording_id=f"of-{auth_id}", auth_id=auth_id, key=key, record_url="http://x", **outcome, **times
    )
    jobs.add(redis, kept, [], None)


def key_of(auth_id: str) -> str:
    return KEY.replace("/open/", f"/{auth_id}/").replace("r1", f"of-{auth_id}")


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (None, None),
        ("bytes=0-", (0, 100)),
        ("bytes=10-19", (10, 10)),
        ("bytes=90-1000", (90, 10)),
        ("bytes=-5", (95, 5)),
        ("bytes=-500", (0, 100)),
        ("bytes=99-99", (99, 1)),
        # Neither served nor refused: the whole file is a correct answer too.
        ("bytes=5-4", None),
        ("bytes=0-1,5-6", None),
        ("bytes=-", None),
        ("lines=1-2", None),
        ("bytes=²-", None),
        ("bytes=9999999999999999-", None),
    ],
)
def test_range_header(header: str | None, found: tuple[int, int] | None) -> None:
    assert span(header, 100) == found


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=500-600", "bytes=-0"])
def test_a_range_beyond_the_end_is_refused(header: str) -> None:
    with pytest.raises(ApiError) as refused:
        span(header, 100)
    assert refused.value.status == 416 and refused.value.headers == {"Content-Range": "bytes */100"}


# A real S3, to which RecordUrl leads.


@pytest.fixture
def strict() -> Iterator[StrictS3]:
    with strict_s3() as server:
        yield server


@pytest.fixture
def variables(strict: StrictS3) -> dict[str, str]:
    return strict.variables | {"ARI_CONF_RECORD_DELIVERY": "web"}


@pytest.fixture
def two(served: Served, owner: Owner) -> dict[str, Api]:
    found = {name: account(served, name) for name in ("open", "closed")}
    accounts.update(owner.redis, "closed", recording_auth="basic")
    for name in found:
        keep(owner.redis, name)
    return found


def fetched(location: str, method: str, **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
    parts = urlsplit(location)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=60)
    connection.request(method, f"{parts.path}?{parts.query}", headers=headers)
    response = connection.getresponse()
    return response, response.read()


def test_a_head_leads_to_where_a_head_is_answered(owner: Owner, strict: StrictS3, tmp_path: Path):
    """S3 signs the method too: a URL signed for GET does not work for HEAD."""
    s3 = S3Server(tmp_path)
    endpoint = {"ARI_CONF_S3_ENDPOINT": f"http://127.0.0.1:{s3.port}", "ARI_CONF_REDIS_URL": owner.url}
    settings = from_environment(strict.variables | endpoint)
    try:
        upload = Bucket(settings).upload(key_of("open"), "audio/mpeg", {})
        upload.write(SOUND)
        upload.finish()
        with Served(settings, owner) as served:
            api = account(served, "open")
            keep(owner.redis, "open")
            for query in ("", "?download"):
                outcome = api.send("HEAD", f"Recording/of-open.mp3{query}", Authorization="")
                assert outcome.status == 302
                response, _ = fetched(outcome.headers["Location"], "HEAD")
                assert response.status == 200 and response.headers["Content-Length"] == str(len(SOUND))
                assert response.headers["Content-Type"] == "audio/mpeg"
                location = api.get(f"Recording/of-open.mp3{query}", Authorization="").headers["Location"]
                response, body = fetched(location, "GET", Range="bytes=1-3")
                assert (response.status, body) == (206, SOUND[1:4])
    finally:
        s3.end()


# Relayed by `web`.


def test_web_passes_it_on_with_ranges_and_head(two: dict[str, Api], strict: StrictS3):
    strict.objects[key_of("open")] = SOUND
    api = two["open"]
    whole = api.get("Recording/of-open.mp3", Authorization="")
    assert whole.status == 200 and whole.text == SOUND
    assert whole.headers["Content-Type"] == "audio/mpeg" and whole.headers["Accept-Ranges"] == "bytes"
    assert len([one for one in strict.asked if one.startswith("GET")]) == 4, "in pieces"
    head = api.send("HEAD", "Recording/of-open.mp3", Authorization="")
    assert head.status == 200 and head.headers["Content-Length"] == str(len(SOUND)) and head.text == b""
    for asked, first, last in (
        ("bytes=5-9", 5, 9),
        (f"bytes={PIECE_BYTES - 2}-{PIECE_BYTES + 2}", PIECE_BYTES - 2, PIECE_BYTES + 2),
        ("bytes=-7", len(SOUND) - 7, len(SOUND) - 1),
    ):
        part = api.get("Recording/of-open.mp3", Authorization="", Range=asked)
        assert part.status == 206 and part.text == SOUND[first : last + 1]
        assert part.headers["Content-Range"] == f"bytes {first}-{last}/{len(SOUND)}"
    etag = whole.headers["ETag"]
    assert api.get("Recording/of-open.mp3", Range="bytes=0-0", If_Range=etag).status == 206
    assert api.get("Recording/of-open.mp3", Range="bytes=0-0", If_Range='"other"').status == 200
    assert api.get("Recording/of-open.mp3", Range=f"bytes={len(SOUND)}-").status == 416
    kept = api.get("Recording/of-open.mp3?download", Range="bytes=0-0")
    assert "gr%C3%B6%C3%9Fer" in kept.headers["Content-Disposition"]
    policy = api.get("/login").headers["Content-Security-Policy"]
    assert "media-src 'self';" in policy


def test_access_follows_the_setting_of_the_account(two: dict[str, Api], strict: StrictS3):
    strict.objects[key_of("closed")] = SOUND
    for method in ("GET", "HEAD"):
        assert two["closed"].send(method, "Recording/of-closed.mp3", Authorization="").status == 401
        assert two["open"].send(method, "/v1/Account/closed/Recording/of-closed.mp3").status == 404
        assert two["closed"].send(method, "Recording/of-closed.mp3").status == 200
    assert two["closed"].get("Recording/of-closed.mp3").text == SOUND


def test_missing_file_is_404_and_unreachable_bucket_503(two: dict[str, Api], strict: StrictS3):
    assert two["open"].get("Recording/of-open.mp3").status == 404
    assert two["open"].send("HEAD", "Recording/of-open.mp3").status == 404
    strict.is_away = True
    gone = two["open"].get("Recording/of-open.mp3")
    assert gone.status == 503 and gone.headers["Retry-After"]


def test_one_that_breaks_off_is_no_whole_one(two: dict[str, Api], strict: StrictS3):
    strict.objects[key_of("open")] = SOUND[: PIECE_BYTES + 10]
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        two["open"].get("Recording/of-open.mp3")


def test_slow_listeners_are_limited_and_delay_no_other(
    two: dict[str, Api], strict: StrictS3, served: Served, monkeypatch: pytest.MonkeyPatch
):
    """A client that reads nothing holds one piece, however many are requested, and no other account notices."""
    monkeypatch.setattr(recording_stream, "STREAMS_EACH", 3)
    long = bytes(64 * 1024 * 1024)
    strict.objects[key_of("open")] = long
    strict.objects[key_of("closed")] = SOUND
    redis = served.owner.redis
    redis.delete("ari_conf:recording:of-open")
    keep(redis, "open", len(long))
    slow = []
    for _ in range(3):
        connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
        connection.request("GET", "/v1/Account/open/Recording/of-open.mp3/")
        response = connection.getresponse()
        assert response.status == 200
        slow.append((connection, response))
    refused = two["open"].get("Recording/of-open.mp3")
    assert refused.status == 429 and "being fetched" in refused.json["error"]
    assert two["closed"].get("Recording/of-closed.mp3").text == SOUND
    asked = sum(f"GET {key_of('open')}" in one for one in strict.asked)
    # Only as much as the kernel's buffers hold is read, and not the whole file.
    assert asked * PIECE_BYTES < 3 * len(long) / 4
    for connection, response in slow:
        response.close()
        connection.close()
    eventually(lambda: two["open"].get("Recording/of-open.mp3", Range="bytes=0-9").status == 206)

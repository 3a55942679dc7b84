"""Tests of the settings that reach an S3 server. SeaweedFS ignores them, so each request is kept here as it came."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import boto3
import pytest
from botocore.config import Config

from ari_conf.doctor import run_check
from ari_conf.errors import RecordingFailed
from ari_conf.recordings import s3_client
from ari_conf.recordings.bucket import PART_BYTES, Bucket
from ari_conf.settings import from_environment
from tests.strict_s3 import LEAST, strict_s3

KEY = "recordings/MA1/2026/11/22/r.mp3"
STARTED = b"<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>"
COMPLETED = b"<CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>"


class S3:
    """S3 server that agrees with everything."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        """(method, path and query, headers)"""
        server = self

        class Requests(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                server.asked.append((self.command, self.path, headers))
                body = STARTED if "uploads" in self.path else COMPLETED if self.command == "POST" else b""
                self.send_response(200)
                self.send_header("ETag", '"e"')
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_PUT = do_POST = _serve

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Requests)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def end(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def s3() -> Iterator[S3]:
    server = S3()
    yield server
    server.end()


def bucket(s3: S3, **more: str) -> Bucket:
    login = {"ARI_CONF_S3_ACCESS_KEY": "key", "ARI_CONF_S3_SECRET_KEY": "secret"}
    return Bucket(from_environment({"ARI_CONF_S3_ENDPOINT": s3.url, **login, **more}))


def stores(bucket: Bucket, size: int) -> None:
    upload = bucket.upload(KEY, "audio/mpeg", {"account": "MA1"})
    upload.write(bytes(size))
    upload.finish()
    bucket.put_json(KEY.replace(".mp3", ".json"), {"size": size})


KMS = {"ARI_CONF_S3_ENCRYPTION": "aws:kms", "ARI_CONF_S3_KMS_KEY": "arn:aws:kms:eu-west-1:1:key/k"}


@pytest.mark.parametrize("size", [1000, PART_BYTES + 1], ids=["at once", "in parts"])
@pytest.mark.parametrize(
    ("settings", "encryption", "key", "storage_class"),
    [
        ({}, None, None, "STANDARD"),
        ({"ARI_CONF_S3_ENCRYPTION": "AES256"}, "AES256", None, "STANDARD"),
        (KMS | {"ARI_CONF_S3_STORAGE_CLASS": "STANDARD_IA"}, "aws:kms", "arn:aws:kms:eu-west-1:1:key/k", "STANDARD_IA"),
        ({"ARI_CONF_S3_ENCRYPTION": "aws:kms"}, "aws:kms", None, "STANDARD"),
    ],
    ids=["nothing", "AES256", "a key of ours in another class", "the bucket's own key"],
)
def test_encryption_and_storage_class_are_requested(
    s3: S3, size: int, settings: dict[str, str], encryption: str | None, key: str | None, storage_class: str
) -> None:
    """The requests that start an object have them: the file's, in parts or whole, and its sidecar's."""
    stores(bucket(s3, **settings), size)
    begins = [one for one in s3.asked if "partNumber" not in one[1] and "uploadId" not in one[1]]
    assert [path.partition("?")[0] for _, path, _ in begins] == [f"/recordings/{KEY}", f"/recordings/{KEY[:-4]}.json"]
    for _, _, headers in begins:
        assert headers.get("x-amz-server-side-encryption") == encryption
        assert headers.get("x-amz-server-side-encryption-aws-kms-key-id") == key
        assert headers["x-amz-storage-class"] == storage_class


@pytest.mark.parametrize("size", [1000, PART_BYTES + 1])
def test_each_body_has_its_checksum_and_a_signature(s3: S3, size: int) -> None:
    stores(bucket(s3, ARI_CONF_S3_REGION="eu-west-1"), size)
    bodies = [one for one in s3.asked if one[0] == "PUT" and ".json" not in one[1]]
    assert len(bodies) == -(-size // PART_BYTES)
    for _, _, headers in bodies:
        assert headers["content-md5"]
        assert "/eu-west-1/s3/aws4_request" in headers["authorization"]


@pytest.mark.parametrize("path_style", [True, False])
@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1", "cn-north-1", "us-gov-west-1"])
def test_amazons_addresses_are_those_of_boto3(region: str, path_style: bool) -> None:
    """This project keeps only a part of boto3's descriptions: they lead to the same hosts, in Amazon's other partitions
    too."""
    login = {"ARI_CONF_S3_ACCESS_KEY": "key", "ARI_CONF_S3_SECRET_KEY": "secret"}
    style = {"ARI_CONF_S3_PATH_STYLE": str(path_style).lower(), "ARI_CONF_S3_REGION": region}
    ours = s3_client.client(from_environment(login | style), None)
    as_usual = boto3.session.Session("key", "secret", region_name=region).client(
        "s3", config=Config(signature_version="s3v4", s3={"addressing_style": "path" if path_style else "virtual"})
    )
    found = [
        urlsplit(client.generate_presigned_url("get_object", Params={"Bucket": "recordings", "Key": KEY}))
        for client in (ours, as_usual)
    ]
    assert (found[0].netloc, found[0].path) == (found[1].netloc, found[1].path)
    assert found[0].netloc.endswith((".amazonaws.com", ".amazonaws.com.cn"))


@pytest.mark.parametrize("name", ["\N{GRINNING FACE}" * 200, "ü" * 200, "x" * 5000, "\N{GRINNING FACE}x" * 100])
def test_metadata_is_within_what_s3_takes_and_ends_with_a_whole_character(s3: S3, name: str) -> None:
    upload = bucket(s3).upload(KEY, "audio/mpeg", {"conference-name": name, "account": "MA1"})
    upload.write(b"x")
    upload.finish()
    headers = next(headers for _, _, headers in s3.asked if "x-amz-meta-conference-name" in headers)
    kept = headers["x-amz-meta-conference-name"]
    assert 300 < len(kept) <= 400
    assert name.startswith(unquote(kept, errors="strict"))
    assert headers["x-amz-meta-account"] == "MA1"


# A key that has only the necessary permissions, and servers of any age.


@pytest.mark.parametrize("size", [1000, PART_BYTES + 1], ids=["at once", "in parts"])
@pytest.mark.parametrize(("unknown", "is_old"), [(403, False), (501, True), (404, False), (405, True)])
def test_a_key_that_may_only_put_get_and_delete_does(unknown: int, is_old: bool, size: int) -> None:
    """The server has no list of uploads, answers 403 for missing objects, or knows none of boto3's newer checksums."""
    with strict_s3() as server:
        server.unknown, server.is_old = unknown, is_old
        there = Bucket(from_environment(server.variables))
        beside = KEY.replace(".mp3", ".json")
        assert there.get_json(beside) is None and there.can_read()
        assert there.abort_uploads(KEY) == 0
        upload = there.upload(KEY, "audio/mpeg", {"account": "MA1"})
        upload.write(bytes(range(256)) * (size // 256 + 1))
        there.verify(KEY, upload.finish(), upload.etag)
        there.put_json(beside, {"size": size})
        assert there.get_json(beside) == {"size": size}
        assert b"".join(there.read_by_range(KEY)) == server.objects[KEY]
        there.delete(KEY, beside)
        assert not server.objects


def test_a_server_without_ranges_returns_the_requested_piece() -> None:
    with strict_s3() as server:
        server.knows_range = False
        server.objects[KEY] = bytes(range(256)) * 5000
        there = Bucket(from_environment(server.variables))
        assert there.piece(KEY, 300_001, 1000) == server.objects[KEY][300_001:301_001]
        assert b"".join(there.read_by_range(KEY)) == server.objects[KEY]
        with pytest.raises(RecordingFailed, match="fewer bytes of"):
            there.piece(KEY, len(server.objects[KEY]) - 1, 2)


def test_a_temporary_server_error_is_no_refusal() -> None:
    """The search for aborted uploads is repeated."""
    with strict_s3() as server:
        server.unknown = 503
        with pytest.raises(RecordingFailed, match="list_multipart_uploads"):
            Bucket(from_environment(server.variables)).abort_uploads(KEY)


def test_denied_access_is_not_taken_for_a_missing_object_without_read_permission() -> None:
    with strict_s3(LEAST - {"GetObject"}) as server:
        there = Bucket(from_environment(server.variables))
        assert there.get_json(KEY) is None and not there.can_read()
        assert not server.objects, "the probe has been removed"


def test_an_upload_that_breaks_off_is_aborted_where_that_is_allowed() -> None:
    for allowed in (LEAST, LEAST | {"AbortMultipartUpload"}):
        with strict_s3(allowed) as server:
            upload = Bucket(from_environment(server.variables)).upload(KEY, "audio/mpeg", {})
            upload.write(bytes(PART_BYTES))
            upload.abandon(RecordingFailed("Asterisk is gone"))
            assert server.asked[-1].startswith(f"DELETE {KEY}?uploadId=u1")


@pytest.mark.parametrize("missing", sorted(LEAST))
def test_the_doctor_names_the_permission_that_is_missing(missing: str) -> None:
    with strict_s3(LEAST - {missing}) as server:
        found = run_check("bucket", from_environment(server.variables))
        assert not found.passed and f"s3:{missing} on recordings/*" in found.text, found.text


@pytest.mark.parametrize("unknown", [403, 501])
def test_the_doctor_is_content_with_what_is_needed(unknown: int) -> None:
    with strict_s3() as server:
        server.unknown, server.is_old = unknown, True
        found = run_check("bucket", from_environment(server.variables))
        assert found.passed and "s3:ListBucketMultipartUploads" in found.text
        assert not server.objects
    with strict_s3(LEAST | {"ListMultipartUploads"}) as server:
        found = run_check("bucket", from_environment(server.variables))
        assert found.passed and "s3:" not in found.text


@pytest.mark.parametrize(
    ("public", "values", "says"),
    [
        ("https://c.example", {"S3_ENDPOINT": "http://s3.example"}, "RECORD_DELIVERY=web"),
        ("https://c.example", {"S3_ENDPOINT": "http://s3.example", "RECORD_DELIVERY": "web"}, None),
        ("https://c.example", {"S3_ENDPOINT": "http://x", "S3_PUBLIC_ENDPOINT": "https://s3.example"}, None),
        ("https://c.example", {"S3_ENDPOINT": "https://127.0.0.1:9000"}, "only this machine"),
        ("http://c.example", {"S3_ENDPOINT": "http://[::1]:9000"}, "only this machine"),
        ("http://127.0.0.1:8080", {"S3_ENDPOINT": "http://127.0.0.1:9000"}, None),
        ("https://c.example", {}, None),
    ],
)
def test_the_doctor_says_where_a_recording_can_not_be_played(
    public: str, values: dict[str, str], says: str | None
) -> None:
    variables = {f"ARI_CONF_{name}": text for name, text in {"PUBLIC_URL": public, **values}.items()}
    found = run_check("RecordUrl", from_environment(variables))
    assert found.passed == (says is None) and (says or "") in found.text

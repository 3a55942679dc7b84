"""The recordings' bucket: uploads that stream, what is there, addresses that hold for a while. Blocks.

Its key need only put, get and delete objects below FOLDER. Without the permission to list, S3 answers 403 for what
isn't there, and uploads that a dead worker left can't be found: see docs/operations/s3.md.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote
from uuid import uuid4

from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]

from ari_conf.bucket_client import client
from ari_conf.errors import RecordingFailed
from ari_conf.settings import Settings

FOLDER = "recordings/"
"""What all of our keys begin with."""
PART_BYTES = 5 * 1024 * 1024
"""The smallest that S3 takes, and at most 10,000 of them: 50 GB. An upload holds one of them in memory."""
CHUNK_BYTES = 256 * 1024
PIECE_BYTES = 1024 * 1024
DENIED = ("AccessDenied", "403")
"""A HEAD's answer has only the number."""


@dataclass(frozen=True, slots=True)
class Uploaded:
    size: int
    sha256: str


class Bucket:
    """Each method raises RecordingFailed when S3 refuses, or doesn't answer in time."""

    def __init__(self, settings: Settings) -> None:
        self.name = settings.s3_bucket
        self._s3 = client(settings, settings.s3_endpoint)
        self._outside = client(settings, settings.s3_public_endpoint or settings.s3_endpoint)
        self._kept: dict[str, str] = {"StorageClass": settings.s3_storage_class}
        if settings.s3_encryption:
            self._kept["ServerSideEncryption"] = settings.s3_encryption
        if settings.s3_encryption == "aws:kms" and settings.s3_kms_key:
            self._kept["SSEKMSKeyId"] = settings.s3_kms_key

    def upload(self, key: str, content_type: str, metadata: Mapping[str, str]) -> Upload:
        return Upload(self, key, content_type, metadata)

    def abort_uploads(self, key: str) -> int:
        """Those of this key that somebody began and never ended: their parts cost, and nobody sees them. Where the key
        may not do that, or the server can't, they stay."""
        try:
            found = self.call("list_multipart_uploads", Prefix=key).get("Uploads", [])
            for one in found:
                if one["Key"] == key:
                    self.abort(key, one["UploadId"])
        except RecordingFailed as failure:
            if not _is_refused(failure):
                raise
            return 0
        return len(found)

    def abort(self, key: str, upload_id: str) -> None:
        self.call("abort_multipart_upload", Key=key, UploadId=upload_id)

    def verify(self, key: str, uploaded: Uploaded, etag: str) -> None:
        """What S3 has is what was sent: by its size, and by the checksum that it made of it; where that can't be
        compared (another encryption, another server), by reading it. Raises RecordingFailed."""
        head = self.call("head_object", Key=key)
        if head["ContentLength"] != uploaded.size:
            raise RecordingFailed(f"S3 has {head['ContentLength']} bytes of {key}, {uploaded.size} were sent")
        if head["ETag"].strip('"') == etag:
            return
        digest = hashlib.sha256()
        for chunk in self.read(key):
            digest.update(chunk)
        if digest.hexdigest() != uploaded.sha256:
            raise RecordingFailed(f"S3 has another content of {key} than was sent")

    def read(self, key: str) -> Iterator[bytes]:
        body = self.call("get_object", Key=key)["Body"]
        try:
            yield from body.iter_chunks(CHUNK_BYTES)
        except (BotoCoreError, OSError) as error:
            raise RecordingFailed(f"S3 broke off: {error}") from error

    def read_at_leisure(self, key: str) -> Iterator[bytes]:
        """Piece by piece, each with a request of its own: however long one takes over a piece, nothing is held open
        that the server would close meanwhile."""
        size = self.size(key)
        for first in range(0, size, PIECE_BYTES):
            yield self.piece(key, first, min(PIECE_BYTES, size - first))

    def size(self, key: str) -> int:
        return int(self.call("head_object", Key=key)["ContentLength"])

    def piece(self, key: str, first: int, length: int) -> bytes:
        """`length` bytes from byte `first` on; there must be as many."""
        told = self.call("get_object", Key=key, Range=f"bytes={first}-{first + length - 1}")
        body, skip = told["Body"], first
        if told["ResponseMetadata"]["HTTPStatusCode"] == 206:
            skip = 0
        try:
            while skip > 0:  # a server that knows no Range: all of it comes
                if not (passed := len(body.read(min(skip, CHUNK_BYTES)))):
                    break
                skip -= passed
            found = bytes(body.read(length))
        except (BotoCoreError, OSError) as error:
            raise RecordingFailed(f"S3 broke off: {error}") from error
        finally:
            body.close()
        if len(found) != length:
            raise RecordingFailed(f"S3 has less of {key} than it should")
        return found

    def put_json(self, key: str, content: Mapping[str, Any]) -> None:
        body = json.dumps(content, ensure_ascii=False, indent=1).encode()
        self.call("put_object", Key=key, Body=body, ContentType="application/json", **self._kept)

    def get_json(self, key: str) -> dict[str, Any] | None:
        """None: there is none, or it is not told whether there is: see `can_read`."""
        try:
            text = b"".join(self.read(key))
        except RecordingFailed as error:
            if is_missing(error):
                return None
            raise
        content: dict[str, Any] = json.loads(text)
        return content

    def can_read(self) -> bool:
        """What S3 denies is not there: the key may get what there is."""
        probe = f"{FOLDER}.probe/{uuid4()}"
        self.call("put_object", Key=probe, Body=b"probe", **self._kept)
        try:
            self.call("get_object", Key=probe)["Body"].close()
        except RecordingFailed as failure:
            if code_of(failure) not in DENIED:
                raise
            return False
        finally:
            self.delete(probe)
        return True

    def delete(self, *keys: str) -> None:
        for key in keys:
            self.call("delete_object", Key=key)

    def address(self, key: str, seconds: int, file_name: str | None = None, *, head: bool = False) -> str:
        """From which it can be fetched without a login for so long; with a name a browser keeps it as a file. `head`:
        for a HEAD, since S3 signs the method too."""
        asked = {"Bucket": self.name, "Key": key}
        if file_name:
            asked["ResponseContentDisposition"] = f"attachment; filename*=UTF-8''{quote(file_name, safe='')}"
        return str(
            self._outside.generate_presigned_url(
                "head_object" if head else "get_object", Params=asked, ExpiresIn=seconds
            )
        )

    def call(self, operation: str, **asked: Any) -> Any:
        try:
            return getattr(self._s3, operation)(Bucket=self.name, **asked)
        except (BotoCoreError, ClientError, OSError) as error:
            raise RecordingFailed(f"S3, {operation}: {error}") from error


MOST_OF_METADATA = 400
"""Bytes of one entry: S3 takes 2 KB of all together, and of ours only a conference's name can be long."""


def _cut(quoted: str) -> str:
    """Not within a character, which is up to four escapes of three bytes."""
    if len(quoted) <= MOST_OF_METADATA:
        return quoted
    whole = re.sub("%[0-9A-F]?$", "", quoted[:MOST_OF_METADATA])
    return quote(unquote(whole, errors="ignore"), safe=" /:+")


class Upload:
    """Parts are sent as they are full; what is smaller than one is sent at once at the end."""

    def __init__(self, bucket: Bucket, key: str, content_type: str, metadata: Mapping[str, str]) -> None:
        self.key = key
        self.etag = ""
        self._bucket = bucket
        # In ASCII: S3 takes nothing else there. What is cut stands whole in the JSON beside the recording.
        ascii_only = {name: _cut(quote(text, safe=" /:+")) for name, text in metadata.items()}
        self._of_object = {"ContentType": content_type, "Metadata": ascii_only, **bucket._kept}
        self._buffer = bytearray()
        self._id: str | None = None
        self._parts: list[dict[str, Any]] = []
        self._digests = b""
        self._sha256 = hashlib.sha256()
        self._size = 0

    def write(self, some: bytes | bytearray) -> None:
        self._sha256.update(some)
        self._size += len(some)
        rest = memoryview(some)
        while rest:
            # All of one size but the last: some servers want it so.
            room = PART_BYTES - len(self._buffer)
            self._buffer += rest[:room]
            rest = rest[room:]
            if len(self._buffer) == PART_BYTES:
                self._send()

    def finish(self) -> Uploaded:
        if self._id is None:
            body = bytes(self._buffer)
            self._bucket.call("put_object", Key=self.key, Body=body, ContentMD5=_md5(body)[1], **self._of_object)
            self.etag = hashlib.md5(body, usedforsecurity=False).hexdigest()
        else:
            if self._buffer:
                self._send()
            parts = {"Parts": self._parts}
            self._bucket.call("complete_multipart_upload", Key=self.key, UploadId=self._id, MultipartUpload=parts)
            digest = hashlib.md5(self._digests, usedforsecurity=False).hexdigest()
            self.etag = f"{digest}-{len(self._parts)}"
        return Uploaded(self._size, self._sha256.hexdigest())

    def abandon(self, failure: BaseException) -> None:
        """What was sent of it costs nothing any more, if the key may do that, and S3 answers at all."""
        if self._id is not None and not isinstance(failure.__cause__, BotoCoreError):
            with suppress(RecordingFailed):
                self._bucket.abort(self.key, self._id)

    def _send(self) -> None:
        if self._id is None:
            self._id = self._bucket.call("create_multipart_upload", Key=self.key, **self._of_object)["UploadId"]
        number = len(self._parts) + 1
        body, self._buffer = self._buffer, bytearray()
        digest, sent_as = _md5(body)
        told = self._bucket.call(
            "upload_part", Key=self.key, UploadId=self._id, PartNumber=number, Body=body, ContentMD5=sent_as
        )
        self._parts.append({"PartNumber": number, "ETag": told["ETag"]})
        self._digests += digest


def _md5(body: bytes | bytearray) -> tuple[bytes, str]:
    digest = hashlib.md5(body, usedforsecurity=False).digest()
    return digest, base64.b64encode(digest).decode()


def is_missing(failure: RecordingFailed) -> bool:
    """There is no such object. S3 says so to those who may list; to others it denies access."""
    return _status(failure) == 404 or code_of(failure) in DENIED


def code_of(failure: RecordingFailed) -> str:
    """S3's word for what is wrong, such as NoSuchKey; "" if it didn't answer."""
    return str(_answered(failure).get("Error", {}).get("Code", ""))


def _is_refused(failure: RecordingFailed) -> bool:
    """For good: the key may not, or the server can't."""
    return 400 <= _status(failure) < 500 or _status(failure) == 501


def _status(failure: RecordingFailed) -> int:
    return int(_answered(failure).get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _answered(failure: RecordingFailed) -> dict[str, Any]:
    cause = failure.__cause__
    return cause.response if isinstance(cause, ClientError) else {}

"""Bucket of the recordings: streaming uploads, reads, and presigned URLs. Blocks.

The access key needs permission only to put, get and delete objects below FOLDER. Without permission to list, S3 returns
403 for objects that don't exist, and the uploads of a dead worker can't be found (docs/operations/object-storage.md).
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

from ari_conf.errors import RecordingFailed
from ari_conf.recordings.s3_client import client
from ari_conf.settings import Settings

FOLDER = "recordings/"
"""Prefix of all object keys of ari_conf."""
PART_BYTES = 5 * 1024 * 1024
"""Bytes of a part: the minimum that S3 accepts. With at most 10,000 parts, a recording may have 50 GB. An upload holds
one part in memory."""
CHUNK_BYTES = 256 * 1024
PIECE_BYTES = 1024 * 1024
DENIED = ("AccessDenied", "403")
"""Error codes of denied access; the response to a HEAD has only the number."""


@dataclass(frozen=True, slots=True)
class Uploaded:
    size: int
    sha256: str


class Bucket:
    """S3 bucket; each method raises RecordingFailed if S3 refuses a request or does not respond in time."""

    def __init__(self, settings: Settings) -> None:
        self.name = settings.s3_bucket
        self._s3 = client(settings, settings.s3_endpoint)
        self._public_client = client(settings, settings.s3_public_endpoint or settings.s3_endpoint)
        self._object_options: dict[str, str] = {"StorageClass": settings.s3_storage_class}
        if settings.s3_encryption:
            self._object_options["ServerSideEncryption"] = settings.s3_encryption
        if settings.s3_encryption == "aws:kms" and settings.s3_kms_key:
            self._object_options["SSEKMSKeyId"] = settings.s3_kms_key

    def upload(self, key: str, content_type: str, metadata: Mapping[str, str]) -> Upload:
        return Upload(self, key, content_type, metadata)

    def abort_uploads(self, key: str) -> int:
        """Abort the unfinished uploads of this object key, whose parts cost money, and return their number.

        They remain if the access key lacks permission or the server lacks support; the result is then 0.
        """
        try:
            uploads = self.call("list_multipart_uploads", Prefix=key).get("Uploads", [])
            for upload in uploads:
                if upload["Key"] == key:
                    self.abort(key, upload["UploadId"])
        except RecordingFailed as failure:
            if not is_refused(failure):
                raise
            return 0
        return len(uploads)

    def abort(self, key: str, upload_id: str) -> None:
        self.call("abort_multipart_upload", Key=key, UploadId=upload_id)

    def verify(self, key: str, uploaded: Uploaded, etag: str) -> None:
        """Check that S3 has what was sent. Raises RecordingFailed if not.

        The size and S3's checksum are compared. If the checksum differs (another encryption, another server), the
        object is read and its SHA-256 is compared.
        """
        head = self.call("head_object", Key=key)
        if head["ContentLength"] != uploaded.size:
            raise RecordingFailed(f"S3 has {head['ContentLength']} bytes of {key}, but {uploaded.size} were sent")
        if head["ETag"].strip('"') == etag:
            return
        digest = hashlib.sha256()
        for chunk in self.read(key):
            digest.update(chunk)
        if digest.hexdigest() != uploaded.sha256:
            raise RecordingFailed(f"the content of {key} in S3 differs from what was sent")

    def read(self, key: str) -> Iterator[bytes]:
        body = self.call("get_object", Key=key)["Body"]
        try:
            yield from body.iter_chunks(CHUNK_BYTES)
        except (BotoCoreError, OSError) as error:
            raise RecordingFailed(f"the response of S3 was cut off: {error}") from error

    def read_by_range(self, key: str) -> Iterator[bytes]:
        """Yield the object in pieces, each from its own request, so that a slow consumer holds no connection open."""
        size = self.size(key)
        for first in range(0, size, PIECE_BYTES):
            yield self.piece(key, first, min(PIECE_BYTES, size - first))

    def size(self, key: str) -> int:
        return int(self.call("head_object", Key=key)["ContentLength"])

    def piece(self, key: str, first: int, length: int) -> bytes:
        """Return `length` bytes from offset `first`. Raises RecordingFailed if the object has fewer."""
        response = self.call("get_object", Key=key, Range=f"bytes={first}-{first + length - 1}")
        body, skip = response["Body"], first
        if response["ResponseMetadata"]["HTTPStatusCode"] == 206:
            skip = 0
        try:
            while skip > 0:  # a server that does not support Range sends the whole object
                if not (skipped := len(body.read(min(skip, CHUNK_BYTES)))):
                    break
                skip -= skipped
            content = bytes(body.read(length))
        except (BotoCoreError, OSError) as error:
            raise RecordingFailed(f"the response of S3 was cut off: {error}") from error
        finally:
            body.close()
        if len(content) != length:
            raise RecordingFailed(f"S3 returned fewer bytes of {key} than requested")
        return content

    def put_json(self, key: str, content: Mapping[str, Any]) -> None:
        body = json.dumps(content, ensure_ascii=False, indent=1).encode()
        self.call("put_object", Key=key, Body=body, ContentType="application/json", **self._object_options)

    def get_json(self, key: str) -> dict[str, Any] | None:
        """Return the object. None: it does not exist, or S3 denies access, which may mean the same (see `can_read`)."""
        try:
            text = b"".join(self.read(key))
        except RecordingFailed as error:
            if is_missing(error):
                return None
            raise
        content: dict[str, Any] = json.loads(text)
        return content

    def can_read(self) -> bool:
        """Return whether the access key may read objects. If so, an object to which S3 denies access does not exist."""
        probe = f"{FOLDER}.probe/{uuid4()}"
        self.call("put_object", Key=probe, Body=b"probe", **self._object_options)
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

    def delete_below(self, prefix: str, at_most: int = 100) -> int:
        """Delete objects and unfinished uploads below a prefix, `at_most` of each; return how many there were.

        Without permission to list, they can't be found; the result is then 0."""
        try:
            objects = self.call("list_objects_v2", Prefix=prefix, MaxKeys=at_most).get("Contents", [])
            uploads = self.call("list_multipart_uploads", Prefix=prefix, MaxUploads=at_most).get("Uploads", [])
        except RecordingFailed as failure:
            if not is_refused(failure):
                raise
            return 0
        self.delete(*(one["Key"] for one in objects))
        for upload in uploads:
            self.abort(upload["Key"], upload["UploadId"])
        return len(objects) + len(uploads)

    def presigned_url(self, key: str, seconds: int, file_name: str | None = None, *, head: bool = False) -> str:
        """Return a URL that gives access to the object for `seconds` without a login.

        With `file_name`, a browser saves it as a file. `head`: the URL is for a HEAD, because S3 signs the method too.
        """
        arguments = {"Bucket": self.name, "Key": key}
        if file_name:
            arguments["ResponseContentDisposition"] = f"attachment; filename*=UTF-8''{quote(file_name, safe='')}"
        return str(
            self._public_client.generate_presigned_url(
                "head_object" if head else "get_object", Params=arguments, ExpiresIn=seconds
            )
        )

    def call(self, operation: str, **arguments: Any) -> Any:
        try:
            return getattr(self._s3, operation)(Bucket=self.name, **arguments)
        except (BotoCoreError, ClientError, OSError) as error:
            raise RecordingFailed(f"S3 {operation} failed: {error}") from error


MAX_METADATA_BYTES = 400
"""Bytes of one metadata entry. S3 accepts 2 KB of metadata in total, and only the conference name can be long."""


def _cut_quoted(quoted: str) -> str:
    """Cut a percent-encoded text, but not within a character, which has up to four escapes of three bytes."""
    if len(quoted) <= MAX_METADATA_BYTES:
        return quoted
    whole = re.sub("%[0-9A-F]?$", "", quoted[:MAX_METADATA_BYTES])
    return quote(unquote(whole, errors="ignore"), safe=" /:+")


class Upload:
    """Streaming upload: sends each part once it is full. An object without a full part is sent in one request."""

    def __init__(self, bucket: Bucket, key: str, content_type: str, metadata: Mapping[str, str]) -> None:
        self.key = key
        self.etag = ""
        self._bucket = bucket
        # S3 accepts only ASCII in metadata. The sidecar has the complete texts of entries that are cut.
        ascii_only = {name: _cut_quoted(quote(text, safe=" /:+")) for name, text in metadata.items()}
        self._object_arguments = {"ContentType": content_type, "Metadata": ascii_only, **bucket._object_options}
        self._buffer = bytearray()
        self._id: str | None = None
        self._parts: list[dict[str, Any]] = []
        self._digests = b""
        self._sha256 = hashlib.sha256()
        self._size = 0

    def write(self, data: bytes | bytearray) -> None:
        self._sha256.update(data)
        self._size += len(data)
        rest = memoryview(data)
        while rest:
            # Some servers require that all parts but the last have the same size.
            room = PART_BYTES - len(self._buffer)
            self._buffer += rest[:room]
            rest = rest[room:]
            if len(self._buffer) == PART_BYTES:
                self._send()

    def finish(self) -> Uploaded:
        if self._id is None:
            body = bytes(self._buffer)
            self._bucket.call("put_object", Key=self.key, Body=body, ContentMD5=_md5(body)[1], **self._object_arguments)
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
        """Delete the parts sent so far, unless S3 did not respond; ignore it if the access key lacks permission."""
        if self._id is not None and not isinstance(failure.__cause__, BotoCoreError):
            with suppress(RecordingFailed):
                self._bucket.abort(self.key, self._id)

    def _send(self) -> None:
        if self._id is None:
            self._id = self._bucket.call("create_multipart_upload", Key=self.key, **self._object_arguments)["UploadId"]
        number = len(self._parts) + 1
        body, self._buffer = self._buffer, bytearray()
        digest, sent_as = _md5(body)
        response = self._bucket.call(
            "upload_part", Key=self.key, UploadId=self._id, PartNumber=number, Body=body, ContentMD5=sent_as
        )
        self._parts.append({"PartNumber": number, "ETag": response["ETag"]})
        self._digests += digest


def _md5(body: bytes | bytearray) -> tuple[bytes, str]:
    digest = hashlib.md5(body, usedforsecurity=False).digest()
    return digest, base64.b64encode(digest).decode()


def is_missing(failure: RecordingFailed) -> bool:
    """Return whether the object does not exist. S3 denies access instead if the access key may not list objects."""
    return _status(failure) == 404 or code_of(failure) in DENIED


def code_of(failure: RecordingFailed) -> str:
    """Return S3's error code, such as NoSuchKey; "" if S3 did not respond."""
    return str(_error_response(failure).get("Error", {}).get("Code", ""))


def is_refused(failure: RecordingFailed) -> bool:
    """Return whether the failure is permanent: the access key lacks permission, or the server lacks support."""
    return 400 <= _status(failure) < 500 or _status(failure) == 501


def _status(failure: RecordingFailed) -> int:
    return int(_error_response(failure).get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _error_response(failure: RecordingFailed) -> dict[str, Any]:
    cause = failure.__cause__
    return cause.response if isinstance(cause, ClientError) else {}

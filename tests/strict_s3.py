"""S3 server with a bucket policy that keeps objects in memory.

It denies everything that the policy does not allow. Without the permission to list, it also denies objects that do not
exist, as AWS does.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

LEAST = frozenset({"PutObject", "GetObject", "DeleteObject"})
"""The permissions that ari_conf needs below its folder."""
NEW_HEADERS = re.compile(r"x-amz-(checksum|sdk-checksum|trailer)|x-amz-decoded")


class StrictS3:
    def __init__(self, allowed: frozenset[str] = LEAST, folder: str = "recordings/") -> None:
        self.allowed, self.folder = allowed, folder
        self.objects: dict[str, bytes] = {}
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.unknown = 403
        """The status for other operations that are not allowed: 501 for a server that does not know them."""
        self.is_old = False
        """True if the server refuses the checksums that boto3 sends by default since 2025."""
        self.knows_range = True
        self.is_away = False
        self.asked: list[str] = []
        """Log of the requests: METHOD KEY?QUERY -> STATUS CODE."""
        server = self

        class Requests(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                split = urlsplit(self.path)
                key = unquote(split.path).removeprefix("/recordings/")
                headers = {name.lower(): value for name, value in self.headers.items()}
                query = parse_qs(split.query, keep_blank_values=True)
                status, answer, more = server.serve(self.command, key, query, headers, body)
                server.asked.append(f"{self.command} {key}?{split.query[:60]} -> {status}")
                self.send_response(status)
                for name, value in more.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(answer)

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve

            def log_message(self, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *args: object) -> None:
                pass

        self._server = Server(("127.0.0.1", 0), Requests)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.variables = {
            "ARI_CONF_S3_ENDPOINT": self.url,
            "ARI_CONF_S3_ACCESS_KEY": "key",
            "ARI_CONF_S3_SECRET_KEY": "secret-of-the-tests",
        }

    def end(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def serve(
        self, method: str, key: str, query: dict[str, list[str]], headers: dict[str, str], body: bytes
    ) -> tuple[int, bytes, dict[str, str]]:
        if self.is_away:
            return _error(503, "SlowDown")
        if self.is_old and any(NEW_HEADERS.match(name) for name in headers):
            return _error(501, "NotImplemented")
        if method == "GET" and "uploads" in query:
            if "ListMultipartUploads" not in self.allowed:
                return _error(self.unknown, "AccessDenied" if self.unknown == 403 else "NotImplemented")
            return 200, b"<ListMultipartUploadsResult></ListMultipartUploadsResult>", {}
        permission = {"HEAD": "GetObject", "GET": "GetObject", "DELETE": "DeleteObject"}.get(method, "PutObject")
        if method == "DELETE" and "uploadId" in query:
            permission = "AbortMultipartUpload"
        if permission not in self.allowed or not key.startswith(self.folder):
            return _error(403, "AccessDenied")
        if method in ("GET", "HEAD"):
            return self._get(key, headers)
        if method == "DELETE":
            self.objects.pop(key, None)
            return 204, b"", {}
        return self._put(method, key, query, body)

    def _get(self, key: str, headers: dict[str, str]) -> tuple[int, bytes, dict[str, str]]:
        if key not in self.objects:
            return _error(404, "NoSuchKey") if "ListBucket" in self.allowed else _error(403, "AccessDenied")
        whole = self.objects[key]
        told = {"ETag": f'"{hashlib.md5(whole).hexdigest()}"'}
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", headers.get("range", ""))
        if asked and self.knows_range:
            first, last = int(asked[1]), min(int(asked[2]), len(whole) - 1)
            return 206, whole[first : last + 1], {"Content-Range": f"bytes {first}-{last}/{len(whole)}"}
        return 200, whole, told

    def _put(
        self, method: str, key: str, query: dict[str, list[str]], body: bytes
    ) -> tuple[int, bytes, dict[str, str]]:
        if "uploads" in query:
            self.uploads["u1"] = {}
            return 200, b"<R><UploadId>u1</UploadId></R>", {}
        if "partNumber" in query:
            self.uploads[query["uploadId"][0]][int(query["partNumber"][0])] = body
            return 200, b"", {"ETag": f'"{hashlib.md5(body).hexdigest()}"'}
        if method == "POST":
            parts = self.uploads.pop(query["uploadId"][0])
            self.objects[key] = b"".join(part for _, part in sorted(parts.items()))
            return 200, b"<R><ETag>x</ETag></R>", {}
        self.objects[key] = body
        return 200, b"", {"ETag": f'"{hashlib.md5(body).hexdigest()}"'}


def _error(status: int, code: str) -> tuple[int, bytes, dict[str, str]]:
    return status, f"<Error><Code>{code}</Code><Message>as told</Message></Error>".encode(), {}


@contextmanager
def strict_s3(allowed: frozenset[str] = LEAST) -> Iterator[StrictS3]:
    server = StrictS3(allowed)
    try:
        yield server
    finally:
        server.end()

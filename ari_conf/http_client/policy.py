"""HTTP policy: how both clients treat user URLs. Sans I/O: the clients send and receive, this module decides.

`Exchange` is one attempt: which redirects are followed and with which request, how much time is left, and the outcome.
`ResponseMeter` and `BodyLimit` bound what a server may send. `fetch` (aiohttp) and `deliver` (urllib3) use all three;
`url_guard` decides about URLs and addresses, `retry_policy` about the next attempt.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from functools import cache
from urllib.parse import urljoin, urlsplit

import certifi

from ari_conf.errors import RequestRefused
from ari_conf.http_client.prepared_request import PreparedRequest, prepare
from ari_conf.http_client.retry_policy import AttemptOutcome, Failure, RetryPolicy, retry_after_ms
from ari_conf.http_client.signature import Pairs
from ari_conf.http_client.url_guard import CheckedUrl, check_url

MAX_REDIRECTS = 5
REDIRECT_STATUSES = (301, 302, 303, 307, 308)
REPEATING_STATUSES = (307, 308)
"""Redirects that repeat a POST; after the others, a GET follows."""
MAX_HEAD_BYTES = 64 * 1024
"""Maximum number of bytes before the body of the final response begins."""
MAX_INTERIM_RESPONSES = 16
"""Maximum number of interim responses, such as `100 Continue`, before the final one."""
MAX_FRAMING_RATIO = 2
"""Maximum ratio of received bytes to body bytes, beyond the first 128 KB. Chunks of less than five bytes exceed it."""
MAX_DISCARDED_BYTES = 100 * 1024
"""Bytes that are read of a body that is not used; if there are more, the connection is closed."""
KEEP_ALIVE_S = 4.0
"""Seconds after which an idle connection is closed. Most servers close theirs after 5 s, and a POST sent at that moment
is lost. It also limits for how long a connection is used after a change in the DNS."""


class AttemptFailed(Exception):
    """Failure of an attempt; `reason` is a text to be read after the URL and a colon."""

    def __init__(self, failure: Failure, reason: str) -> None:
        super().__init__(reason)
        self.failure: Failure = failure
        self.reason = reason


class ResponseTooLong(AttemptFailed):
    """A server sent more than a bound allows. The client reads no further, and closes the connection."""

    def __init__(self, reason: str) -> None:
        super().__init__("body", reason)


FAILURES = (AttemptFailed, RequestRefused, TimeoutError)
"""Exceptions that end an attempt, to be given to `Exchange.fail`; a TimeoutError is that of the deadline."""


def no_address(host: str, why: object) -> AttemptFailed:
    return AttemptFailed("dns", f"the name {host} has no address: {why}")


def not_connected(host: str, why: object) -> AttemptFailed:
    return AttemptFailed("connect", f"no connection to {host}: {why}")


def tls_failed(why: object) -> AttemptFailed:
    return AttemptFailed("tls", f"no TLS connection: {why}")


def timed_out() -> AttemptFailed:
    return AttemptFailed("read", "it did not respond in time")


def not_http(error: Exception) -> AttemptFailed:
    return AttemptFailed("broken", f"its response was cut off or is not HTTP ({type(error).__name__})")


class Exchange:
    """One attempt: a request, the redirects that are followed, and the outcome. A client drives it:

        try:
            while (request := exchange.next_request()) is not None:
                ...  # send it before `deadline`, and receive the response
                exchange.receive_head(status, headers)
        except FAILURES as error:
            exchange.fail(error)
        return exchange.outcome(now)

    Times are seconds of a monotonic clock, the same for all calls.
    """

    def __init__(
        self,
        method: str,
        url: str,
        params: Pairs,
        *,
        tokens: Sequence[str],
        policy: RetryPolicy,
        remaining_ms: int,
        at_ms: int,
        now: float,
        conditions: Mapping[str, str] | None = None,
    ) -> None:
        """Start an attempt that has `remaining_ms`, at `now`, which is `at_ms` in epoch milliseconds.

        `url` is without its fragment. `conditions` are the headers of a conditional GET (RFC 9110 §13.1).
        """
        self.connect_s = policy.connect_ms / 1000
        """Seconds from the start of the DNS look-up to the end of the TLS handshake, for each hop."""
        self.read_s = policy.read_ms / 1000
        """Seconds to the first byte, and between packets."""
        self.deadline = now + remaining_ms / 1000
        """Time by which all hops must have ended."""
        self._started, self._at_ms = now, at_ms
        self._tokens, self._conditions = tokens, conditions or {}
        self._next: tuple[str, str, Pairs] | None = (method, url, params)
        self._request: PreparedRequest | None = None
        self._redirects = self._status = 0
        self._retry_after: str | None = None
        self._failure: AttemptFailed | None = None

    def next_request(self) -> PreparedRequest | None:
        """Return the request to send; None after the final response.

        Raises RequestRefused for the URL. The client checks the addresses when it connects (`url_guard`).
        """
        if self._next is None:
            return None
        method, url, params = self._next
        request = prepare(method, url, params, self._tokens, self._conditions)
        if self._request is not None:
            self._redirects += 1
        self._request = request
        return request

    def receive_head(self, status: int, headers: Mapping[str, str]) -> None:
        """Receive the head of the response to the request. Look-ups in `headers` ignore the case of their names.

        Raises RequestRefused for a redirect to a URL that is not allowed, AttemptFailed for one too many.
        """
        self._status, self._retry_after = status, headers.get("Retry-After")
        location = headers.get("Location")
        self._next = self._redirected(location) if status in REDIRECT_STATUSES and location else None
        if self._next is not None and self._redirects == MAX_REDIRECTS:
            raise AttemptFailed("redirects", f"it redirects more than {MAX_REDIRECTS} times")

    def _redirected(self, location: str) -> tuple[str, str, Pairs]:
        """Return (method, URL, parameters) of the request that follows a redirect.

        As in browsers, 307 and 308 repeat the request, and the others turn a POST into a GET without its body. The
        parameters of a GET are in the query of the requested URL, and the Location decides whether they are sent again.
        """
        request = self._request
        assert request is not None and self._next is not None
        try:
            url = urljoin(request.url, location.strip()).partition("#")[0]
            login = "@" in urlsplit(url).netloc
        except ValueError:
            raise RequestRefused("it redirects to an invalid URL") from None
        if login:
            raise RequestRefused("it redirects to a URL with a user name or password, which is not allowed")
        if request.target.login and _is_same_origin(request.target, url):
            url = url.replace("://", f"://{request.target.login}@", 1)
        if request.method == "POST" and self._status in REPEATING_STATUSES:
            return "POST", url, self._next[2]
        return "GET", url, ()

    @property
    def is_accepted(self) -> bool:
        """True if the response is what was requested: status 2xx, or 304 for a conditional GET."""
        return 200 <= self._status < 300 or (self._status == 304 and bool(self._conditions))

    def time_left(self, now: float, most_s: float) -> float:
        """Return the seconds until the deadline, `most_s` at most. Raises AttemptFailed if it has passed."""
        left = self.deadline - now
        if left <= 0:
            raise timed_out()
        return min(left, most_s)

    def fail(self, error: AttemptFailed | RequestRefused | TimeoutError) -> None:
        """End the attempt with one of FAILURES."""
        match error:
            case RequestRefused():
                self._failure = AttemptFailed("refused", str(error))
            case TimeoutError():
                self._failure = timed_out()
            case _:
                self._failure = error

    def outcome(self, now: float) -> AttemptOutcome:
        ms = int((now - self._started) * 1000)
        if self._failure is not None:
            failure, reason = self._failure.failure, self._failure.reason
            return AttemptOutcome(self._at_ms, ms, failure=failure, reason=reason, redirects=self._redirects)
        wait_ms = retry_after_ms(self._retry_after, self._at_ms + ms)
        return AttemptOutcome(self._at_ms, ms, self._status, retry_after_ms=wait_ms, redirects=self._redirects)


def _is_same_origin(target: CheckedUrl, url: str) -> bool:
    """Return whether `url` has the target's origin, the only one to which the target's login is sent again."""
    further = check_url(url)
    scheme = target.url.partition(":")[0]
    return (further.host, further.port) == (target.host, target.port) and further.url.startswith(f"{scheme}:")


class ResponseMeter:
    """Meter of what a server sends in response to one request, besides what `BodyLimit` bounds.

    Clients count the bytes of the connection and of the body, and report each head once it is complete.
    """

    def __init__(self) -> None:
        self.received_bytes = 0
        """Bytes received since the request was sent."""
        self.body_bytes = 0
        """The bytes of the body among them."""
        self._interim = 0
        self._has_head = False

    def receive_interim_head(self) -> None:
        self._interim += 1
        if self._interim > MAX_INTERIM_RESPONSES:
            raise _head_too_long()

    def receive_final_head(self) -> None:
        if self._has_head:
            raise ResponseTooLong("it sent more than one response")
        self._has_head = True

    def check(self) -> None:
        """Raise ResponseTooLong if no more may be received. All that was received must have been parsed."""
        if not self._has_head:
            if self.received_bytes >= MAX_HEAD_BYTES:
                raise _head_too_long()
        elif self.received_bytes > 2 * MAX_HEAD_BYTES + MAX_FRAMING_RATIO * self.body_bytes:
            raise ResponseTooLong("its response has more framing around the body than body")


def _head_too_long() -> ResponseTooLong:
    return ResponseTooLong(
        f"its response begins with more than {MAX_HEAD_BYTES} bytes of headers "
        f"or {MAX_INTERIM_RESPONSES} interim responses"
    )


class BodyLimit:
    """Limit of a body. Bodies are never decoded: a small one can expand to a huge one."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._received = 0

    @property
    def bytes_left(self) -> int:
        return self._max_bytes - self._received

    def check_head(self, headers: Mapping[str, str], announced_bytes: int | None) -> None:
        """Check a head before its body is used. Raises AttemptFailed if the body is encoded, or announced too long."""
        encoding = headers.get("Content-Encoding", "identity")
        if encoding.lower() != "identity":
            reason = f"it responded with Content-Encoding {encoding[:40]}, which was not requested"
            raise AttemptFailed("body", reason)
        if announced_bytes is not None and announced_bytes > self._max_bytes:
            raise self._too_long()

    def receive(self, count: int) -> None:
        """Count bytes of the body. Raises ResponseTooLong if there are too many."""
        self._received += count
        if self._received > self._max_bytes:
            raise self._too_long()

    def _too_long(self) -> ResponseTooLong:
        return ResponseTooLong(f"its response is longer than the {self._max_bytes} bytes that are allowed")


@cache
def tls_context() -> ssl.SSLContext:
    """Return a context that trusts the system's certificates (also SSL_CERT_FILE) and, as some have none, certifi's."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    context.set_alpn_protocols(["http/1.1"])
    return context

"""Delivery attempts: a worker's requests to user URLs. Blocking, on urllib3."""

from __future__ import annotations

import time
from collections.abc import Sequence
from urllib.parse import urlsplit

import urllib3

from ari_conf.errors import RequestRefused
from ari_conf.http_client import connect_sync
from ari_conf.http_client.prepared_request import (
    MOST_REDIRECTS,
    NO_ANSWER,
    AttemptFailed,
    PreparedRequest,
    next_hop,
    prepare,
    too_many_redirects,
)
from ari_conf.http_client.retry_policy import AttemptOutcome, RetryPolicy, retry_after_ms
from ari_conf.http_client.signature import Pairs
from ari_conf.http_client.url_guard import Networks

READ_AT_ONCE = 16 * 1024
MOST_BYTES = 100 * 1024
"""Bytes of a response body that are read and discarded; if there are more, the connection is closed."""


def attempt(
    method: str,
    url: str,
    params: Pairs,
    *,
    tokens: Sequence[str],
    policy: RetryPolicy,
    allowed_networks: Networks,
    remaining_ms: int,
    account: str = "",
) -> AttemptOutcome:
    """Make one delivery attempt within `remaining_ms`, whatever the receiver does; never raise for what it does.

    `url` is without its fragment. The body of the response is not used: a 2xx whose body does not end counts as
    delivered. A body that breaks off leaves the delivery in doubt, and the outcome is `broken`.
    """
    at_ms, started = time.time_ns() // 1_000_000, time.monotonic()
    deadline = started + remaining_ms / 1000
    connect_sync.thread_state.limits = connect_sync.Limits(
        policy.connect_ms / 1000, policy.read_ms / 1000, deadline, allowed_networks, account
    )

    def elapsed() -> int:
        return int((time.monotonic() - started) * 1000)

    hops: list[str] = []
    try:
        status, retry_after = _follow(method, url, params, tokens, allowed_networks, hops)
    except RequestRefused as error:
        return AttemptOutcome(at_ms, elapsed(), failure="refused", reason=str(error), redirects=len(hops))
    except AttemptFailed as error:
        return AttemptOutcome(at_ms, elapsed(), failure=error.failure, reason=error.reason, redirects=len(hops))
    wait_ms = retry_after_ms(retry_after, time.time_ns() // 1_000_000)
    return AttemptOutcome(at_ms, elapsed(), status, retry_after_ms=wait_ms, redirects=len(hops))


def _follow(
    method: str, url: str, params: Pairs, tokens: Sequence[str], networks: Networks, hops: list[str]
) -> tuple[int, str | None]:
    """Return the final status and Retry-After header. Append the URL of each redirect that is followed to `hops`."""
    for number in range(MOST_REDIRECTS + 1):
        hop = prepare(method, url, params, tokens)
        if number:
            hops.append(hop.url)
        response = _send(hop, networks)
        further = next_hop(hop, response.status, response.headers.get("Location"), params)
        if further is None:
            return response.status, response.headers.get("Retry-After")
        method, url, params = further
    raise too_many_redirects()


def _send(hop: PreparedRequest, networks: Networks) -> urllib3.BaseHTTPResponse:
    limits = connect_sync.thread_state.limits
    url = urlsplit(hop.url)
    try:
        pool = connect_sync.pool(url.scheme, hop.target.host, hop.target.port, networks)
        # urllib3 must send the target exactly as it was signed.
        target = f"{url.path or '/'}?{url.query}" if url.query else url.path or "/"
        response = pool.urlopen(
            hop.method,
            target,
            body=hop.body,
            headers=hop.headers,
            retries=False,
            redirect=False,
            assert_same_host=False,
            timeout=urllib3.Timeout(connect=limits.time_left(limits.connect_s), read=limits.time_left(limits.read_s)),
            preload_content=False,
            decode_content=False,
        )
        _drain(response)
        return response
    except (TimeoutError, urllib3.exceptions.TimeoutError):
        raise AttemptFailed("read", NO_ANSWER) from None
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise AttemptFailed("broken", f"its response was cut off or is not HTTP ({type(error).__name__})") from None


def _drain(raw: urllib3.BaseHTTPResponse) -> None:
    """Read the body to its end, so that the connection can be reused; beyond MOST_BYTES, close the connection."""
    left = MOST_BYTES
    try:
        while left >= 0 and (chunk := raw.read(min(READ_AT_ONCE, left + 1), decode_content=False)):
            left -= len(chunk)
    except connect_sync.EnoughRead:
        left = -1
    if left < 0:
        raw.close()
    else:
        raw.release_conn()

"""Delivery attempts: a worker's requests to user URLs. Blocking, on urllib3."""

from __future__ import annotations

import time
from collections.abc import Sequence
from urllib.parse import urlsplit

import urllib3

from ari_conf.http_client import connect_sync
from ari_conf.http_client.policy import (
    FAILURES,
    MAX_DISCARDED_BYTES,
    BodyLimit,
    Exchange,
    ResponseTooLong,
    not_http,
    timed_out,
)
from ari_conf.http_client.prepared_request import PreparedRequest
from ari_conf.http_client.retry_policy import AttemptOutcome, RetryPolicy
from ari_conf.http_client.signature import Pairs
from ari_conf.http_client.url_guard import Networks

READ_BYTES = 16 * 1024


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
    exchange = Exchange(
        method,
        url,
        params,
        tokens=tokens,
        policy=policy,
        remaining_ms=remaining_ms,
        at_ms=time.time_ns() // 1_000_000,
        now=time.monotonic(),
    )
    connect_sync.begin(exchange, allowed_networks, account)
    try:
        while (request := exchange.next_request()) is not None:
            response = _send(request, exchange)
            exchange.receive_head(response.status, response.headers)
    except FAILURES as error:
        exchange.fail(error)
    return exchange.outcome(time.monotonic())


def _send(request: PreparedRequest, exchange: Exchange) -> urllib3.BaseHTTPResponse:
    """Send the request, and return the response, with its body discarded. Raises AttemptFailed, RequestRefused."""
    url, now = urlsplit(request.url), time.monotonic()
    timeout = urllib3.Timeout(
        connect=exchange.time_left(now, exchange.connect_s), read=exchange.time_left(now, exchange.read_s)
    )
    try:
        pool = connect_sync.pool(url.scheme, request.target.host, request.target.port)
        # urllib3 must send the target exactly as it was signed.
        target = f"{url.path or '/'}?{url.query}" if url.query else url.path or "/"
        response = pool.urlopen(
            request.method,
            target,
            body=request.body,
            headers=request.headers,
            retries=False,
            redirect=False,
            assert_same_host=False,
            timeout=timeout,
            preload_content=False,
            decode_content=False,
        )
        _discard_body(response)
        return response
    except (TimeoutError, urllib3.exceptions.TimeoutError):
        raise timed_out() from None
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise not_http(error) from None


def _discard_body(response: urllib3.BaseHTTPResponse) -> None:
    """Read the body to its end, so that the connection can be reused; close the connection if the body is too long."""
    limit = BodyLimit(MAX_DISCARDED_BYTES)
    try:
        while chunk := response.read(min(READ_BYTES, limit.bytes_left + 1), decode_content=False):
            limit.receive(len(chunk))
    except ResponseTooLong:
        response.close()
    else:
        response.release_conn()

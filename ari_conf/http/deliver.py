"""One try to deliver a request to a user's URL, for the workers: blocking, on urllib3."""

from __future__ import annotations

import time
from collections.abc import Sequence
from urllib.parse import urlsplit

import urllib3

from ari_conf.errors import RequestRefused
from ari_conf.http import connect_sync
from ari_conf.http.guard import Networks
from ari_conf.http.hop import MOST_REDIRECTS, NO_ANSWER, Hop, TryFailed, prepare, redirected, too_many_redirects
from ari_conf.http.retry import Outcome, Policy, retry_after_ms
from ari_conf.http.signature import Pairs

READ_AT_ONCE = 16 * 1024
MOST_BYTES = 100 * 1024
"""Of an answer's body, which is thrown away: beyond it the connection is, too."""


def attempt(
    method: str,
    url: str,
    params: Pairs,
    *,
    tokens: Sequence[str],
    policy: Policy,
    allowed_networks: Networks,
    remaining_ms: int,
    account: str = "",
) -> Outcome:
    """Ends within `remaining_ms`, whatever the receiver does, and never raises for what they do.

    `url` is without its fragment. The body of a callback's answer matters to nobody: a 2xx whose body has no end is
    delivered; one that breaks off is not known to have been, and is `broken`.
    """
    at_ms, started = time.time_ns() // 1_000_000, time.monotonic()
    deadline = started + remaining_ms / 1000
    connect_sync.here.limits = connect_sync.Limits(
        policy.connect_ms / 1000, policy.read_ms / 1000, deadline, allowed_networks, account
    )

    def elapsed() -> int:
        return int((time.monotonic() - started) * 1000)

    hops: list[str] = []
    try:
        status, retry_after = _follow(method, url, params, tokens, allowed_networks, hops)
    except RequestRefused as error:
        return Outcome(at_ms, elapsed(), failure="refused", reason=str(error), redirects=len(hops))
    except TryFailed as error:
        return Outcome(at_ms, elapsed(), failure=error.failure, reason=error.reason, redirects=len(hops))
    wait_ms = retry_after_ms(retry_after, time.time_ns() // 1_000_000)
    return Outcome(at_ms, elapsed(), status, retry_after_ms=wait_ms, redirects=len(hops))


def _follow(
    method: str, url: str, params: Pairs, tokens: Sequence[str], networks: Networks, hops: list[str]
) -> tuple[int, str | None]:
    """`hops` is told of each redirect that is followed."""
    for number in range(MOST_REDIRECTS + 1):
        hop = prepare(method, url, params, tokens)
        if number:
            hops.append(hop.url)
        response = _send(hop, networks)
        further = redirected(hop, response.status, response.headers.get("Location"), params)
        if further is None:
            return response.status, response.headers.get("Retry-After")
        method, url, params = further
    raise too_many_redirects()


def _send(hop: Hop, networks: Networks) -> urllib3.BaseHTTPResponse:
    limits = connect_sync.here.limits
    url = urlsplit(hop.url)
    try:
        pool = connect_sync.pool(url.scheme, hop.target.host, hop.target.port, networks)
        # As it was signed: urllib3 spells it no other way.
        target = f"{url.path or '/'}?{url.query}" if url.query else url.path or "/"
        response = pool.urlopen(
            hop.method,
            target,
            body=hop.body,
            headers=hop.headers,
            retries=False,
            redirect=False,
            assert_same_host=False,
            timeout=urllib3.Timeout(connect=limits.left(limits.connect_s), read=limits.left(limits.read_s)),
            preload_content=False,
            decode_content=False,
        )
        _throw_away(response)
        return response
    except (TimeoutError, urllib3.exceptions.TimeoutError):
        raise TryFailed("read", NO_ANSWER) from None
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise TryFailed("broken", f"its answer broke off or is not HTTP ({type(error).__name__})") from None


def _throw_away(raw: urllib3.BaseHTTPResponse) -> None:
    """Up to the body's end, so that the connection can be used again; beyond MOST_BYTES that is not worth it."""
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

"""Plivo's Python SDK, set up as in docs/guide/sdks.md: all of its requests go to this server, and to no other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import plivo
import pytest
import requests
from plivo.exceptions import ResourceNotFoundError
from plivo.resources import lookup
from plivo.rest import base_client, client, phlo_client

PAGE = (Path(__file__).parents[1] / "docs/guide/sdks.md").read_text()
MODULES = (client, base_client, phlo_client, lookup)
MP = "MAXXXXXXXXXXXXXXXXXX"


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """Yield the set of hosts to which requests went; no request leaves this process."""
    asked: set[str] = set()

    def send(_: requests.Session, request: requests.PreparedRequest, **__: object) -> requests.Response:
        asked.add(urlsplit(request.url or "").netloc)
        assert request.headers["Authorization"].startswith("Basic ")
        told = requests.Response()
        told.status_code, told.url = 404, request.url or ""
        told._content = b'{"api_id": "1", "error": "Plivo\'s Call/ is not offered here", "objects": []}'
        return told

    monkeypatch.setattr(requests.Session, "send", send)
    before = [dict(vars(module)) for module in MODULES]
    yield asked
    for module, values in zip(MODULES, before, strict=True):
        vars(module).update(values)


def test_no_request_of_the_sdk_goes_to_another_host(hosts: set[str]) -> None:
    (snippet,) = re.findall(r"## Python\n.*?```python\n(.*?)```", PAGE, re.DOTALL)
    with pytest.raises(ResourceNotFoundError):
        exec(snippet, {})
    api = plivo.RestClient(MP, "token")
    calls = (
        lambda: api.account.get(),
        lambda: api.numbers.list(),
        lambda: api.messages.create(src="14155550100", dst="14155550101", text="x"),
        lambda: api.pricing.get("US"),
        lambda: api.subaccounts.list(),
        lambda: api.applications.list(),
        lambda: api.calls.create(from_="14155550100", to_="14155550101", answer_url="https://example.com/"),
        lambda: api.calls.list(),
        lambda: api.live_calls.list_ids(),
        lambda: api.calls.transfer("x" * 36, legs="aleg", aleg_url="https://example.com/"),
        lambda: api.calls.play("x" * 36, "https://example.com/a.mp3"),
        lambda: api.calls.play_stop("x" * 36),
        lambda: api.calls.speak("x" * 36, "hello"),
        lambda: api.calls.speak_stop("x" * 36),
        lambda: api.calls.send_digits("x" * 36, "1"),
        lambda: api.multi_party_calls.list(),
        lambda: api.recordings.list(),
        lambda: api.conferences.list(),
        lambda: api.lookup.get("14155550100"),
        lambda: api.call_feedback.create("x" * 36, "5"),
        lambda: plivo.phlo.RestClient(MP, "token").phlo.get("x" * 36).run(),
    )
    for call in calls:
        hosts.clear()
        with pytest.raises(Exception):  # noqa: B017 (whatever the SDK makes of a 404)
            call()
        assert hosts == {"conference.example.com"}
    hosts.clear()
    with pytest.raises(ResourceNotFoundError):
        api.calls.list()
    assert hosts == {"conference.example.com"}

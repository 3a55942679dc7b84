"""The example program: its documents run without a warning, and it answers only signed requests."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import requests

from ari_conf.core import elements as el
from ari_conf.documents import parser
from ari_conf.http_client.signature import headers
from demo.example import Example

TOKEN = "t" * 40


@pytest.fixture
def example() -> Iterator[Example]:
    with Example(0, TOKEN) as example:
        serving = threading.Thread(target=example.serve_forever)
        serving.start()
        yield example
        example.shutdown()
        serving.join()


def post_signed(example: Example, path: str, token: str = TOKEN, **params: str) -> requests.Response:
    url = example.url + path
    signed = headers("POST", url, list(params.items()), [token], "nonce")
    return requests.post(url, params, headers=signed, timeout=10)


def test_the_right_pin_leads_into_the_conference(example: Example) -> None:
    first = parser.parse(post_signed(example, "/answer", From="15550100").content)
    assert isinstance(first.elements[0], el.GetDigits) and first.warnings == ()
    again = parser.parse(post_signed(example, "/pin", Digits="9999").content)
    assert again.elements == first.elements
    let_in = parser.parse(post_signed(example, "/pin", Digits="1234").content)
    assert isinstance(let_in.elements[-1], el.Conference) and let_in.warnings == ()
    assert post_signed(example, "/events", Event="ConferenceEnter", From="15550100").status_code == 200
    assert example.events == [{"Event": "ConferenceEnter", "From": "15550100"}]


def test_unsigned_request_is_refused(example: Example) -> None:
    assert post_signed(example, "/answer", token="x" * 40, From="15550100").status_code == 403
    assert requests.post(example.url + "/answer", {"From": "15550100"}, timeout=10).status_code == 403

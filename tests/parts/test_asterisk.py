from __future__ import annotations

import pytest

from ari_conf.parts.asterisk import opens_websockets


@pytest.mark.parametrize(
    ("version", "can"),
    [
        ("Asterisk 22.10.1+dfsg+~cs6.17.60671434-1", True),
        ("Asterisk 22.5.0", True),
        ("Asterisk 22.4.1", False),
        ("Asterisk 21.10.2", True),
        ("Asterisk 21.9.0", False),
        ("Asterisk 20.15.0", True),
        ("Asterisk 20.6.0~dfsg+~cs6.13.40431414-2build5", False),
        ("Asterisk 23.0.0", True),
        ("Asterisk 18.26.4", False),
        ("", False),
    ],
)
def test_which_asterisk_opens_the_websocket_itself(version: str, can: bool) -> None:
    assert opens_websockets(version) is can

"""Tests of the start of a call's recording: each of its two steps may be repeated."""

from __future__ import annotations

from typing import Any

import pytest

from ari_conf.ari import snoop_recording
from ari_conf.core.effects import Snoop, StartRecording
from ari_conf.errors import AriError, AriNotFound, AriUnreachable

SNOOP = "c.u1.recording.r1.in"
EFFECT = StartRecording(SNOOP, "r1", "MA1", False, Snoop("c1", "in"))


class Ari:
    """Fake of Asterisk that has a call's channel, and refuses what Asterisk refuses."""

    app = "conf"

    def __init__(self, arrives_after: int = 0) -> None:
        self.arrives_after = arrives_after
        """Number of requests to record the snoop channel before it is in the Stasis application."""
        self.channels = {"c1"}
        self.recordings: set[str] = set()
        self.sent: list[str] = []
        self.lost: set[str] = set()
        """Requests that are carried out, and whose response is lost."""

    async def request(self, method: str, path: str, query: Any = None, **_: Any) -> Any:
        self.sent.append(f"{method} {path}")
        self._obey(method, path.split("/")[1:], query)
        if f"{method} {path}" in self.lost:
            self.lost.remove(f"{method} {path}")
            raise AriUnreachable("no answer", sent=True)

    def _obey(self, method: str, path: list[str], query: Any) -> None:
        match [method, *path]:
            case ["POST", "channels", channel_id, "snoop", snoop_id]:
                assert query == {"spy": "in", "app": "conf"}
                if channel_id not in self.channels:
                    raise AriNotFound("Channel not found", 404)
                if snoop_id in self.channels:
                    raise AriError("Snoop channel could not be created", 500)
                self.channels.add(snoop_id)
            case ["POST", "channels", channel_id, "record"] if channel_id in self.channels:
                self.arrives_after -= 1
                if self.arrives_after >= 0 or query["name"] in self.recordings:
                    raise AriError("Channel not in Stasis application", 409)
                self.recordings.add(query["name"])
            case ["GET", "channels", channel_id] if channel_id in self.channels:
                pass
            case ["GET", "recordings", "live", name] if name.replace("%2F", "/") in self.recordings:
                pass
            case _:
                raise AriNotFound("not found", 404)


async def started(ari: Ari) -> None:
    await snoop_recording.start(ari, EFFECT)  # type: ignore[arg-type]


async def test_a_snoop_channel_is_created_and_recorded() -> None:
    ari = Ari()
    await started(ari)
    assert ari.sent == [f"POST /channels/c1/snoop/{SNOOP}", f"POST /channels/{SNOOP}/record"]


async def test_the_channel_takes_a_moment_to_arrive() -> None:
    ari = Ari(arrives_after=3)
    await started(ari)
    assert ari.recordings == {f"MA1/{SNOOP}"}


@pytest.mark.parametrize("what", [f"POST /channels/c1/snoop/{SNOOP}", f"POST /channels/{SNOOP}/record"])
async def test_a_lost_response_leads_to_one_recording(what: str) -> None:
    ari = Ari()
    ari.lost = {what}
    with pytest.raises(AriUnreachable):
        await started(ari)
    await started(ari)
    assert ari.recordings == {f"MA1/{SNOOP}"} and ari.channels == {"c1", SNOOP}


async def test_a_call_that_has_ended() -> None:
    ari = Ari()
    ari.channels.clear()
    with pytest.raises(AriNotFound):
        await started(ari)


async def test_a_channel_that_never_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snoop_recording, "ARRIVAL_DELAY_S", 0)
    ari = Ari(arrives_after=1000)
    with pytest.raises(AriError, match="not in Stasis"):
        await started(ari)
    assert len(ari.sent) < 300

"""Line meter: measures the quality of members' lines, from the RTP statistics that the RTP monitor polls.

Each line is measured every INTERVAL_S, but at most MAX_MEASUREMENTS of all lines in one round of the monitor, the one
measured longest ago first: with more members than that allows, all are measured less often. Each measurement is an
event for the engine (LineMeasured). It takes 0.4 ms of CPU time, with its step.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from ari_conf.ari.client import Client
from ari_conf.ari.invite import CODEC_VARIABLE
from ari_conf.ari.translate import path
from ari_conf.core import events as ev
from ari_conf.core.quality import LineCounters, measure

INTERVAL_S = 10.0
MAX_MEASUREMENTS = 10
WINDOW_S = 30.0
"""Seconds that a line's current figures are of. Asterisk and phones count lost packets every 5 s: in less time, the
number of these counts would vary too much."""
MAX_ROUND_TRIP_S = 10.0
"""A longer round trip is a mistake: Asterisk (22.10.1) computes 65,536 s if a phone's clock runs fast."""
MAX_PACKETS_PER_S = 150
"""More packets per second can't be lost: the sequence numbers have jumped."""


class Statistics(msgspec.Struct):
    """The needed fields of Asterisk's answer: counters of packets and bytes, the phone's SSRC, and times in seconds.

    `rx` is from the phone, `tx` is to the phone; but `txjitter` is the jitter of what Asterisk receives, and `rxjitter`
    what the phone reports (seen on Asterisk 22.10.1, and in res_rtp_asterisk.c of 20 to 23)."""

    remote_ssrc: int = 0
    rxcount: int = 0
    rxoctetcount: int = 0
    rxploss: int = 0
    txcount: int = 0
    txploss: int = 0
    """The phone's last report as a number of 24 bits, which is negative if it received packets twice (RFC 3550,
    6.4.1)."""
    txjitter: float = 0.0
    rxjitter: float = 0.0
    rtt: float = 0.0
    txmes: float | None = None
    """None: Asterisk is older than 20.5, where `rxjitter` has another unit."""


def counters_of(found: Statistics, now: float) -> LineCounters:
    has_reports = bool(found.rtt or found.txploss or found.rxjitter)
    return LineCounters(
        now,
        found.rxcount,
        found.rxploss,
        found.txjitter * 1000,
        found.txcount,
        (found.txploss if found.txploss < 1 << 23 else found.txploss - (1 << 24)) if has_reports else None,
        found.rxjitter * 1000 if has_reports and found.txmes is not None else None,
        found.rtt * 1000 if 0 < found.rtt < MAX_ROUND_TRIP_S else None,
    )


@dataclass(slots=True)
class _Line:
    measured_at: float = float("-inf")
    is_due: bool = False
    conference_id: str | None = None
    """The conference that the counters belong to."""
    stream: int = 0
    """SSRC of the phone's stream."""
    codec: str | None = None
    """None: not asked yet."""
    counters: deque[LineCounters] = field(default_factory=deque)

    def has_jumped(self, latest: LineCounters) -> bool:
        """Return True if the sequence numbers have jumped, which Asterisk counts as lost packets."""
        if not self.counters:
            return False
        before = self.counters[-1]
        return latest.lost_in - before.lost_in > MAX_PACKETS_PER_S * (latest.at_s - before.at_s)


class LineMeter:
    def __init__(self, ari: Client, deliver: Callable[[ev.Event], None]) -> None:
        self._ari = ari
        self._deliver = deliver
        self._lines: OrderedDict[str, _Line] = OrderedDict()
        """Lines by channel id; the one measured longest ago comes first."""

    def add(self, channel_id: str) -> None:
        self._lines[channel_id] = _Line()

    def forget(self, channel_id: str) -> None:
        self._lines.pop(channel_id, None)

    def start_over(self) -> None:
        self._lines.clear()

    def choose(self, now: float) -> list[str]:
        """Return the channels whose statistics are to be polled in this round, for a measurement."""
        chosen: list[str] = []
        for channel_id, line in self._lines.items():
            if len(chosen) == MAX_MEASUREMENTS or now - line.measured_at < INTERVAL_S:
                break
            line.is_due, line.measured_at = True, now
            chosen.append(channel_id)
        for channel_id in chosen:
            self._lines.move_to_end(channel_id)
        return chosen

    async def process(self, channel_id: str, conference_id: str | None, found: Statistics, now: float) -> None:
        """Measure the line if it is due. `conference_id`: of the member; None: the caller is no member, and their line
        is not measured. Raises AriError."""
        line = self._lines.get(channel_id)
        if line is None or not line.is_due:
            return
        line.is_due = False
        if conference_id is None:
            line.conference_id = None
            return
        if line.codec is None:
            line.codec = await self._codec(channel_id)
        latest = counters_of(found, now)
        if line.conference_id != conference_id or line.stream != found.remote_ssrc or line.has_jumped(latest):
            line.counters.clear()
        line.conference_id, line.stream = conference_id, found.remote_ssrc
        line.counters.append(latest)
        while len(line.counters) > 2 and now - line.counters[1].at_s >= WINDOW_S:
            line.counters.popleft()
        if len(line.counters) > 1 and (measured := measure(tuple(line.counters), line.codec)) is not None:
            self._deliver(ev.LineMeasured(channel_id, measured))

    async def _codec(self, channel_id: str) -> str:
        """Return Asterisk's name of the channel's codec."""
        answer = await self._ari.request("GET", path("channels", channel_id, "variable"), {"variable": CODEC_VARIABLE})
        return str(answer.get("value", "")).strip("()").split("|")[0] if isinstance(answer, dict) else ""

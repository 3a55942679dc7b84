"""Callers in large numbers: SIPp, with audio in both directions, and its record of each call."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import numpy as np

from ari_conf.local import processes
from ari_conf.local.asterisk import LocalAsterisk
from demo import g711

TONE_HZ, TONE_DBFS = 425, -36.0
"""Loud enough to count as talking; twenty together are not too loud."""
TALKS_S, PAUSES_S = 1, 4
"""Seconds. One in five talks: with floor events enabled, some member talks at any time."""
NEVER_MS = 60_000.0
"""The value for events that did not occur: longer than any caller waits."""
ENDS_S = 30.0
"""Seconds after the last caller's hold until all calls have ended."""

Line = tuple[str, str]
"""The caller's number, and the number that they dial."""


@dataclass(frozen=True)
class Call:
    caller: str
    invited_ms: float
    """Epoch ms at which SIPp sent the INVITE."""
    answered_ms: float | None
    """Epoch ms of the 200, or None if it never came."""

    @property
    def took_ms(self) -> float:
        return self.answered_ms - self.invited_ms if self.answered_ms else NEVER_MS


def lines(prefix: str, count: int, per_conference: int = 20, first: int = 0) -> list[Line]:
    """Return callers and conferences. `first`: the number of the first conference."""
    return [(f"1{first:04}{n:06}", f"{prefix}{first + n // per_conference:04}") for n in range(count)]


class Callers:
    """One SIPp process: the callers call one after another at `rate` per second, each for `hold_s` seconds."""

    def __init__(
        self, asterisk: LocalAsterisk, callers: Sequence[Line], rate: float, hold_s: float, *, sound: bool = True
    ) -> None:
        self._asterisk = asterisk
        self._callers = list(callers)
        self._rate, self._hold_s, self._sound = rate, hold_s, sound
        number = sum(1 for _ in asterisk.folder.glob("sipp-*"))
        self.folder = asterisk.folder / f"sipp-{number}"
        """The folder must be visible in the system in which SIPp runs."""

    async def start(self) -> None:
        self.folder.mkdir()
        scenario = (files("tests.bench") / "sip_caller.xml").read_text()
        stream = f'<nop><action><exec rtp_stream="{self.folder}/tone.ulaw,-1,0,PCMU/8000"/></action></nop>'
        scenario = scenario.replace("@SPEAK@", stream if self._sound else "")
        (self.folder / "caller.xml").write_text(scenario.replace("@HOLD_MS@", str(round(self._hold_s * 1000))))
        (self.folder / "tone.ulaw").write_bytes(_tone())
        rows = "".join(f"{who};{dialled}\n" for who, dialled in self._callers)
        (self.folder / "callers.csv").write_text(f"SEQUENTIAL\n{rows}")
        target = f"{self._asterisk.host}:{self._asterisk.sip_port}"
        count = len(self._callers)
        words = (
            f"cd {self.folder} && exec sipp {target} -sf caller.xml -inf callers.csv -i 127.0.0.1 -mi 127.0.0.1 "
            f"-m {count} -l {count} -r {self._rate:g} -nostdin -trace_shortmsg -shortmessage_file messages.tsv "
            f"-trace_err -error_file errors.log -rtp_threadtasks 200"
        )
        command = self._asterisk.command("sh", "-c", words)
        self.process = await processes.start("sipp", command, self.folder / "output.log")

    @property
    def pid(self) -> int:
        return self.process.pid

    async def ended(self) -> None:
        """Wait until all callers have hung up. Raises RuntimeError if they don't."""
        within = len(self._callers) / self._rate + self._hold_s + ENDS_S
        if not await processes.wait_ended(self.process, within=within):
            await self.stop()
            raise RuntimeError(f"SIPp's calls did not end within {within:.0f} s; see {self.folder}")

    async def answered(self, within: float = 20.0) -> bool:
        """Wait until all calls are answered; return False if they are not in time."""
        end = asyncio.get_running_loop().time() + len(self._callers) / self._rate + within
        while any(call.answered_ms is None for call in self.calls()) or len(self.calls()) < len(self._callers):
            if asyncio.get_running_loop().time() > end or not self.process.is_running:
                return False
            await asyncio.sleep(0.2)
        return True

    async def stop(self) -> None:
        """Stop immediately, without hanging up."""
        processes.kill(self.process)

    def calls(self) -> list[Call]:
        """Return the calls in SIPp's message trace, which has the microsecond of each sent or received message."""
        invited: dict[int, float] = {}
        answered: dict[int, float] = {}
        path = self.folder / "messages.tsv"
        for row in path.read_text().splitlines() if path.exists() else ():
            fields = row.split("\t")
            if len(fields) < 7 or fields[5] != "CSeq:1 INVITE":
                continue
            call = int(fields[4].partition("-")[0])
            if fields[3] == "S":
                invited.setdefault(call, float(fields[2]) * 1000)
            elif fields[6].startswith("SIP/2.0 200"):
                answered.setdefault(call, float(fields[2]) * 1000)
        return [Call(self._callers[call - 1][0], at, answered.get(call)) for call, at in sorted(invited.items())]


async def run(
    asterisk: LocalAsterisk, callers: Sequence[Line], rate: float, hold_s: float, *, sound: bool = True
) -> list[Call]:
    sipp = Callers(asterisk, callers, rate, hold_s, sound=sound)
    await sipp.start()
    try:
        await sipp.ended()
    finally:
        await sipp.stop()
    return sipp.calls()


def _tone() -> bytes:
    at = np.arange(TALKS_S * g711.RATE) / g711.RATE
    loud = np.sin(2 * np.pi * TONE_HZ * at) * 32767 * 10 ** (TONE_DBFS / 20)
    return g711.encode(np.round(loud).astype(np.int16)) + g711.SILENCE * (PAUSES_S * g711.RATE)

"""Names of conferences that Redis is still to be told are ours: taken while it was away, or by a process before us."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice

from ari_conf.core.directory import Directory
from ari_conf.core.effects import ClaimName
from ari_conf.store import Step
from ari_conf.writer import Writer

COMPARING_S, CLAIMED_AT_ONCE = 10.0, 200


class Names:
    def __init__(
        self,
        directory: Directory,
        writer: Writer,
        report: Callable[[str, str], None],
        compared: asyncio.Event,
        now_ms: Callable[[], int],
    ) -> None:
        """`report` tells an account of a problem; `compared` is set once it is known what Asterisk has."""
        self._directory = directory
        self._writer = writer
        self._report = report
        self._compared = compared
        self._now_ms = now_ms

    def claim_later(self, *claims: ClaimName) -> None:
        """With the next write."""
        step = Step(self._now_ms())
        step.claims += [(claim, partial(self._is_elsewhere, claim)) for claim in claims]
        self._writer.put(step, [])

    def claim_all(self) -> None:
        self.claim_later(*self._held(self._directory.conferences))

    async def claim_in_parts(self) -> None:
        """Names that were taken while nobody served them; or that a process before us could not claim in Redis. New
        callers are first: they come to the conference that is here, whatever is found."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._compared.wait(), COMPARING_S)
        left = iter(tuple(self._directory.conferences))
        while part := tuple(islice(left, CLAIMED_AT_ONCE)):
            if claims := self._held(part):
                self.claim_later(*claims)
            await self._writer.drained()

    def _held(self, conference_ids: Iterable[str]) -> list[ClaimName]:
        found = [c for key in conference_ids if (c := self._directory.conferences.get(key)) is not None]
        held = [c for c in found if c.claim == "held" and self._directory.has_name(c)]
        return [ClaimName(c.auth_id, c.name, c.conference_id) for c in held]

    def _is_elsewhere(self, claim: ClaimName, owner: str) -> None:
        # Nobody on the phone is to notice: both conferences go on, and the map of names leads to the other one.
        text = (
            f"the conference {claim.name!r} goes on at two Asterisks: while one of them was out of reach, {owner} took "
            "the name. Their callers don't hear each other; new callers and the API come to the one there"
        )
        self._report(claim.auth_id, text)

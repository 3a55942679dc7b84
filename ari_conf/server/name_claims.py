"""Pending name claims: conference names that this server uses but has not yet claimed in Redis.

Redis was unreachable when the name was taken, or a previous process took it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice

from ari_conf.core.conferences.conference_state import ClaimState
from ari_conf.core.effects import ClaimName
from ari_conf.core.engine import Engine
from ari_conf.core.problem_kinds import ProblemKind
from ari_conf.server.step_writer import StepWriter
from ari_conf.store.step_batch import NameClaim, Step

RECONCILIATION_TIMEOUT_S, CLAIM_BATCH = 10.0, 200


class NameClaims:
    def __init__(
        self,
        engine: Engine,
        writer: StepWriter,
        report: Callable[[str, ProblemKind, str], None],
        reconciled: asyncio.Event,
        now_ms: Callable[[], int],
    ) -> None:
        """Create the claimer. `report` adds a problem to an account; `reconciled` is set after the reconciliation."""
        self._engine = engine
        self._writer = writer
        self._report = report
        self._reconciled = reconciled
        self._now_ms = now_ms

    def enqueue(self, *claims: ClaimName) -> None:
        """Add the claims to the next write."""
        step = Step(self._now_ms())
        step.claims += [NameClaim(claim, partial(self._report_conflict, claim)) for claim in claims]
        self._writer.submit(step, [])

    async def claim_in_batches(self) -> None:
        """Claim the names of all conferences again, once reconciled or after RECONCILIATION_TIMEOUT_S.

        Another server may have taken a name while no server owned it, or the previous process could not claim it in
        Redis. New callers need not wait: they join this server's conference, whatever the result.
        """
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._reconciled.wait(), RECONCILIATION_TIMEOUT_S)
        remaining = iter(tuple(self._engine.conferences))
        while batch := tuple(islice(remaining, CLAIM_BATCH)):
            if claims := self._granted_claims(batch):
                self.enqueue(*claims)
            await self._writer.wait_until_drained()

    def _granted_claims(self, conference_ids: Iterable[str]) -> list[ClaimName]:
        found = [c for key in conference_ids if (c := self._engine.conferences.get(key)) is not None]
        granted = [c for c in found if c.claim is ClaimState.GRANTED and self._engine.registry.has_name(c)]
        granted = [c for c in granted if not c.is_private]
        return [ClaimName(c.auth_id, c.name, c.conference_id) for c in granted]

    def _report_conflict(self, claim: ClaimName, owner: str) -> None:
        # Callers should not notice: both conferences continue, and the map of names leads to the other one.
        text = (
            f"conference {claim.name!r} is running on two Asterisk servers: {owner} took the name while the other was "
            "unreachable. Callers on the two servers can't hear each other; new callers and API requests go to the one "
            f"on {owner}"
        )
        self._report(claim.auth_id, ProblemKind.CONFERENCE_SPLIT, text)

"""One system for all scenarios of a process; each has its own account and receiver, and must leave nothing behind.

A scenario that breaks the system (a part died, something was left) fails alone: the next one gets a new system.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from ari_conf.local.system import COMPONENTS, LocalSystem
from tests.integration import table
from tests.integration.stage import ALLOWED, PartEnded, Stage, ended_parts, staged


class Shared:
    """The system that scenarios share until one of them breaks it."""

    def __init__(self, folder: Callable[[], Path], components: tuple[str, ...] = COMPONENTS) -> None:
        self._folder = folder
        self._components = components
        self._system: LocalSystem | None = None

    async def system(self) -> LocalSystem:
        if self._system is not None and (ended := ended_parts(self._system, "after the scenario before this one")):
            await self.end()
            raise PartEnded(ended)
        if self._system is None:
            system = LocalSystem(self._folder(), ALLOWED, self._components)
            self._system = await system.__aenter__()
        return self._system

    async def end(self) -> None:
        """Stop the system; the next call of `system` starts another."""
        if self._system is not None:
            system, self._system = self._system, None
            await system.stop_all()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Shared]:
    shared = Shared(lambda: tmp_path_factory.mktemp("system"))
    yield shared
    await shared.end()


@pytest_asyncio.fixture(loop_scope="session")
async def stage(shared: Shared, request: pytest.FixtureRequest) -> AsyncGenerator[Stage]:
    try:
        async with staged(await shared.system()) as stage:
            request.node.stash[table.SEEN] = stage.seen
            request.node.stash[table.ASTERISK] = await stage.asterisk()
            yield stage
            stage.all_there()
    except BaseException:
        await shared.end()
        raise


@pytest_asyncio.fixture(loop_scope="session")
async def own(tmp_path: Path) -> AsyncGenerator[Stage]:
    """Yield a stage whose system the test may kill."""
    parts = ("redis", "asterisk", "worker", "serve")
    async with LocalSystem(tmp_path, ALLOWED, parts) as system, staged(system) as stage:
        yield stage

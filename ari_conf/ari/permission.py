"""Permission to act for the calls of an Asterisk: the server's lease, or always."""

from __future__ import annotations

from typing import Protocol


class ActPermission(Protocol):
    """Permission to act for the calls of this Asterisk."""

    @property
    def is_held(self) -> bool:
        """True while the permission is held."""

    async def wait_until_held(self) -> None:
        """Wait until the permission is held."""


class AlwaysPermitted:
    """Permission that is always held."""

    is_held = True

    async def wait_until_held(self) -> None:
        return


ALWAYS_PERMITTED = AlwaysPermitted()

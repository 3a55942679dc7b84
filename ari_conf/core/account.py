"""An account as the core sees it: without its token, which only signing needs."""

from dataclasses import dataclass

PLIVOS_MEMBERS, MOST_MEMBERS = 20, 1000
"""Of a conference: what Plivo allows, and the most that an operator may."""


@dataclass(frozen=True, slots=True)
class Account:
    auth_id: str
    answer_url: str | None = None
    answer_method: str = "POST"
    fallback_url: str | None = None
    fallback_method: str = "POST"
    hangup_url: str | None = None
    hangup_method: str = "POST"
    transcription_rate: str = "0"
    """Price of a minute, a decimal number."""
    max_members: int = PLIVOS_MEMBERS
    """Of a conference: the most that maxMembers may be, and its default. "An operator may raise the 20"."""

    def most_members(self, wanted: int | None) -> int:
        return self.max_members if wanted is None or wanted > self.max_members else wanted

    def refused_members(self, wanted: int | None) -> str:
        """What is wrong with a document's maxMembers; empty if nothing is."""
        if wanted is None or wanted <= self.max_members:
            return ""
        most = self.max_members
        return f'Conference: maxMembers="{wanted}" is not allowed (a whole number from 1 to {most}); {most} is used'

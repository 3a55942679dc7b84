"""Account: the core's view of an account, without its auth token, which only signing needs."""

from ari_conf.core.frozen import Frozen

PLIVOS_MEMBERS, MAX_MEMBERS = 20, 1000
"""Members of one conference: Plivo's limit, and the highest limit that an operator may set."""


class Account(Frozen):
    auth_id: str
    answer_url: str | None = None
    answer_method: str = "POST"
    fallback_url: str | None = None
    fallback_method: str = "POST"
    hangup_url: str | None = None
    hangup_method: str = "POST"
    transcription_rate: str = "0"
    """Price per minute, a decimal number."""
    max_members: int = PLIVOS_MEMBERS
    """Maximum and default of a document's maxMembers. Spec: "An operator may raise the 20 for an account"."""

    def allowed_members(self, wanted: int | None) -> int:
        return self.max_members if wanted is None or wanted > self.max_members else wanted

    def refused_members(self, wanted: int | None) -> str:
        """Return the problem with a document's maxMembers, or an empty text if it is allowed."""
        if wanted is None or wanted <= self.max_members:
            return ""
        most = self.max_members
        return f'Conference: maxMembers="{wanted}" is not allowed (a whole number from 1 to {most}); {most} is used'

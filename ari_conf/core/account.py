"""An account as the core sees it: without its token, which only signing needs."""

from dataclasses import dataclass


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

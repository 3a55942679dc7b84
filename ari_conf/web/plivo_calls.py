"""API calls of Plivo, as its SDKs make them. A call that ari_conf does not offer gets a 404 that says so.

docs/reference/compatibility.md is generated from this list."""

from __future__ import annotations

import re

PAGE = "docs/reference/compatibility.md"
MPC = "MultiPartyCall/{mpc}/"
CALLS: tuple[tuple[str, str, str], ...] = (
    # (methods separated by commas, path below the account, description)
    ("GET, DELETE", "Conference/", "live conferences; end all of them"),
    ("GET, DELETE", "Conference/{name}/", "one live conference; end it"),
    ("DELETE", "Conference/{name}/Member/{id}/", "hang up a member"),
    ("POST", "Conference/{name}/Member/{id}/Kick/", "take a member out of the conference"),
    ("POST, DELETE", "Conference/{name}/Member/{id}/Mute/", "mute, unmute"),
    ("POST, DELETE", "Conference/{name}/Member/{id}/Deaf/", "deafen, undeafen"),
    ("POST, DELETE", "Conference/{name}/Member/{id}/Play/", "play a sound to a member"),
    ("POST, DELETE", "Conference/{name}/Member/{id}/Speak/", "speak a text to a member"),
    ("POST, DELETE", "Conference/{name}/Record/", "record a conference"),
    ("GET", "Recording/", "recordings"),
    ("GET, DELETE", "Recording/{id}/", "one recording; delete it"),
    ("GET, POST, DELETE", "Call/", "calls (live, queued, ended); dial out; hang up all of them"),
    ("GET, POST, DELETE", "Call/{uuid}/", "one call; transfer it; hang it up"),
    ("POST, DELETE", "Call/{uuid}/Play/", "play to a call"),
    ("POST, DELETE", "Call/{uuid}/Speak/", "speak to a call"),
    ("POST, DELETE", "Call/{uuid}/Record/", "record a call"),
    ("POST", "Call/{uuid}/DTMF/", "send digits to a call"),
    ("GET, POST, DELETE", "Call/{uuid}/Stream/", "audio streams of a call"),
    ("DELETE", "Request/{uuid}/", "cancel a call that is being dialed"),
    ("GET", "MultiPartyCall/", "multiparty calls"),
    ("GET, POST, DELETE", MPC, "one multiparty call; start it; end it"),
    ("GET, POST", f"{MPC}Participant/", "participants; dial in a participant"),
    ("GET, POST, DELETE", f"{MPC}Participant/{{id}}/", "one participant; mute, hold, coach; kick"),
    ("POST, DELETE", f"{MPC}Record/", "record it; also Pause/, Resume/, and of one participant"),
    ("POST, DELETE", f"{MPC}Member/{{id}}/Play/", "play to a participant; also Speak/"),
    ("GET, POST", "Transcription/{id}/", "transcriptions of recordings"),
    ("GET, POST", "", "the account's details"),
    ("GET, POST, DELETE", "Subaccount/", "subaccounts"),
    ("GET, POST, DELETE", "Application/", "applications"),
    ("GET, POST, DELETE", "Endpoint/", "SIP endpoints"),
    ("GET, POST, DELETE", "Number/", "rented phone numbers"),
    ("GET, POST", "PhoneNumber/", "phone numbers to rent"),
    ("GET", "Pricing/", "prices"),
    ("GET, POST", "Message/", "SMS, MMS, WhatsApp"),
    ("GET, POST", "Media/", "files of messages"),
    ("GET, POST, DELETE", "Powerpack/", "number pools for messages; also NumberPool/"),
    ("GET, POST, DELETE", "Masking/", "number masking"),
    ("GET, POST", "Verify/", "one-time passwords"),
    ("GET, POST, DELETE", "VerifiedCallerId/", "verified caller ids; also Verification/"),
    ("GET, POST, DELETE", "EndUser/", "compliance; also Compliance…/, Identity/, Address/, Profile/, 10dlc/"),
    ("POST", "JWT/", "tokens for browser SDKs"),
    ("GET, POST", "Zentrunk/", "SIP trunks"),
)
OFFERED = ("Call", "Conference", "Recording", "Request")
NAMES = {path.partition("/")[0] for _, path, _ in CALLS if path} | {
    *("NumberPool", "Verification", "ComplianceApplication", "ComplianceDocument", "ComplianceDocumentType"),
    *("ComplianceRequirement", "Identity", "Address", "Profile", "10dlc", "TollfreeVerification"),
}


_PATH = re.compile(r"/v1/Account/[^/]+/(?:/|([^/]+)/.*)?")
"""Plivo's Node SDK asks for the account itself with two slashes."""
_LOOKUP = re.compile(r"/v1/Number/[^/]+/")


def not_offered(path: str) -> str | None:
    """Return an error text if the path is that of a Plivo call that ari_conf does not offer, otherwise None."""
    if _LOOKUP.fullmatch(path):
        return f"Plivo's lookup of numbers is not offered here; {PAGE} lists what is"
    found = _PATH.fullmatch(path)
    if found is None or (found[1] is not None and (found[1] not in NAMES or found[1] in OFFERED)):
        return None
    what = f"Plivo's {found[1]}/" if found[1] else "Plivo's call for the account itself"
    return f"{what} is not offered here; {PAGE} lists what is"

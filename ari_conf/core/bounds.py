"""Bounds: limits on what a call or a conference holds, whatever callers, documents and the API ask for.

| what | at most | beyond it |
|---|---|---|
| calls of an account that wait for their turn to be dialed | MAX_QUEUED_CALLS | 429 |
| sounds that the API queues for one member or call | MAX_QUEUED | 409 |
| sounds of one request to play to a call | MAX_SOUNDS | 400 |
| digits that the API sends to a call, and that wait to be sent | 200 (`calls/live_media.py`) | 409 |
| transfers of one call | MAX_TRANSFERS | the call is hung up |
| announcements that the API queues for one conference | MAX_QUEUED | 409 |
| enter and exit sounds queued in one conference | MAX_QUEUED | the sound is left out, and a problem says so |
| patterns of one digitsMatch, of 100 digits each | MAX_PATTERNS | the attribute is not allowed |
| digits of one sendDigits, DTMF element or request | 100 | it is not allowed |
| a member's digits that may still become a match | the longest pattern | they are decided: match or no match |
| recordings of one call at a time | MAX_CALL_RECORDINGS | 409; of an element: it is skipped, and a problem says so |
| digits of one GetDigits | MAX_DIGITS | the input is complete |
| X-PH- headers of a call, as JSON | MAX_HEADER_BYTES | the rest is left out, and a problem says so |
| problems of one step | the warnings of a document, or one for each member | |
| switch-off effects of one call or conference, remembered for a takeover | MAX_SWITCH_OFFS | the oldest is forgotten |
| failed requests that are repeated, of one channel or bridge | MAX_RETRIES_PER_TARGET | the oldest is dropped |
| failed requests that are repeated in one step | MAX_RETRIES_PER_STEP | they wait for another second |

`account.py` limits the members of a conference, and the document parser limits the length of a document.
"""

MAX_QUEUED = 100
MAX_QUEUED_CALLS = 2000
"""Twice as many as one request may have destinations."""
MAX_SOUNDS = 20
MAX_TRANSFERS = 70
"""As many as Plivo allows."""
MAX_CALL_RECORDINGS = 4
"""Each has one or two channels in Asterisk."""
MAX_PATTERNS = 1000
"""Each key that a member presses is compared with every pattern."""
MAX_DIGITS = 1000
MAX_HEADER_BYTES = 32 * 1024
"""Half of the maximum size of a callback."""
MAX_SWITCH_OFFS = 50
MAX_RETRIES_PER_TARGET = 20
MAX_RETRIES_PER_STEP = 200

"""How much of each thing a call or a conference holds at most, whatever callers, documents and the API ask for.

| what | at most | beyond it |
|---|---|---|
| sounds that the API queues for one member | MOST_QUEUED | 409 |
| announcements that the API queues for one conference | MOST_QUEUED | 409 |
| enter and exit sounds that wait in one conference | MOST_QUEUED | the sound is left out, and a problem says so |
| patterns of one digitsMatch, of 100 digits each | MOST_PATTERNS | the attribute is not allowed |
| digits of one sendDigits | 100 | the attribute is not allowed |
| a member's digits that may still become a match | the longest pattern | they are decided |
| digits of one GetDigits | MOST_DIGITS | the input is complete |
| X-PH- headers of a call, as they are written | MOST_HEADER_BYTES | those beyond are left out, and a problem says so |
| problems of one step | the warnings of a document, or one for each member | |
| what one call or conference lately undid, for a process that takes over | MOST_UNDONE | the oldest is forgotten |
| failed requests that are made again, of one channel or bridge | MOST_INSISTED | the oldest is given up |
| failed requests that are made again in one step | INSISTED_AT_ONCE | they wait for another second |

A conference has 20 members at most; how long a document may be is for its parser to say.
"""

MOST_QUEUED = 100
MOST_PATTERNS = 1000
"""Each key that a member presses is compared with all of them."""
MOST_DIGITS = 1000
MOST_HEADER_BYTES = 32 * 1024
"""Half of what a callback may take."""
MOST_UNDONE = 50
MOST_INSISTED = 20
INSISTED_AT_ONCE = 200

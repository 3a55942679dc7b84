"""Kinds of problems, by which programs recognize a problem: its text is for people, and may change."""

from __future__ import annotations

from enum import StrEnum


class ProblemKind(StrEnum):
    """Kind of a problem. The docstring of a kind says what happened: docs/reference/problems.md quotes it."""

    ACCOUNT_UNKNOWN = "account_unknown"
    """A call arrived for an account that does not exist, or the dialplan names no account. The call was rejected."""
    ANSWER_URL_MISSING = "answer_url_missing"
    """The account has no answer URL, and the dialplan names no document."""
    CALL_NOT_STARTED = "call_not_started"
    """The account of a new call could not be looked up. The call was hung up."""
    CALL_NOT_DIALED = "call_not_dialed"
    """Asterisk could not dial a call by a trunk: it does not know the trunk, or the trunk is unreachable. The next
    trunk is tried if the call has another; otherwise the call has failed."""
    DIALING_REFUSED = "dialing_refused"
    """The API refused to place a call, and nothing was dialed. The text begins with the reason. A repeated refusal with
    the same text is listed once."""
    MINUTES_USED_UP = "minutes_used_up"
    """The account's placed calls have used up its minutes of this day. All of them were hung up."""
    TOO_MANY_CALLS = "too_many_calls"
    """The account has as many calls as allowed: a further call was refused as busy."""
    HEADERS_INCOMPLETE = "headers_incomplete"
    """Some X-PH- headers of a call's INVITE are missing; or the INVITE could not be read, and the caller counts as
    anonymous. The call continues."""
    TOO_MANY_TRANSFERS = "too_many_transfers"
    """The API transferred a call as often as allowed, and once more. The call was hung up."""
    CALL_TRANSFERRED = "call_transferred"
    """A phone transferred a call, which is not supported. Both channels were hung up."""
    CALL_ENDED_BY_ERROR = "call_ended_by_error"
    """An internal error, or a state record that is not valid, ended a call."""
    DOCUMENT_INVALID = "document_invalid"
    """A document arrived and can't be run, such as one that is not well-formed or too long; or a Redirect has no valid
    URL. The fallback URL is requested if there is one, otherwise the call is hung up."""
    DOCUMENT_UNREACHABLE = "document_unreachable"
    """A document could not be fetched: its URL can't be reached, has no usable status or responds too late, or a local
    document can't be read. The fallback URL is requested if there is one, otherwise the call is hung up."""
    DOCUMENT_WARNING = "document_warning"
    """A part of a document is not as it should be: an element is skipped, or a default is used. The rest of the
    document runs."""
    DOCUMENT_LOOP = "document_loop"
    """Too many documents in a row led to another document within less than a second each. The call was hung up."""
    URL_NOT_ALLOWED = "url_not_allowed"
    """A URL of a document or sound is invalid, or leads to an address that requests may not go to."""
    SOUND_UNREACHABLE = "sound_unreachable"
    """A Play's file could not be fetched. The sound is skipped."""
    SOUND_UNPLAYABLE = "sound_unplayable"
    """A Play's file was fetched and can't be played: it is neither mp3 nor wav, was not ready in time, or found no room
    in the cache. The sound is skipped."""
    SOUND_DOCUMENT_FAILED = "sound_document_failed"
    """The document of a waitSound, enterSound or exitSound could not be fetched, or is not valid. The conference
    continues without the sound."""
    SOUNDS_DROPPED = "sounds_dropped"
    """Too many enter and exit sounds were queued in a conference: one more was left out."""
    SPEECH_FAILED = "speech_failed"
    """A Speak could not be spoken. It is skipped."""
    CONFERENCE_NOT_JOINED = "conference_not_joined"
    """A caller could not join a conference, because another server has it or its name could not be claimed. The next
    element runs."""
    CONFERENCE_SPLIT = "conference_split"
    """Two conferences of the account have the same name, and their callers can't hear each other. New callers and API
    requests go to one of them."""
    MACHINE_DETECTION_FAILED = "machine_detection_failed"
    """It could not be heard whether a person or an answering machine has answered. The call goes on as with a
    person."""
    ASTERISK_FAILED = "asterisk_failed"
    """Asterisk refused a request about a call or conference, or did not answer."""
    LINE_BAD = "line_bad"
    """So many packets between a member's phone and Asterisk are lost or late that the member, or the others, are hard
    to understand. Reported once in a membership."""
    RECORDING_FAILED = "recording_failed"
    """A recording could not be started, or stopped unexpectedly. The conference or call continues."""
    RECORDING_INCOMPLETE = "recording_incomplete"
    """A recording is stored without its callback, because the state of the conference or call could not be read."""
    RECORDING_LOST = "recording_lost"
    """A recording can't be stored: neither Asterisk nor the bucket has its file."""
    RECORDINGS_WAIT = "recordings_wait"
    """Recordings on Asterisk's disk that wait to be stored exceed `ARI_CONF_RECORDINGS_LIMIT_MB`."""
    TRANSCRIPTION_FAILED = "transcription_failed"
    """A recording was not transcribed, and is not tried again."""
    CALLBACK_DEAD_LETTERED = "callback_dead_lettered"
    """A callback was not delivered and is not tried again: it is a dead letter."""
    CALLBACK_TOO_LONG = "callback_too_long"
    """A callback exceeds the maximum size. It was dropped."""
    CALLBACKS_FULL = "callbacks_full"
    """Too many callbacks of the account, or of one conference to one URL, wait. Newer ones are dropped."""
    CALLBACKS_LOST = "callbacks_lost"
    """Redis was unavailable for too long, or refused callbacks. They were dropped."""
    RESULT_LOST = "result_lost"
    """The result of an asynchronous API call could not be queued, and is not sent to its callback_url."""

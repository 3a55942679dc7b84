"""Exceptions of ari_conf; their texts are sentences for the user.

AriConfError
├── SettingsError          a setting is missing or wrong
├── InvalidDocument        a document can't be run (codes 8011, 8012, 8014)
├── RequestFailed          a request to a user URL failed after all attempts (codes 7011, 7012, 7014)
│   ├── RequestRefused     the URL is not allowed
│   └── ResponseRefused    the response is too long, or encoded in a way that was not requested
├── SoundError             Play or Speak can't be converted to something that Asterisk plays
│   └── SoundNotFetched    the file of a Play could not be fetched
├── TooManyWaiting         an account has more concurrent requests than its share; the request is refused
├── AriError               Asterisk refused the request, or did not respond
│   ├── AriNotFound        the channel, bridge, playback or recording no longer exists
│   └── AriUnreachable     the connection does not exist, or ended before the response arrived
│       └── AriLate        the deadline passed; Asterisk may still execute the request
├── StoreUnavailable       Redis is unreachable, or temporarily unable to execute a command
│   └── StoreRefused       Redis refuses the command permanently
├── StateVersionRefused    the state in Redis has a version that this release can't read
├── CallbackTooLong        a callback is larger than allowed
├── LeaseLost              another process has taken over
├── RecordingFailed        a recording can't be stored now
│   └── RecordingMissing   neither Asterisk nor S3 has the file
├── TranscriptionFailed    no engine can transcribe the recording now
│   └── TranscriptionUnusable  the response is no transcription; another attempt may cost again
├── TranscriptionRefused   no engine will ever transcribe the recording
├── AccountError           an account can't be created, found or changed as requested
│   ├── AccountNotFound    it does not exist
│   ├── AccountConflict    its state does not allow it
│   └── AccountUnreadable  the record in Redis is no account
├── WorkerUnhealthy        a worker of this machine does not run, or does not work
├── TaskEnded              a task that must run as long as the process has ended, and the process ends too
└── SetupFailed            a component can't be started; the text says what to do
"""

REPORT_HINT = "internal error in ari_conf: please report it with this log entry"
"""The hint of log entries about defects."""


class AriConfError(Exception):
    """Base class; its text is a sentence for the user."""


class SettingsError(AriConfError):
    pass


class InvalidDocument(AriConfError):
    pass


class RequestFailed(AriConfError):
    """Failure of a request to a user URL. `status` is the HTTP status of the last response, 0 if none arrived."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class RequestRefused(RequestFailed):
    pass


class ResponseRefused(RequestFailed):
    pass


class SoundError(AriConfError):
    pass


class SoundNotFetched(SoundError):
    """Failure to fetch a Play's file. `not_allowed`: its URL may not be requested."""

    def __init__(self, message: str, *, not_allowed: bool) -> None:
        super().__init__(message)
        self.not_allowed = not_allowed


class TooManyWaiting(AriConfError):
    pass


class AriError(AriConfError):
    """Failure of an ARI request. `status` is the HTTP status of Asterisk's response, 0 if none arrived."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class AriNotFound(AriError):
    pass


class AriUnreachable(AriError):
    """Failure of the connection to Asterisk. `sent`: Asterisk may have executed the request nevertheless."""

    def __init__(self, message: str, status: int = 0, *, sent: bool = True) -> None:
        super().__init__(message, status)
        self.sent = sent


class AriLate(AriUnreachable):
    pass


class StoreUnavailable(AriConfError):
    pass


class StoreRefused(StoreUnavailable):
    pass


class StateVersionRefused(AriConfError):
    pass


class CallbackTooLong(AriConfError):
    pass


class LeaseLost(AriConfError):
    pass


class RecordingFailed(AriConfError):
    pass


class RecordingMissing(RecordingFailed):
    pass


class TranscriptionFailed(AriConfError):
    pass


class TranscriptionUnusable(TranscriptionFailed):
    pass


class TranscriptionRefused(AriConfError):
    pass


class WorkerUnhealthy(AriConfError):
    pass


class HistoryUnavailable(AriConfError):
    """The history's database can't be used now."""


class HistoryTooSlow(HistoryUnavailable):
    """A query takes longer than it may; another attempt would too, unless it asks for less."""


class HistoryRefused(AriConfError):
    """The history's database refuses data, now and later."""


class AccountError(AriConfError):
    pass


class AccountNotFound(AccountError):
    pass


class AccountConflict(AccountError):
    pass


class AccountUnreadable(AccountError, ValueError):
    """Record in Redis that is no account."""


class TaskEnded(AriConfError):
    pass


class SetupFailed(AriConfError):
    pass

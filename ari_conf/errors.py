"""What can go wrong, in the user's words.

AriConfError
├── SettingsError          a setting is missing or wrong
├── InvalidDocument        a document that can't be run (codes 8011, 8012, 8014)
├── RequestFailed          a user's URL did not answer as needed, after all tries (codes 7011, 7012, 7014)
│   ├── RequestRefused     it points where no request may go
│   └── AnswerRefused      there is an answer, too long or encoded in a way that was not asked for
├── SoundFailed            Play or Speak can't be turned into something that Asterisk plays
├── TooManyWaiting         an account asks for more at once than its share; what it asked for is refused
├── AriError               Asterisk refused, or did not answer
│   ├── AriNotFound        the channel, bridge, playback or recording is gone
│   └── AriUnreachable     there is no connection, or it ended before the answer came
│       └── AriLate        the deadline passed: Asterisk may do it later
├── StoreUnavailable       Redis can't be reached, or can't do it now
│   └── StoreRefused       it refuses it, and would refuse it again
├── CallbackTooLong        a callback takes more than one may
├── LeaseLost              another process has taken over
├── RecordingFailed        a recording can't be stored now
│   └── RecordingLost      Asterisk has no such file, nor has S3
├── TranscriptionFailed    no engine can transcribe it now
│   └── TranscriptionUnusable  what it answered is no transcription; asking again may cost again
├── TranscriptionRefused   none ever will
├── AccountRefused         an account can't be made, found or changed as asked
├── TaskEnded              a task that runs as long as the process has ended: the process ends, too
└── SetupFailed            a part can't be started; says what to do
"""


class AriConfError(Exception):
    """The root: its text is a sentence for the user."""


class SettingsError(AriConfError):
    pass


class InvalidDocument(AriConfError):
    pass


class RequestFailed(AriConfError):
    """`status` is the HTTP status of the last answer, 0 if there was none."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class RequestRefused(RequestFailed):
    pass


class AnswerRefused(RequestFailed):
    pass


class SoundFailed(AriConfError):
    pass


class TooManyWaiting(AriConfError):
    pass


class AriError(AriConfError):
    """`status` is the HTTP status of Asterisk's answer, 0 if there was none."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class AriNotFound(AriError):
    pass


class AriUnreachable(AriError):
    """`sent`: Asterisk may have done it all the same."""

    def __init__(self, message: str, status: int = 0, *, sent: bool = True) -> None:
        super().__init__(message, status)
        self.sent = sent


class AriLate(AriUnreachable):
    pass


class StoreUnavailable(AriConfError):
    pass


class StoreRefused(StoreUnavailable):
    pass


class CallbackTooLong(AriConfError):
    pass


class LeaseLost(AriConfError):
    pass


class RecordingFailed(AriConfError):
    pass


class RecordingLost(RecordingFailed):
    pass


class TranscriptionFailed(AriConfError):
    pass


class TranscriptionUnusable(TranscriptionFailed):
    pass


class TranscriptionRefused(AriConfError):
    pass


class AccountRefused(AriConfError):
    pass


class AccountUnreadable(AccountRefused, ValueError):
    """What Redis has of it is no account."""


class TaskEnded(AriConfError):
    pass


class SetupFailed(AriConfError):
    pass

"""log-events.md. The syntax trees of the modules yield the events; this module has their meanings."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tools.reference.markdown import code, compare, document, table

PROJECT = Path(__file__).parents[2]
SOURCES = ("ari_conf", "tasks")
LEVELS = ("debug", "info", "warning", "error", "critical")
NUMBERS = {10: "debug", 20: "info", 30: "warning", 40: "error", 50: "critical"}

NOTHING = "Nothing."
REPORT = "Report it, with the log entry and its traceback."
READABLE = "Nothing, if processes of different versions run during an upgrade. Otherwise report it."
REDIS = "Check that Redis runs and is reachable: `ari-conf doctor`."

EVENTS: dict[str, tuple[str, str]] = {
    # Processes.
    "process started": (
        "`serve`, `web` or a worker has started; `process` says which, `version` its version.",
        NOTHING,
    ),
    "unknown setting ignored": (
        "Nothing reads a variable that begins with `ARI_CONF_`, a credential that begins with `ari_conf_`, or a key of "
        "the file of settings (`reason`).",
        "Correct its name, or remove it.",
    ),
    "secret exposed": (
        "A file that contains a secret setting can be read by every user of the machine (`reason`).",
        "Make it readable for its owner and the group of the services alone.",
    ),
    "systemd not notified": (
        "The process runs, but could not tell systemd (`address`, `reason`), which ends it when the time for its start "
        "is over.",
        "Remove `NOTIFY_SOCKET` from the environment if systemd did not start the process.",
    ),
    "component task ended": (
        "A task that must run as long as `serve` has failed (`reason`). The process exits with status 1, and the next "
        "one takes over.",
        REPORT,
    ),
    "restarting as standby": (
        "Another process has become the owner. This one restarts itself and waits as a standby.",
        "Find out why: this process was stopped for more than 2.5 s, or could not reach Redis.",
    ),
    "(self._defect)": ("A short background task raised an exception.", REPORT),
    "log entries dropped": (
        "The reader of the log was too slow; `count` entries are missing.",
        "Check what reads standard error, such as a full disk or a stopped terminal.",
    ),
    "call": (
        "A call is over. One entry for each call: caller, document, conference, duration, `cause` and `code` ([hangup "
        "codes](hangup-codes.md)).",
        NOTHING,
    ),
    "(type(thing).__name__)": (
        "Each event and effect of the engine, named by its class, with `kind`. At `debug` all of them; at `info` "
        "`EffectFailed` (an order that failed); at `warning` `ReportProblem` (a new entry of an account's problems).",
        "`ReportProblem`: `text` names the cause, often the account's application. [Problems](problems.md) says what "
        "to do about each `problem_kind`.",
    ),
    "account administered": (
        "An administrator has changed an account (`auth_id`): `action`, `who`, `via` (`api`, `page`, `worker`), and "
        "the names of what `changed`. [Audit log](../operations/accounts.md#audit-log).",
        NOTHING,
    ),
    "account purge attempt failed": (
        "Data of an account that is being removed could not be deleted (`reason`). The worker tries again.",
        "Check S3: `ari-conf doctor`.",
    ),
    "audit entry unreadable": ("An entry of the audit log can't be read; it is not listed.", READABLE),
    "recording discarded": (
        "A recording was deleted in Asterisk, because its account is being removed together with its data.",
        NOTHING,
    ),
    # Asterisk.
    "asterisk connected": (
        "An event WebSocket to Asterisk is open. `opened_by` is `server` or `asterisk`.",
        NOTHING,
    ),
    "asterisk disconnected": (
        "The last event WebSocket is closed. `info` when the server stops, otherwise `warning`. It is reopened, and "
        "the state is reconciled.",
        "If it repeats: check Asterisk's log, and the network.",
    ),
    "asterisk unreachable": (
        "The server can't open the event WebSocket. It retries, every 5 s at the latest.",
        "Check that Asterisk runs, `ARI_CONF_ARI_URL`, user and password.",
    ),
    "websocket rejected": (
        "`outbound`: a client opened a WebSocket with other credentials than `ARI_CONF_ARI_USER` and "
        "`ARI_CONF_ARI_PASSWORD`.",
        "Correct `websocket_client.conf`. If it is not Asterisk, keep the port away from others.",
    ),
    "event websocket port in use": (
        "`outbound`: another process listens on `ARI_CONF_ARI_LISTEN`. The server opens a WebSocket itself.",
        "Nothing during a takeover. Otherwise find the process that has the port.",
    ),
    "event websocket port available": ("The server listens on `ARI_CONF_ARI_LISTEN`.", NOTHING),
    "event websocket opened by server": (
        "`outbound`: no events arrive on a WebSocket that Asterisk opened, so the server opened one.",
        "Nothing after a takeover. Otherwise check `websocket_client.conf`.",
    ),
    "event probe failed": (
        "The test event could not be sent, so the server can't tell whether events arrive.",
        NOTHING,
    ),
    "event filter not set": (
        "Asterisk rejected the event filter. It is retried 5 times; without it Asterisk sends more events than needed.",
        "If it repeats: check Asterisk's version and log.",
    ),
    "websocket requests unsupported": (
        "This version of Asterisk does not accept requests on the WebSocket.",
        NOTHING,
    ),
    "invalid json from asterisk": (
        "A message of Asterisk can't be decoded and is ignored.",
        "Report it, with Asterisk's version.",
    ),
    "event handling raised": ("Processing one event of Asterisk raised an exception; the event is skipped.", REPORT),
    "beep listener limit reached": (
        "50 calls are listened to already (`limit`), for a beep or an answering machine. This Wait ends after its "
        "length; who answers counts as a person.",
        "Use `beep` and machine detection in fewer calls at a time.",
    ),
    "beep listener failed": (
        "Asterisk could not create the channel that listens for a beep or a machine. `debug` if it repeats.",
        "Load `chan_rtp` in Asterisk.",
    ),
    "beep listener received no audio": (
        "No audio arrives on the UDP port that listens for a beep or a machine. `debug` if it repeats.",
        "Set `ARI_CONF_MEDIA_LISTEN` to an address that Asterisk reaches, and allow UDP from Asterisk.",
    ),
    "beep listener stopped": (
        "The channel that listens has ended before the call. Wait ends after its length; who answers counts as a "
        "person.",
        "Check Asterisk's log.",
    ),
    "beep listener raised": ("Listening for a beep raised an exception.", REPORT),
    "cleanup in asterisk failed": (
        "A channel or bridge for listening could not be removed (`path`). The next start removes it.",
        NOTHING,
    ),
    "leftovers found": (
        "Asterisk carried out requests of an earlier process after the takeover; what they made is removed.",
        "Nothing.",
    ),
    "leftover scan failed": (
        "The list of channels is not available, so leftovers of an earlier process stay.",
        NOTHING,
    ),
    "rtp packets ignored": (
        "UDP packets arrive on a listening port from `sender`, and are ignored.",
        "If it is an address of Asterisk: use it in `ARI_CONF_ARI_URL`. Otherwise close the ports to others.",
    ),
    # Ownership.
    "lease acquired": (
        "This process has become the owner of the calls of `asterisk_name`; `was` names the owner before.",
        NOTHING,
    ),
    "standby started": ("This process waits as a standby; `owner` owns the calls.", NOTHING),
    "lease lost": (
        "The lease was lost to another process. This one stops, and restarts as a standby.",
        "Find out why: it was stopped for more than 2.5 s, or could not reach Redis.",
    ),
    "owner mark replaced": (
        "Asterisk holds the mark of another owner, so this process stops, although it can't see that in Redis.",
        "Check the network between this process and Redis.",
    ),
    "redis data lost": (
        "Redis came back empty or from an older copy. Calls, conferences and names are written again from memory.",
        "Restore what only Redis had: accounts (`ari-conf account import`). Check that `appendonly` is `yes`.",
    ),
    "lease not released": (
        "Redis was unreachable when the server stopped. A standby takes over 2.5 s later.",
        NOTHING,
    ),
    "state version refused": (
        "Redis became reachable, and its state has a version that this web process does not read; the process exits.",
        "Do what `reason` says. [Version of the stored state]"
        "(../operations/upgrades-backups.md#version-of-the-stored-state)",
    ),
    "redis unavailable at startup": (
        "The server can't start, or take over, until Redis answers. `waiting_for` says what it needs from Redis: "
        "`lease`, `state`, `members` or `clock`.",
        REDIS,
    ),
    "asterisk unavailable at startup": (
        "Asterisk does not answer, so the server does not know the entity id under which it keeps the calls. It "
        "repeats the request.",
        "Start Asterisk, or check `ARI_CONF_ARI_URL`, user and password.",
    ),
    "asterisk name conflict detected": (
        "A standby sees that the owner serves another Asterisk: two Asterisks have one name (`reason`).",
        "Give one of them another `entityid`, or another `ARI_CONF_ASTERISK_NAME`.",
    ),
    "rival owner detected": (
        "A process with another Redis, or another name for this Asterisk, has its calls (`reason`). This process takes "
        "none until the other one ends.",
        "Stop one of them, or give both the same `ARI_CONF_REDIS_URL` and `ARI_CONF_ASTERISK_NAME`.",
    ),
    "owner mark not read": ("Asterisk did not answer when the owner's mark was read.", NOTHING),
    # Server.
    "clock not recorded": ("The server's clock could not be written to Redis.", NOTHING),
    "ari_conf.server.document_loader: account not looked up": (
        "Redis did not answer when an account was read. The call waits, 5 s at most, and is then rejected.",
        REDIS,
    ),
    "ari_conf.server.document_loader: document not read": (
        "A local document that the dialplan names can't be read (`path`, `reason`).",
        "Put it into `ARI_CONF_DOCUMENTS`, readable by the server's user, or correct the dialplan.",
    ),
    "effect raised": (
        "Executing an effect raised an exception (`effect`). The engine treats the effect as failed.",
        REPORT,
    ),
    "effect failure report raised": (
        "The failure of an effect could not be reported to the engine.",
        REPORT,
    ),
    "effect failed": (
        "Asterisk rejected a request, or did not answer. `debug` if the channel or bridge no longer exists.",
        "Nothing for a single one. If it repeats: check Asterisk's log.",
    ),
    "asterisk request retried": (
        "A request to Asterisk is retried (`path`, `reason`).",
        "If it repeats: Asterisk is overloaded.",
    ),
    "name claimed locally": (
        "Redis is unreachable; a conference's name is claimed locally, and written when Redis is back.",
        REDIS,
    ),
    "step raised": (
        "Processing an event raised an exception. The call or conference that it concerned is ended; others continue.",
        REPORT,
    ),
    "reconciliation completed": (
        "The state was reconciled with Asterisk after a connection. `first`: after the start of the process.",
        NOTHING,
    ),
    "reconciliation failed": (
        "Reconciliation failed because Asterisk did not answer. It is repeated within a minute.",
        "If it repeats: check Asterisk.",
    ),
    "reconciliation raised": (
        "Reconciliation raised an exception. `action` is what the server does, for the calls and conferences `ids`.",
        REPORT,
    ),
    "call rejected": (
        "The number, name or Call-ID of a call is not UTF-8. Asterisk can't send an event for such a call, so it is "
        "rejected.",
        "Nothing. If it repeats: find the caller in Asterisk's log by `channel_id`.",
    ),
    "unreported call found": (
        "An event was lost: the minute-by-minute reconciliation found a call. It is served from now on.",
        "If it repeats: check the connection to Asterisk.",
    ),
    "state difference corrected": (
        "The minute-by-minute reconciliation found a difference and corrected it (`corrections`).",
        "If it repeats: check the connection to Asterisk.",
    ),
    "recordings limit exceeded": (
        "More than `ARI_CONF_RECORDINGS_LIMIT_MB` are in Asterisk's recording folder.",
        "Check `ari-conf recordings pending`, the workers, and object storage.",
    ),
    "recording folder not read": (
        "`ARI_CONF_RECORDING_FOLDER` can't be read by the server's user, so the space that recordings use is unknown.",
        "Correct the path, or its permissions.",
    ),
    "silent phone probed": ("A phone that sends nothing gets a re-INVITE.", NOTHING),
    "rtp monitor raised": (
        "Reading RTP statistics raised an exception. It continues with the next round.",
        REPORT,
    ),
    "steps lost at shutdown": (
        "The server stopped while Redis was unreachable or slow. `callbacks`, `recordings` and `steps` are lost.",
        "Keep `serve` running until Redis is back, or raise `ARI_CONF_STOP_WAIT`.",
    ),
    "stale state removed": ("State of ended calls and conferences was removed from Redis.", NOTHING),
    "state cleanup failed": ("Redis did not answer while old state was removed. The removal is repeated.", REDIS),
    "ari_conf.server.step_writer: redis unavailable": (
        "Redis is unreachable, or takes no writes (`reason`). Conferences continue, and `queued_steps` wait in memory. "
        "Repeated each minute.",
        REDIS,
    ),
    "redis recovered": ("Redis takes writes again; `queued_steps` are being written.", NOTHING),
    "step queue overflowed": (
        "256 MB of steps are queued. New callbacks are dropped.",
        f"{REDIS} Callbacks of this time are lost.",
    ),
    "callbacks dropped": (
        "Redis is back; `callbacks` were lost. The accounts' problems say how many of each account.",
        "Tell the accounts concerned.",
    ),
    "recordings not queued": (
        "Redis is unreachable and 20,000 recordings are queued. Further ones stay on Asterisk's disk and are not "
        "stored.",
        "Save the files from Asterisk's recording folder.",
    ),
    "step rejected by redis": (
        "Redis rejected an entry for good (`reason`). It is skipped; `callbacks` of it are lost.",
        "Report it.",
    ),
    "step encoding raised": ("A step was not written to Redis.", REPORT),
    "channel list not returned": (
        "A channel with invalid UTF-8 in its number, name or Call-ID breaks Asterisk's list of channels. The server "
        "requests each channel.",
        NOTHING,
    ),
    "state restored": ("The state of an earlier process was loaded: `calls` and `conferences`.", NOTHING),
    "asterisk not ready": ("Asterisk is connected but still starting. The request is repeated.", NOTHING),
    "existence not confirmed": (
        "Asterisk did not say whether a playback or recording exists (`path`). The server assumes that it does.",
        NOTHING,
    ),
    "ari_conf.server.takeover: state record unreadable": (
        "A state record in Redis is damaged, or of another version. Only its call or conference is ended.",
        "After an upgrade or downgrade: see [upgrades](../operations/upgrades-backups.md). Otherwise report it.",
    ),
    "ari_conf.server.unreadable_state: account not looked up": (
        "The account of a call whose state record is damaged can't be read, so the end of the call is not reported.",
        REDIS,
    ),
    "asterisk list not returned": (
        "Asterisk rejected a request while damaged state was completed (`path`).",
        "Check Asterisk's log.",
    ),
    "recording status unknown": ("Asterisk did not say whether a recording runs (`name`).", NOTHING),
    "conference account unknown": (
        "Nothing is left that says which account a damaged conference belongs to. Its bridge is destroyed.",
        NOTHING,
    ),
    "names not looked up": ("Redis did not answer while damaged state was completed.", REDIS),
    "unknown call hung up": (
        "Asterisk has a call (`channel_id`) whose state record is damaged. It is hung up.",
        NOTHING,
    ),
    # Requests, sounds and speech.
    "invalid retry fragment": (
        "The fragment of a URL has a value out of range, which is clamped, or an unknown key, which is ignored "
        "(`warning`).",
        "The owner of the application corrects the URL: [retry policy](callbacks.md).",
    ),
    "sound prefetch failed": (
        "A sound could not be prepared before it is needed. It is tried again when it is needed. `debug`: too many are "
        "queued.",
        NOTHING,
    ),
    "stale sound used": (
        "The server of a sound is unreachable; the cached copy is played, for a day at most.",
        NOTHING,
    ),
    "speech degraded": (
        "No installed voice speaks the language or alphabet of a text (`reason`).",
        "Install `espeak-ng`: [sounds](../guide/sounds.md).",
    ),
    "voice failed": (
        "A speech engine failed; the next one is used, if there is one.",
        "Check that the engine named by `voice` is installed completely.",
    ),
    "speech truncated": (
        "A Speak is longer than `seconds`; its end is left out.",
        NOTHING,
    ),
    "network isolation unavailable": (
        "Users can't create network namespaces here, so ffmpeg and speech engines run with network access.",
        "Allow unprivileged user namespaces, if you want the isolation.",
    ),
    "resource limits unavailable": (
        "ffmpeg and speech engines run without limits of memory and CPU time.",
        "Install util-linux.",
    ),
    "metrics endpoint not started": (
        "The address of the metrics endpoint can't be bound. Calls are served all the same.",
        "Set `ARI_CONF_METRICS_LISTEN` to a free address.",
    ),
    "probe failed": ("A ping to Asterisk or Redis failed.", NOTHING),
    # Redis records.
    "callback entry unreadable": ("A callback is missing from a list.", READABLE),
    "command undecodable": ("A command of a web process is ignored; its client gets 503.", READABLE),
    "reply undecodable": ("A reply of the server is ignored; the client gets 503.", READABLE),
    "command write unconfirmed": (
        "Redis did not confirm an API command. The reply is awaited all the same, and 503 is returned if none comes.",
        REDIS,
    ),
    "idempotency record not written": (
        "Redis did not answer after an API request was carried out. Its response is returned all the same.",
        REDIS,
    ),
    "command read failed": ("Redis did not answer; API commands are delayed. Repeated each minute.", REDIS),
    "reply read failed": (
        "Redis did not answer; the web process can't receive replies. Repeated each minute.",
        REDIS,
    ),
    "command raised": ("An API command raised an exception.", REPORT),
    "dead letter unreadable": ("A dead letter is missing from a list. It stays in Redis.", READABLE),
    "stored recording unreadable": ("A recording is missing from a list. The file is in the bucket.", READABLE),
    "recording note unreadable": ("The sidecar of a recording lacks an attendance or speech interval.", READABLE),
    "account record unreadable": (
        "The record of an account (`auth_id`) is damaged; its calls are rejected.",
        "`ari-conf account remove`, then import an export of it, or add it again.",
    ),
    "problem unreadable": ("An entry is missing from an account's problems.", READABLE),
    "key write refused": (
        "A key holds a value of another type (`key`, `reason`). What belongs there is not written, everything else is. "
        "Repeated each minute for a key.",
        "Look at the key with `redis-cli`, and delete it if it is not ari_conf's.",
    ),
    "redis not responding": (
        "Redis did not answer within `seconds`. Until it answers again, no call waits for it.",
        REDIS,
    ),
    "redis responding again": ("Calls wait for Redis again.", NOTHING),
    # Web process.
    "api": ("A request was answered: method, route, status, `ms`, `api_id`.", NOTHING),
    "ari_conf.web.errors: redis unavailable": ("A request was answered with 503, since Redis did not answer.", REDIS),
    "dialing minutes used up": (
        "The minutes of the day of an account are used up: its `calls` placed calls on this Asterisk are hung up.",
        "Nothing, if the application dialed so much. If not, rotate the account's token.",
    ),
    "dialing usage not read": (
        "Redis did not answer (`reason`): accounts that use up their minutes are not noticed, and their calls continue "
        "up to their own time limits. Repeated each minute.",
        REDIS,
    ),
    "dialing not admitted": (
        "Redis did not answer when a document's Dial was to place calls (`reason`): none was dialed, and the document "
        "continued.",
        REDIS,
    ),
    "dialing refused": (
        "A call was not placed, for `reason` ([Trunks](../operations/trunks.md#refusals)): one of the API, or of a "
        "document's Dial.",
        "Nothing, if the application was wrong. Otherwise change what the account may dial, or the trunks. If you do "
        "not know these calls, rotate the account's token.",
    ),
    "trunk record unreadable": (
        "Nothing is placed over a trunk, because its record in Redis could not be read (`trunk`, `reason`).",
        "`ari-conf trunk remove`, then add it again.",
    ),
    "request raised": ("A request raised an exception, and was answered with 500.", REPORT),
    "change subscription failed": ("Redis did not answer; event streams send `away`. Repeated each minute.", REDIS),
    "event stream raised": (
        "An account's event streams are interrupted and begin again with a snapshot.",
        REPORT,
    ),
    "talk detection request failed": ("Redis did not answer; streams may not show who talks.", REDIS),
    "asynchronous result delayed": (
        "Redis rejected the result for a minute (`attempts`, `reason`). It is retried every 5 s, for an hour.",
        REDIS,
    ),
    "asynchronous call abandoned": (
        "The web process that had an asynchronous call died. This one sends the result.",
        NOTHING,
    ),
    "asynchronous result not queued": (
        "A result can't be sent (`reason`). `given_up`: it is dropped, and is one of the account's problems.",
        REDIS,
    ),
    "pending results not checked": ("Redis did not answer when abandoned asynchronous calls were looked for.", NOTHING),
    "pending result unreadable": ("The record of an asynchronous call is damaged, and is dropped.", READABLE),
    "idempotency record unreadable": (
        "The request is treated as the first one with its key.",
        READABLE,
    ),
    "ari_conf.store.live_state: state record unreadable": (
        "A conference or call is missing from the event stream.",
        READABLE,
    ),
    "recording read failed": (
        "Object storage did not deliver a recording; the client gets 503, or 404 if it is not there.",
        "Check object storage: `ari-conf doctor`.",
    ),
    "history unavailable": (
        "A request for ended calls or conferences could not be answered: the database of the history is unreachable, "
        "or its tables are not up to date (`reason`). The reply was 503; what lives is not affected.",
        "Check the database: `ari-conf doctor`.",
    ),
    "csv stream interrupted": (
        "The database of the history failed while a CSV file was being sent (`reason`); the connection is closed "
        "early.",
        "Check the database: `ari-conf doctor`.",
    ),
    "recording stream interrupted": (
        "Object storage failed while a recording was being sent; the connection is closed early.",
        "Check object storage: `ari-conf doctor`.",
    ),
    "recording deletion failed": (
        "Object storage did not delete a recording; the client gets 503.",
        "Check object storage: `ari-conf doctor`.",
    ),
    "sidecar read failed": (
        "Object storage did not deliver a sidecar; the client gets 503.",
        "Check object storage: `ari-conf doctor`.",
    ),
    # Workers.
    "invalid celery message discarded": (
        "Something else than Celery wrote to a queue's list.",
        "Find what else uses this Redis, and give it another database.",
    ),
    "task raised": ("A task raised an exception outside of its attempt. The entry is attempted again.", REPORT),
    "celery events dropped": (
        "The broker takes events too slowly, or refuses them. Operators' tools miss them; entries are not affected.",
        "Check the broker: `ari-conf doctor`.",
    ),
    "outcome not told to celery": (
        "Celery's handler of an outcome raised an exception. The outcome itself is recorded.",
        REPORT,
    ),
    "callback dead-lettered": (
        "A callback has become a dead letter, after `attempts` attempts.",
        "`ari-conf dead-letters show ACCOUNT ID`; resend it when the callback endpoint works.",
    ),
    "recording stored": ("A recording is in the bucket, verified.", NOTHING),
    "recording store attempt failed": (
        "Storing a recording failed (`reason`); it is retried after `retry_in_ms`. The file stays on Asterisk's disk.",
        "If it repeats: check object storage and Asterisk: `ari-conf doctor`.",
    ),
    "expired recordings deleted": (
        "Recordings of an account were deleted because they are older than its `recordings_days` (`count`).",
        NOTHING,
    ),
    "expired recordings not deleted": (
        "S3 refuses to delete expired recordings of an account (`count`, `reason` of the last). They are tried again "
        "after 10 minutes.",
        "Allow the access key `s3:DeleteObject`, or remove the lock of the objects.",
    ),
    "history not written": (
        "The database of the history is not available (`reason`). What is to be written stays in Redis, and the worker "
        "tries again after `retry_in_ms`.",
        "Start the database: [History](../operations/history.md#when-the-database-is-away).",
    ),
    "history database migrated": ("A worker has created the tables of the history, or updated them.", NOTHING),
    "history entry unreadable": (
        "An entry of the history can't be read (`reason`); it is kept apart. The others are written.",
        "After an upgrade of all machines, run `ari-conf history retry`. If entries remain, report it.",
    ),
    "history entry refused": (
        "The database of the history refuses an entry (`reason`); it is kept apart. The others are written.",
        REPORT,
    ),
    "old callbacks deleted": (
        "Delivered callbacks (`count`) were deleted, because they are older than `ARI_CONF_DELIVERED_CALLBACKS_DAYS`.",
        NOTHING,
    ),
    "expired history deleted": (
        "Rows of an account (`count`) were deleted, because they are older than its `history_days`.",
        NOTHING,
    ),
    "recordings moved": (
        "Recordings of an account (`count`) were removed from Redis' index, because the database has them.",
        NOTHING,
    ),
    "retention interrupted": (
        "Expired recordings or history (`of`) remain, because S3, the database of the history or Redis does not "
        "respond. It is tried again after `retry_in_s`.",
        "`ari-conf doctor` checks all three.",
    ),
    "retention raised": (
        "The deletion of expired recordings or history (`of`) failed. It is tried again after 10 minutes.",
        REPORT,
    ),
    "recording lost": (
        "Asterisk has no file of this recording, nor has the bucket. It is given up.",
        "`ari-conf recordings lost`; `ari-conf recordings retry` if the file can be restored.",
    ),
    "recording has no file": ("Asterisk had refused to record, so there is no file.", NOTHING),
    "worker process ended": (
        "A worker can't continue (`reason`) and exits with status 1. Another worker takes over what it held.",
        "See that systemd restarts it. Report it if it repeats.",
    ),
    "thread raised": (
        "A thread that must run as long as the worker has failed. The worker exits.",
        REPORT,
    ),
    "transcription attempt failed": (
        "A transcription attempt failed (`reason`); it is retried.",
        "If it repeats: check the engine, or its server: `ari-conf doctor`.",
    ),
    "transcription finished": ("A transcription is done, or has failed with `error`.", NOTHING),
    "transcription raised": ("The engine raised an unexpected exception. The attempt counts as failed.", REPORT),
    "wake-ups not available": (
        "Redis gave a worker no wake-ups (`reason`). It is asked again every 0.5 s.",
        "Check Redis: `ari-conf doctor`.",
    ),
    "queue entry undecodable": ("An entry of a queue has become a dead letter.", READABLE),
    "job raised": ("Working on an entry raised an exception. It stays, and is retried.", REPORT),
    "partitions reclaimed": (
        "A worker stopped without notice; this one takes over its `count` partitions.",
        "Check why a worker ended.",
    ),
    "entry outcome rejected by redis": (
        "The outcome of an entry could not be written. Another attempt follows.",
        "Check the memory and disk of Redis.",
    ),
}
"""Event, or `module: event` where modules differ -> (meaning, operator's action)."""

SHOWN = {
    "(self._defect)": "background task raised",
    "(type(thing).__name__)": "FetchDocument, CallArrived, …",
}
"""Names of the events whose text the code computes from the expression in parentheses."""

GROUPS = {
    "Processes and calls": (
        "ari_conf.cli",
        "ari_conf.common",
        "ari_conf.observability",
        "ari_conf.settings_warnings",
    ),
    "Connection to Asterisk": ("ari_conf.ari",),
    "Ownership": ("ari_conf.ownership",),
    "Server": ("ari_conf.server",),
    "Requests, sounds and speech": ("ari_conf.http_client", "ari_conf.media"),
    "Administration": ("ari_conf.administration",),
    "Records and queues in Redis": ("ari_conf.store", "ari_conf.queues", "ari_conf.recordings"),
    "History": ("ari_conf.history",),
    "Web process": ("ari_conf.web", "ari_conf.dialing"),
    "Workers": ("tasks",),
}

INTRODUCTION = """
This page lists every event that ari_conf logs, what it means, and what you do about it.

- Log entries go to standard error, one line for each: JSON, or readable text on a terminal (`ARI_CONF_LOG_FORMAT`).
- In JSON the text of the event is in `event`, with `level` and `timestamp` (UTC). Other values are fields of their
  own, such as `reason`, `auth_id`, `call_uuid`, `conference_id`, `channel_id`.
- `ARI_CONF_LOG_LEVEL` (default `info`) is the lowest level that is written.
- Digits, tokens and passwords are never written. URLs are written without login, query, fragment and recording ID.
- An entry whose `hint` begins with "internal error in ari_conf" reports a bug. Its traceback is in
  `exception`.
- Libraries (uvicorn, Celery, boto3) log in the same form. Their events are not listed here.
"""


class Event(NamedTuple):
    module: str
    text: str
    levels: tuple[str, ...]

    @property
    def key(self) -> str:
        own = f"{self.module}: {self.text}"
        return own if own in EVENTS else self.text


def find_events() -> list[Event]:
    """Return every event, by module and text."""
    events: dict[tuple[str, str], set[str]] = {}
    for path in (path for folder in SOURCES for path in (PROJECT / folder).glob("**/*.py")):
        module = ".".join(path.relative_to(PROJECT).with_suffix("").parts)
        tree = ast.parse(path.read_text())
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        for text, level in (event for function in functions for event in _logged_events(function, tree)):
            events.setdefault((module, text), set()).add(level)
    return [Event(*place, tuple(filter(levels.__contains__, LEVELS))) for place, levels in sorted(events.items())]


def _logged_events(function: ast.FunctionDef | ast.AsyncFunctionDef, module: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield (text, level) of each event that a function logs."""
    chosen: dict[str, list[str]] = {}
    """A local name -> the levels of `log.debug if … else log.warning`."""
    for node in ast.walk(function):
        match node:
            case ast.Assign([ast.Name(name)], ast.IfExp() as choice):
                chosen[name] = [level for each in ast.walk(choice) if (level := _level(each))]
            case ast.Call(ast.Name("Tasks"), [ast.Constant(str(defect))]):
                yield defect, "error"
    for node in ast.walk(function):
        levels: list[str] = []
        match node:
            case ast.Call(ast.Attribute(logger, "log"), [number, text, *_]) if _is_logger(logger):
                constants = [each.value for each in ast.walk(number) if isinstance(each, ast.Constant)]
                levels = [NUMBERS[each] for each in constants if isinstance(each, int) and each in NUMBERS]
            case ast.Call(ast.Name(name), [text, *_]):
                levels = chosen.get(name, [])
            case ast.Call(method, [text, *_]):
                levels = [level] if (level := _level(method)) else []
        if levels:
            yield from ((each, level) for each in _texts(text, function, module) for level in levels)


def _level(method: ast.AST) -> str:
    """Return the level of `log.warning` and the like, or "" for anything else."""
    if isinstance(method, ast.Attribute) and _is_logger(method.value):
        return {"exception": "error"}.get(method.attr, method.attr if method.attr in LEVELS else "")
    return ""


def _is_logger(node: ast.AST) -> bool:
    return ast.unparse(node) in ("log", "structlog.get_logger()")


def _texts(text: ast.expr, function: ast.FunctionDef | ast.AsyncFunctionDef, module: ast.Module) -> list[str]:
    """Return the texts of an expression: a constant, the values of a local variable, or the arguments of callers."""
    if isinstance(text, ast.Constant):
        return [str(text.value)]
    given: list[ast.expr] = []
    if isinstance(text, ast.Name):
        for node in ast.walk(function):
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == text.id:
                given.append(node.value)
        names = [argument.arg for argument in function.args.args if argument.arg != "self"]
        for node in ast.walk(module):
            if isinstance(node, ast.Call) and text.id in names and _name(node.func) == function.name:
                given += node.args[names.index(text.id) :][:1]
    constants = [str(each.value) for each in given if isinstance(each, ast.Constant)]
    return constants or [f"({ast.unparse(text)})"]


def _name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else ast.unparse(function)


def _group(module: str) -> str:
    return next((heading for heading, places in GROUPS.items() if module.startswith(places)), module)


def page() -> str:
    events = find_events()
    compare("log-events.md", EVENTS, (event.key for event in events))
    compare("log-events.md, groups", GROUPS, (_group(event.module) for event in events))
    columns = ("Event", "Level", "Module", "Meaning", "What to do")
    blocks = []
    for heading in GROUPS:
        rows = (
            (code(SHOWN.get(one.text, one.text)), ", ".join(one.levels), code(one.module), *EVENTS[one.key])
            for one in events
            if _group(one.module) == heading
        )
        blocks.append(f"## {heading}\n\n{table(columns, rows)}")
    return document("Log events", INTRODUCTION, *blocks)

"""Conferencing in Plivo's XML on your own Asterisk.

Packages:

core/             Pure decisions: events in, effects out. Never waits, logs, or reads the clock; imports only msgspec.
ari/              Asterisk's REST interface: event WebSockets, requests, translation to and from events and effects.
http_client/      Requests to user URLs: one policy for two clients, retries, signatures, the URL guard.
media/            Sounds for Play and Speak: fetched, transcoded, synthesized, cached, served.
documents/        XML text to elements, with errors that name element, attribute, value, and the allowed values.
queues/           Queues in Redis: callbacks in their order, wake-ups of workers, dead letters, the API's commands.
ownership/        Ownership of an Asterisk's calls: the lease, the mark in Asterisk, the gate before the core.
store/            Records in Redis: calls and conferences, members, accounts, problems.
administration/   Accounts as administrators see them: creation, changes, removal, purge, the audit log.
recordings/       Jobs that store and transcribe recordings, their index, their sidecars, the S3 bucket.
transcription/    Transcription engines: faster-whisper, or a server; what they answer, as words.
observability/    Logs and the server's metrics.
server/           `ari-conf serve`: event -> gate -> core -> step builder -> step writer -> effect runner.
web/              `ari-conf web`: API, event stream, and dashboard; any number of processes.
cli/, doctor/     The commands, and the checks of an installation.
local/            `ari-conf up`: all components on one machine.
asterisk_config/  The implementation of `asterisk/configure` and `ari-conf asterisk configure`. Standard library only.
common/           Shared modules: Redis clients, fair shares, supervised tasks, text that is safe to show.
*/scripts/        Lua scripts that Redis runs, in the package that loads them.
../tasks/         Celery workers: callbacks, recordings, transcriptions. Nothing here imports them.
../asterisk/      Scripts and configuration for the Asterisk machine.
../tools/         Checks of language, links and Lua; generators of docs/reference/ and manual pages; `make dist`.

Modules that every package but core/ may import: errors.py, settings.py, process_priority.py. settings_warnings.py is
for the processes and commands.

Imports point one way; setup.cfg has the contracts.
"""

"""Conferencing in Plivo's XML on your own Asterisk.

The map:

document     XML text -> elements; each complaint names element, attribute, value and what is allowed
core/        PURE: what a call and a conference do. Events in, effects out; nothing there waits, logs or asks the time
ari/         Asterisk: client (sockets: events; rest: requests), translate (its JSON <-> our events and effects)
http/        requests to users' URLs: retry (policy), signature, guard (where one may go), fetch
media/       Play and Speak: sounds (fetch, convert, cache), speech (text to a file), programs (kept in limits)
service      the wiring; loop: event -> door -> core -> steps -> writer -> interpreter -> next deadline
door         shut while it isn't known whose the calls are; steps: what is written of a decision, and what is run
documents    those of calls: from their servers, or kept ones
names        those of conferences that Redis is still to be told are ours
writer       each step into Redis, before its effects; interpreter: runs the effects
streams      looks at what phones send and are sent, of which Asterisk tells nothing
batch        what is written together, encoded once; rewriting: writes again what a Redis that forgot must have
clock        steady milliseconds, whatever is done to the wall clock; supervision: no task ends unnoticed
owner_mark   what Asterisk knows of the owner, against rivals; identity: an Asterisk's own name
shares       turns that go round by account; seldom: what is not told each time that it fails
extras       how what is optional is installed
visible      text from outside, without what a terminal obeys
takeover     reads what a crashed process has written, and what Asterisk has; comparing: works off the difference
unreadable   what is known of calls and conferences that it can't read, so that they are given up completely
lease        which of several processes owns the calls; fenced: no other writes; holder: where a process lives
workers      are told that there is something to take; niceness: they yield to calls
metrics      what `serve` tells Prometheus
command_queue the API's commands to the owner of a conference, and its replies
written      how calls and conferences are written down; member_fields: each member apart
store        Redis: accounts, state, names; problems; lanes, outbox, dead_letters: callbacks that wait, in their order
redis_url    where Redis is, for every client; redis_client: they are made here, and find the primary
recordings   those that wait, and the index of those that are in the bucket; recording_document: the JSON beside them
transcribers what the workers have that transcribes
web/         its own process: API and dashboard; any number of them
cli, commands/, up, parts/, doctor/   the commands, and everything on one machine
settings     one frozen object from the environment
errors       our exceptions
../tasks/    the Celery application: callbacks, recordings, transcriptions
../asterisk/ what the Asterisk machine needs
"""

"""Commands `ari-conf recordings …`: recordings that wait for storage or transcription, or were given up."""

from __future__ import annotations

import time

import typer

from ari_conf.cli.terminal import format_duration, format_time, print_table, redis, say
from ari_conf.recordings import jobs
from ari_conf.recordings.jobs import PendingJob
from ari_conf.store import accounts

app = typer.Typer(no_args_is_help=True, help="Recordings that wait to be stored or transcribed, or were given up.")


@app.command()
def pending() -> None:
    """List the waiting recordings with their state and progress, the longest-waiting first."""
    now_ms = time.time() * 1000
    with redis() as client:
        found = jobs.pending(client)
    rows = [
        (
            one.job.auth_id,
            one.job.recording_id,
            describe_state(one),
            format_duration(int(now_ms) - one.job.at_ms),
            one.job.error,
        )
        for one in found
    ]
    print_table(("account", "recording", "state", "since", "last error"), rows, "No recording is waiting.")


@app.command()
def lost() -> None:
    """List the recordings that were given up, with the reasons."""
    with redis() as client:
        found = jobs.given_up(client, accounts.ids(client))
    rows = [(job.auth_id, job.recording_id, kind, format_time(job.at_ms), job.error) for _, kind, job in found]
    print_table(("account", "recording", "for", "of", "reason"), rows, "No recording was given up.")


@app.command()
def retry() -> None:
    """Retry the recordings that were given up, for example after Asterisk's disk was restored."""
    with redis() as client:
        sent = jobs.retry(client, accounts.ids(client))
    say(f"{sent} recording{'' if sent == 1 else 's'} will be retried.")


def describe_state(pending_job: PendingJob) -> str:
    doing = "being stored" if pending_job.kind == jobs.STORE_QUEUE else "being transcribed"
    if pending_job.state == "leased":
        return doing if pending_job.percent is None else f"{doing}, {pending_job.percent} %"
    wanted = "to be stored" if pending_job.kind == jobs.STORE_QUEUE else "to be transcribed"
    tried = f"{wanted}, tried {pending_job.job.attempts} times" if pending_job.job.attempts else wanted
    return f"{tried}, again in {format_duration(pending_job.due_in_ms)}" if pending_job.state == "waiting" else tried

"""`ari-conf recordings …`: those that are not in the bucket yet, and those that were given up."""

from __future__ import annotations

import time

import typer

from ari_conf import accounts, recordings
from ari_conf.commands.terminal import duration, moment, print_table, redis, say
from ari_conf.recordings import Pending

app = typer.Typer(no_args_is_help=True, help="Recordings that wait to be stored or transcribed, or were given up.")


@app.command()
def pending() -> None:
    """Those that wait, the one that has waited longest first; what they wait for, and how far they are."""
    now_ms = time.time() * 1000
    with redis() as client:
        found = recordings.pending(client)
    rows = [
        (one.job.auth_id, one.job.recording_id, what(one), duration(int(now_ms) - one.job.at_ms), one.job.error)
        for one in found
    ]
    print_table(("account", "recording", "state", "since", "the last try"), rows, "No recording waits.")


@app.command()
def lost() -> None:
    """Those that were given up, and why."""
    with redis() as client:
        found = recordings.lost(client, accounts.ids(client))
    rows = [(job.auth_id, job.recording_id, kind, moment(job.at_ms), job.error) for _, kind, job in found]
    print_table(("account", "recording", "for", "of", "reason"), rows, "No recording was given up.")


@app.command()
def retry() -> None:
    """Tries those that were given up again, such as when Asterisk's disk was brought back."""
    with redis() as client:
        sent = recordings.retry(client, accounts.ids(client))
    say(f"{sent} recording{'' if sent == 1 else 's'} will be tried again.")


def what(one: Pending) -> str:
    doing = "being stored" if one.kind == recordings.QUEUE else "being transcribed"
    if one.state == "leased":
        return doing if one.percent is None else f"{doing}, {one.percent} %"
    wanted = "to be stored" if one.kind == recordings.QUEUE else "to be transcribed"
    tried = f"{wanted}, tried {one.job.tries} times" if one.job.tries else wanted
    return f"{tried}, again in {duration(one.due_in_ms)}" if one.state == "waiting" else tried

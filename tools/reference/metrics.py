"""metrics.md, from the Prometheus registries of `ari-conf serve` and `ari-conf web`."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from prometheus_client import CollectorRegistry

from ari_conf.observability.server_metrics import ServerMetrics
from ari_conf.web.metrics import OUTCOMES, WebMetrics
from tools.reference.markdown import code, compare, document, table

BUILD = ("Always 1; the label is the version of the process.", "Processes of one installation show different versions.")

SERVER: dict[str, tuple[str, str]] = {
    "ari_conf_owner": (
        "1 if this process owns the calls, 0 if it is a standby.",
        "The sum over all `serve` processes of one Asterisk is not 1 for longer than 10 s.",
    ),
    "ari_conf_asterisk_connected": (
        "1 while an event WebSocket to Asterisk is open.",
        "0 on the owner for longer than 10 s: no call is served. Check that Asterisk runs.",
    ),
    "ari_conf_asterisk_connections_total": (
        "How often an event WebSocket to Asterisk was opened. The first one is the start; each further one is a "
        "reconnection.",
        "It grows while Asterisk and `serve` were not restarted: the network between them, or an overloaded Asterisk.",
    ),
    "ari_conf_calls": (
        "Calls of this Asterisk now.",
        "It approaches `maxcalls` of Asterisk, or drops to 0 at a time when you expect calls.",
    ),
    "ari_conf_conferences": ("Conferences now.", "It grows although `ari_conf_calls` does not."),
    "ari_conf_members": ("Members of all conferences now.", "It approaches the capacity that you measured."),
    "ari_conf_join_seconds": (
        "Time from admission to a conference until the caller is in its bridge. Callers who wait for the start are not "
        "counted.",
        "The 95th percentile exceeds 0.5 s for some minutes: Asterisk, Redis or this process is overloaded.",
    ),
    "ari_conf_asterisk_seconds": (
        "Round trip of a ping to Asterisk's REST interface, every 5 s.",
        "The 95th percentile exceeds 0.1 s: Asterisk is overloaded, or the network is slow.",
    ),
    "ari_conf_redis_seconds": (
        "Round trip of a ping to Redis, every 5 s while Redis is reachable.",
        "The 95th percentile exceeds 0.1 s: every change waits for Redis before it is carried out.",
    ),
    "ari_conf_loop_lag_seconds": (
        "How late the event loop of `serve` runs a timer, measured every 0.25 s.",
        "The 99th percentile exceeds 0.1 s: the process does not get enough CPU.",
    ),
    "ari_conf_steps_waiting": (
        "Steps that are not written to Redis yet.",
        "Above 0 for longer than 5 s: Redis is unreachable or takes no writes. Conferences continue from memory.",
    ),
    "ari_conf_callbacks_dropped_total": (
        "Callbacks that were dropped because an account, or one conference and URL, had too many undelivered ones.",
        "It grows at all: callbacks are lost. Check `ari-conf lanes` and the account's problems.",
    ),
    "ari_conf_dial_refusals_total": (
        "Calls that this process refused to place, by reason ([Trunks](../operations/trunks.md#refusals)).",
        "`destination_not_allowed`, `special_number` or `caller_id_not_allowed` grow: an application is misconfigured, "
        "or a token is stolen. `trunks_full` grows: raise the limits of the trunks, or add one.",
    ),
    "ari_conf_calls_placed_total": (
        "Placed calls that are over, by the trunk of the last attempt. `outcome` is `answered`, `busy`, `no-answer`, "
        "`timeout`, `cancel` or `failed`.",
        "`failed` grows for one trunk: its provider refuses calls, or can't be reached. `answered` grows at a time "
        "when nobody should call: see [Security](../operations/security.md#dialing).",
    ),
    "ari_conf_line_mos": (
        "Estimated mean opinion score of members' lines (1 is bad, 4.4 is perfect), by ITU-T G.107. Each line is "
        "measured every 10 s, with more than 200 members less often.",
        "The 10th percentile falls below 3.6: many members are hard to understand.",
    ),
    "ari_conf_line_loss_ratio": (
        "Share of lost packets of members' lines: `in` is from the phone to Asterisk, `out` is to the phone, as it "
        "reports.",
        "The 90th percentile exceeds 0.02.",
    ),
    "ari_conf_line_jitter_seconds": (
        "Jitter of members' lines (RFC 3550), by the same directions.",
        "The 90th percentile exceeds 0.03 s.",
    ),
    "ari_conf_line_round_trip_seconds": (
        "Round trip between Asterisk and phones that send RTCP reports.",
        "The 90th percentile exceeds 0.3 s: people talk over each other.",
    ),
    "ari_conf_bad_lines": (
        "Members whose line is bad now: below a score of 3.1, until it reaches 3.6 again.",
        "Above a fifth of `ari_conf_members` for some minutes: the network or the carrier, not single phones.",
    ),
    "ari_conf_recording_folder_bytes": (
        "Bytes in Asterisk's recording folder. Only measured if `ARI_CONF_RECORDING_FOLDER` is set.",
        "It grows for longer than the longest conference: recordings are not stored. Check `ari-conf recordings "
        "pending`.",
    ),
    "ari_conf_build_info": BUILD,
}
WEB: dict[str, tuple[str, str]] = {
    "ari_conf_api_requests_total": (
        "Requests that were answered. `path` is the route, not the path with its names; an unknown method is `other`.",
        "The share of status 5xx exceeds 1 %. Many 401 or 429: a client uses a wrong token, or calls too often.",
    ),
    "ari_conf_api_seconds": (
        "Time until a response begins.",
        "The 95th percentile exceeds 1 s: clients wait 5 s at most (Plivo's SDKs).",
    ),
    "ari_conf_redis_ping_seconds": (
        "Round trip of the latest ping to Redis.",
        "Above 0.1 s for some minutes.",
    ),
    "ari_conf_event_streams": (
        "Event streams that are open at this process.",
        "An account's applications get 429: raise `ARI_CONF_EVENT_STREAMS`, or close streams that nobody reads.",
    ),
    "ari_conf_dial_refusals_total": (
        "Requests to place a call that this process refused, by reason ([Trunks](../operations/trunks.md#refusals)).",
        "`destination_not_allowed`, `special_number` or `caller_id_not_allowed` grow: an application is misconfigured, "
        "or a token is stolen. `trunks_full` grows: raise the limits of the trunks, or add one.",
    ),
    "ari_conf_web_loop_lag_seconds": (
        "How late the event loop of `web` runs a timer, measured every 0.25 s.",
        "The 99th percentile exceeds 0.1 s: the process does not get enough CPU; run another one.",
    ),
    "ari_conf_callback_lanes": (
        "Lanes (one per conference and callback URL) that hold undelivered callbacks.",
        "It grows steadily: there are too few workers, or callback endpoints are down.",
    ),
    "ari_conf_callback_lane_depth": (
        "Undelivered callbacks in the lane that has most, among the first 1000 lanes.",
        "It approaches 10,000: further callbacks of that lane are dropped.",
    ),
    "ari_conf_callbacks_waiting": (
        "Undelivered callbacks.",
        "It grows for some minutes. 85 MB of Redis memory hold about 100,000.",
    ),
    "ari_conf_callbacks_oldest_seconds": (
        "Age of the oldest callback at the head of a lane.",
        "Above 60 s: every attempt and retry of one callback ends within 55 s, so callbacks wait for workers or behind "
        "others.",
    ),
    "ari_conf_callbacks_total": (
        "Outcomes of delivery attempts, as counted in Redis: `delivered`, `retried`, `dead` (dead letters).",
        "`dead` grows: list them with `ari-conf dead-letters list ACCOUNT`.",
    ),
    "ari_conf_workers": (
        "Workers that deliver callbacks.",
        "Below 1: no callback is delivered. Below 2: one failure stops delivery.",
    ),
    "ari_conf_stuck_workers": (
        "Workers that do not work off this queue: they are suspended, or a thread is stuck.",
        "Above 0 for a minute: run `ari-conf worker --check` on each machine, and restart the worker that it names.",
    ),
    "ari_conf_recordings_waiting": (
        "Recordings that are not stored yet, including those that are being stored.",
        "It grows: object storage is unreachable, or there are too few workers. The files stay on Asterisk's disk.",
    ),
    "ari_conf_recordings_oldest_seconds": (
        "Age of the oldest recording that is not stored yet, since its end.",
        "Above 600 s. A retry starts every 5 minutes at the latest.",
    ),
    "ari_conf_recordings_total": (
        "Outcomes of storing: `stored`, `retried`, `dead` (lost).",
        "`dead` grows: a recording is lost; `ari-conf recordings lost` says why. `retried` grows: object storage or "
        "Asterisk fails.",
    ),
    "ari_conf_recording_workers": ("Workers that store recordings.", "Below 1: no recording is stored."),
    "ari_conf_transcriptions_waiting": (
        "Recordings that are not transcribed yet, including those in progress.",
        "It grows steadily: transcription needs about 0.1 s of CPU time per second of audio; add workers.",
    ),
    "ari_conf_transcriptions_oldest_seconds": (
        "Age of the oldest recording that is not transcribed yet, since it was stored.",
        "Above the time that your longest recordings need.",
    ),
    "ari_conf_transcriptions_total": (
        "Outcomes of transcription attempts: `done`, `retried`.",
        "`retried` grows while `done` does not: the engine or its server fails.",
    ),
    "ari_conf_transcription_workers": (
        "Workers that serve the transcription queue, with or without an engine.",
        "Below 1 although transcriptions are requested.",
    ),
    "ari_conf_history_waiting": (
        "Entries of the [history](../operations/history.md) that wait for its database.",
        "It grows: the database is away. Nothing is lost until an account has 200,000 of them, or 128 MB.",
    ),
    "ari_conf_history_oldest_seconds": ("Age of the oldest of them.", "Above 300 s."),
    "ari_conf_history_total": (
        "Outcomes: `written`, `failed` (attempts), `dropped` (too many waited), `unreadable` (kept apart).",
        "`dropped` grows: the history gets gaps. `unreadable` grows: see the log of the workers.",
    ),
    "ari_conf_history_workers": ("Workers that write the history.", "Below 1: nothing is written."),
    "ari_conf_build_info": BUILD,
}
"""Exposed name -> (meaning, alarming values)."""

INTRODUCTION = """
This page lists the metrics that you can collect with Prometheus, and when a value needs your attention. The
thresholds are starting points: adjust them to your own traffic. [Monitoring](../operations/monitoring.md) describes
the endpoints and alerts.

Both endpoints need no login; do not let a reverse proxy pass them. A histogram exposes `NAME_bucket`, `NAME_sum` and
`NAME_count`.
"""
SERVER_INTRODUCTION = """
## ari-conf serve

`/metrics` on `ARI_CONF_METRICS_LISTEN` (default `127.0.0.1:8091`). A standby exposes the same metrics, without calls.
Until Asterisk has answered for the first time, `/metrics` does not exist (404).
"""
WEB_INTRODUCTION = """
## ari-conf web

`/metrics` on `ARI_CONF_WEB_LISTEN` (default `127.0.0.1:8080`). The queue metrics (callbacks, recordings,
transcriptions and their workers) describe Redis, so every `web` process exposes the same values: use `max`, not
`sum`, over several processes. They are at most one second old.
"""


def registries() -> tuple[CollectorRegistry, CollectorRegistry]:
    """Return the registries of `serve` and `web`. Nothing is measured here, so the measured objects need not exist."""
    nothing: Any = SimpleNamespace()
    return ServerMetrics(nothing, nothing, bool, nothing).registry, WebMetrics()._registry


def list_metrics(registry: CollectorRegistry) -> Iterator[tuple[str, str, str]]:
    """Yield (name, type, labels) of each metric."""
    collectors: list[Any] = list(registry._collector_to_names)
    for collector in collectors:
        labels = ", ".join(code(label) for label in getattr(collector, "_labelnames", ()))
        for family in collector.describe():
            suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
            kind = "gauge" if family.type == "info" else family.type
            yield family.name + suffix, kind, "`version`" if family.type == "info" else labels


def _table(registry: CollectorRegistry, texts: dict[str, tuple[str, str]]) -> str:
    found = {name: (kind, labels) for name, kind, labels in list_metrics(registry)}
    compare("metrics.md", texts, found)
    columns = ("Metric", "Type", "Labels", "Meaning", "When to worry")
    return table(columns, ((code(name), *found[name], *text) for name, text in texts.items()))


def page() -> str:
    said = {word for words in OUTCOMES.values() for word in words.values()}
    compare("metrics.md, outcomes", ("delivered", "stored", "done", "retried", "dead"), said)
    server, web = registries()
    return document(
        "Metrics", INTRODUCTION, SERVER_INTRODUCTION, _table(server, SERVER), WEB_INTRODUCTION, _table(web, WEB)
    )

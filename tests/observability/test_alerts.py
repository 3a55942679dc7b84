"""Alert rules: each fires on its condition and not otherwise (promtool); what they name and link to exists."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from ari_conf.queues import queue_names
from tools import links
from tools.reference.metrics import SERVER, WEB

PROJECT = Path(__file__).parents[2]
ALERTS = PROJECT / "docs/alerts.yml"
MONITORING = PROJECT / "docs/operations/monitoring.md"
RULES: dict[str, dict[str, Any]] = {
    rule["alert"]: rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]
}
METRIC = re.compile(r"\bari_conf_[a-z_]+")
JOBS = ("ari_conf_serve", "ari_conf_web")
HISTOGRAM_SUFFIXES = ("_bucket", "_count", "_sum")

STEP_S = 15
"""Seconds between two scrapes, and between two evaluations."""
BEGINS = 40
"""Number of the scrape from which on something is wrong: 10 minutes."""
LASTS = 300
"""Number of scrapes after that: 75 minutes."""
SERVE = [f'job="ari_conf_serve",instance="{host}:8091"' for host in ("a", "b")]
WEB_PROCESSES = [f'job="ari_conf_web",instance="{host}:8080"' for host in ("a", "b")]
A, B = "a:8091", "b:8091"
BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5)


def always(value: float) -> str:
    return f"{value}+0x{BEGINS + LASTS}"


def then(before: float, after: float) -> str:
    """Return the values of a gauge that changes when something goes wrong."""
    return f"{before}+0x{BEGINS - 1} {after}+0x{LASTS}"


def rising(before: float, after: float) -> str:
    """Return the values of a counter with other increments per scrape when something goes wrong."""
    return f"0+{before}x{BEGINS - 1} {before * BEGINS + after}+{after}x{LASTS}"


def histogram(name: str, labels: str, before_s: float, after_s: float) -> dict[str, str]:
    """Return the series of a histogram: 10 observations per scrape, each of so many seconds."""
    found = {}
    for bucket in (*BUCKETS, "+Inf"):
        counts = [10 * (bucket == "+Inf" or seconds <= float(bucket)) for seconds in (before_s, after_s)]
        found[f'{name}_bucket{{{labels},le="{bucket}"}}'] = rising(*counts)
    return found | {f"{name}_count{{{labels}}}": rising(10, 10)}


def series(name: str, labels: str, values: str) -> dict[str, str]:
    return {f"{name}{{{labels}}}": values}


def healthy() -> dict[str, str]:
    """Return the series of an installation in which all is well: two servers, two web processes."""
    found: dict[str, str] = {}
    for owner, labels in zip((1, 0), SERVE, strict=True):
        found |= series("up", labels, always(1))
        found |= series("ari_conf_build_info", f'{labels},version="1.0"', always(1))
        found |= series("ari_conf_owner", labels, always(owner))
        found |= series("ari_conf_asterisk_connected", labels, always(owner))
        found |= series("ari_conf_asterisk_connections_total", labels, always(owner))
        for name, value in (("calls", 90), ("conferences", 20), ("members", 80), ("bad_lines", 16)):
            found |= series(f"ari_conf_{name}", labels, always(value * owner))
        for name in ("join", "asterisk", "redis", "loop_lag"):
            found |= histogram(f"ari_conf_{name}_seconds", labels, 0.04, 0.04)
        found |= series("ari_conf_steps_waiting", labels, always(0))
        found |= series("ari_conf_callbacks_dropped_total", labels, always(7))
        found |= series("ari_conf_recording_folder_bytes", labels, always(9e9))
    for labels in WEB_PROCESSES:
        found |= series("up", labels, always(1))
        found |= series("ari_conf_build_info", f'{labels},version="1.0"', always(1))
        found |= histogram("ari_conf_web_loop_lag_seconds", labels, 0.04, 0.04)
        found |= histogram("ari_conf_api_seconds", f'{labels},method="GET",path="/v1/"', 0.4, 0.4)
        for status, rate in (("200", 3000), ("401", 6), ("429", 6), ("503", 14)):
            found |= series("ari_conf_api_requests_total", f'{labels},status="{status}"', rising(rate, rate))
        for name, value in (
            ("workers", 1),
            ("recording_workers", 1),
            ("transcription_workers", 0),
            ("transcriptions_waiting", 0),
            ("callbacks_oldest_seconds", 60),
            ("callback_lane_depth", 8000),
            ("recordings_oldest_seconds", 600),
            ("transcriptions_oldest_seconds", 6 * 3600),
            ("history_oldest_seconds", 300),
        ):
            found |= series(f"ari_conf_{name}", labels, always(value))
        for queue in queue_names.ALL:
            found |= series("ari_conf_stuck_workers", f'{labels},queue="{queue}"', always(0))
        for queue, outcomes in (
            ("callbacks", ("delivered", "retried")),
            ("recordings", ("stored", "retried")),
            ("transcriptions", ("done", "retried")),
        ):
            for outcome in outcomes:
                found |= series(f"ari_conf_{queue}_total", f'{labels},outcome="{outcome}"', rising(5, 5))
            found |= series("ari_conf_history_total", f'{labels},outcome="dropped"', always(7))
            if queue != "transcriptions":
                found |= series(f"ari_conf_{queue}_total", f'{labels},outcome="dead"', always(3))
    return found


def everywhere(name: str, values: str, more: str = "", of: list[str] = WEB_PROCESSES) -> dict[str, str]:
    """Return the series of a metric of all web processes, which show the same."""
    return {key: value for labels in of for key, value in series(name, labels + more, values).items()}


@dataclass(frozen=True)
class Case:
    changes: dict[str, str | None]
    """Series that differ from those of a healthy installation; None: there is no such series."""
    summary: str
    labels: dict[str, str] = field(default_factory=dict)
    others: tuple[str, ...] = ()
    """Alerts that the same change fires."""
    begins: int = BEGINS
    """Number of the scrape that meets the condition first; -1: that depends on a rate."""

    def fires_by(self, alert: str) -> int:
        """Return the number of the scrape by which it must have fired."""
        holds = seconds(RULES[alert].get("for", "0s")) // STEP_S
        return max(self.begins, BEGINS) + holds + (130 if self.begins < 0 else 5)


def without(part: str) -> dict[str, str | None]:
    return {name: None for name in healthy() if part in name}


def down(labels: str) -> dict[str, str | None]:
    """Return the changes by a process that does not respond: its own series end."""
    ended = {name: f"{value.split(' ')[0].split('x')[0]}x{BEGINS - 1} stale" for name, value in healthy().items()}
    return {name: value for name, value in ended.items() if labels in name and not name.startswith("up{")} | series(
        "up", labels, then(1, 0)
    )  # type: ignore[return-value]


ON_A = {"job": "ari_conf_serve", "instance": A}
SLOW = 2.0
"""Seconds: in the bucket from 1 to 2.5."""
CASES = {
    "AriConfNotScraped": Case(
        without('job="ari_conf_web"'),
        "Prometheus has no target of the job ari_conf_web",
        {"job": "ari_conf_web"},
        begins=0,
    ),
    "AriConfTargetDown": Case(
        down(WEB_PROCESSES[1]),
        "ari_conf_web at b:8080 does not respond",
        {"job": "ari_conf_web", "instance": "b:8080"},
    ),
    "AriConfNoOwner": Case(
        series("ari_conf_owner", SERVE[0], then(1, 0)), "No server owns the calls of the Asterisk server"
    ),
    "AriConfTwoOwners": Case(
        series("ari_conf_owner", SERVE[1], then(0, 1)) | series("ari_conf_asterisk_connected", SERVE[1], always(1)),
        "2 servers own calls of one Asterisk server",
    ),
    "AriConfNoStandby": Case(down(SERVE[1]), "No standby runs for the Asterisk server", others=("AriConfTargetDown",)),
    "AriConfWebDown": Case(
        down(WEB_PROCESSES[0]) | down(WEB_PROCESSES[1]),
        "No web process responds",
        others=("AriConfTargetDown",),
    ),
    "AriConfVersionsDiffer": Case(
        series("ari_conf_build_info", f'{SERVE[1]},version="1.1"', then(0, 1)),
        "Processes of 2 versions of ari_conf run together",
        begins=0,
    ),
    "AriConfLoopLate": Case(
        histogram("ari_conf_loop_lag_seconds", SERVE[0], 0.04, SLOW),
        "The server at a:8091 is 2.485s late",
        {"instance": A},
    ),
    "AriConfWebLoopLate": Case(
        histogram("ari_conf_web_loop_lag_seconds", WEB_PROCESSES[0], 0.04, SLOW),
        "The web process at a:8080 is 2.485s late",
        {"instance": "a:8080"},
    ),
    "AriConfAsteriskDisconnected": Case(
        series("ari_conf_asterisk_connected", SERVE[0], then(1, 0)),
        "The server at a:8091 has no connection to its Asterisk",
        ON_A,
    ),
    "AriConfAsteriskReconnects": Case(
        series("ari_conf_asterisk_connections_total", SERVE[0], rising(0, 0.1)),
        "The server a:8091 has connected to Asterisk 12 times in 30 min",
        ON_A,
        begins=-1,
    ),
    "AriConfAsteriskSlow": Case(
        histogram("ari_conf_asterisk_seconds", SERVE[0], 0.04, SLOW),
        "Asterisk takes 2.425s to answer the server at a:8091",
        {"instance": A},
        begins=-1,
    ),
    "AriConfJoinsSlow": Case(
        histogram("ari_conf_join_seconds", SERVE[0], 0.04, SLOW),
        "Callers wait 2.425s to join, at the server a:8091",
        {"instance": A},
        begins=-1,
    ),
    "AriConfConferencesRemain": Case(
        series("ari_conf_calls", SERVE[0], then(90, 0)) | series("ari_conf_conferences", SERVE[0], always(2)),
        "2 conferences without a call remain on the server at a:8091",
        ON_A,
    ),
    "AriConfLinesBad": Case(
        series("ari_conf_bad_lines", SERVE[0], then(0, 17)),
        "17 members have a bad line, more than a fifth of all",
    ),
    "AriConfRedisUnreachable": Case(
        series("ari_conf_steps_waiting", SERVE[0], then(0, 1)), "The server at a:8091 does not reach Redis", ON_A
    ),
    "AriConfRedisSlow": Case(
        histogram("ari_conf_redis_seconds", SERVE[0], 0.04, SLOW),
        "Redis takes 2.425s to answer the server at a:8091",
        {"instance": A},
        begins=-1,
    ),
    "AriConfNoCallbackWorkers": Case(everywhere("ari_conf_workers", then(1, 0)), "No worker delivers callbacks"),
    "AriConfNoRecordingWorkers": Case(
        everywhere("ari_conf_recording_workers", then(1, 0)), "No worker stores recordings"
    ),
    "AriConfNoTranscriptionWorkers": Case(
        everywhere("ari_conf_transcriptions_waiting", then(0, 1)), "No worker transcribes, and recordings wait for it"
    ),
    "AriConfWorkerStuck": Case(
        everywhere("ari_conf_stuck_workers", then(0, 1), ',queue="callbacks"'),
        "1 workers do not work off the queue callbacks",
        {"queue": "callbacks"},
    ),
    "AriConfCallbacksDelayed": Case(
        everywhere("ari_conf_callbacks_oldest_seconds", then(60, 90)), "The oldest callback has waited for 1m 30s"
    ),
    "AriConfDeadLetters": Case(
        everywhere("ari_conf_callbacks_total", then(3, 4), ',outcome="dead"'),
        "Callbacks could not be delivered, and became dead letters",
    ),
    "AriConfLaneFull": Case(
        everywhere("ari_conf_callback_lane_depth", then(8000, 8001)),
        "8001 callbacks of one conference to one URL wait; from 10,000 on they are dropped",
    ),
    "AriConfCallbacksDropped": Case(
        series("ari_conf_callbacks_dropped_total", SERVE[0], then(7, 8)), "The server at a:8091 drops callbacks", ON_A
    ),
    "AriConfHistoryDelayed": Case(
        everywhere("ari_conf_history_oldest_seconds", then(300, 330)),
        "An entry of the history has waited for 5m 30s to be written",
    ),
    "AriConfHistoryLost": Case(
        everywhere("ari_conf_history_total", then(7, 8), ',outcome="dropped"'), "Entries of the history are dropped"
    ),
    "AriConfRecordingsDelayed": Case(
        everywhere("ari_conf_recordings_oldest_seconds", then(600, 660)),
        "A recording has waited for 11m 0s to be stored",
    ),
    "AriConfRecordingsLost": Case(
        everywhere("ari_conf_recordings_total", then(3, 4), ',outcome="dead"'), "A recording is lost"
    ),
    "AriConfRecordingFolderLarge": Case(
        series("ari_conf_recording_folder_bytes", SERVE[0], then(9e9, 12 * 1024**3)),
        "12GiB of recordings wait on Asterisk's disk, says a:8091",
        ON_A,
    ),
    "AriConfTranscriptionsFail": Case(
        everywhere("ari_conf_transcriptions_total", rising(5, 0), ',outcome="done"'),
        "Transcriptions fail",
        begins=-1,
    ),
    "AriConfTranscriptionsDelayed": Case(
        everywhere("ari_conf_transcriptions_oldest_seconds", then(6 * 3600, 7 * 3600)),
        "A recording has waited for 7h 0m 0s to be transcribed",
    ),
    "AriConfApiErrors": Case(
        everywhere("ari_conf_api_requests_total", rising(14, 400), ',status="503"'),
        "More than 1 % of the API requests fail",
        begins=-1,
    ),
    "AriConfApiSlow": Case(
        {
            name: values
            for labels in WEB_PROCESSES
            for name, values in histogram("ari_conf_api_seconds", f'{labels},method="GET",path="/v1/"', 0.4, 2).items()
        },
        "API requests take 2.425s",
        begins=-1,
    ),
    "AriConfApiRefused": Case(
        everywhere("ari_conf_api_requests_total", rising(6, 15), ',status="401"'),
        "2 API requests a second are refused with 401",
        {"status": "401"},
        begins=-1,
    ),
}
MORE_CASES = {
    "AriConfRedisUnreachable": Case(
        {
            name: values
            for labels in SERVE[:1]
            for name, values in (
                series("ari_conf_redis_seconds_count", labels, rising(10, 0))
                | {f'ari_conf_redis_seconds_bucket{{{labels},le="+Inf"}}': rising(10, 0)}
            ).items()
        },
        "The server at a:8091 does not reach Redis",
        ON_A,
        begins=-1,
    ),
}


def seconds(duration: str) -> int:
    return int(duration[:-1]) * {"s": 1, "m": 60, "h": 3600}[duration[-1]]


def expected(alert: str, case: Case) -> dict[str, Any]:
    rule = RULES[alert]
    annotations = {name: " ".join(text.split()) for name, text in rule["annotations"].items()}
    return {
        "exp_labels": case.labels | rule["labels"],
        "exp_annotations": annotations | {"summary": case.summary},
    }


def promtool(folder: Path, changes: dict[str, Any], tests: list[dict[str, Any]]) -> None:
    inputs = {name: values for name, values in (healthy() | changes).items() if values is not None}
    group = {
        "interval": f"{STEP_S}s",
        "input_series": [{"series": name, "values": values} for name, values in inputs.items()],
        "alert_rule_test": tests,
    }
    file = folder / "alerts_test.yml"
    suite = {"rule_files": [str(ALERTS)], "evaluation_interval": f"{STEP_S}s", "tests": [group]}
    file.write_text(json.dumps(suite))
    ran = subprocess.run(["promtool", "test", "rules", str(file)], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def at(scrapes: float) -> str:
    return f"{round(scrapes * STEP_S)}s"


LAST = BEGINS + LASTS - 1


def test_promtool_accepts_the_rules() -> None:
    ran = subprocess.run(["promtool", "check", "rules", str(ALERTS)], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"SUCCESS: {len(RULES)} rules found" in ran.stdout


def test_none_fires_while_all_is_well(tmp_path: Path) -> None:
    promtool(
        tmp_path,
        {},
        [{"eval_time": at(when), "alertname": name, "exp_alerts": []} for name in RULES for when in (8, BEGINS, LAST)],
    )


def test_each_has_a_case() -> None:
    assert CASES.keys() == RULES.keys()


@pytest.mark.parametrize(("alert", "case"), [*CASES.items(), *MORE_CASES.items()])
def test_it_fires_on_its_condition_and_no_other_does(tmp_path: Path, alert: str, case: Case) -> None:
    last = at(case.fires_by(alert))
    tests = [{"eval_time": last, "alertname": alert, "exp_alerts": [expected(alert, case)]}]
    quiet = RULES.keys() - {alert, *case.others}
    tests += [{"eval_time": last, "alertname": name, "exp_alerts": []} for name in quiet]
    if case.begins > 0:
        tests.append({"eval_time": at(case.begins - 1), "alertname": alert, "exp_alerts": []})
    if case.begins >= 0 and "for" in RULES[alert]:
        fires = case.begins + seconds(RULES[alert]["for"]) / STEP_S
        tests.append({"eval_time": at(fires - 1), "alertname": alert, "exp_alerts": []})
    promtool(tmp_path, case.changes, tests)


def test_with_several_asterisk_servers_each_needs_an_owner(tmp_path: Path) -> None:
    changes: dict[str, Any] = {}
    for asterisk, owner in (("east", always(1)), ("west", then(1, 0))):
        for name, values in healthy().items():
            if 'job="ari_conf_serve"' in name:
                changes[name] = None
                changes[name.replace("{", f'{{asterisk="{asterisk}",').replace('="a:', f'="{asterisk}-a:')] = values
        labels = f'asterisk="{asterisk}",job="ari_conf_serve",instance="{asterisk}-a:8091"'
        changes |= series("ari_conf_owner", labels, owner)
    case = Case({}, "No server owns the calls of west", {"asterisk": "west"})
    promtool(
        tmp_path,
        changes,
        [
            {"eval_time": at(BEGINS - 1), "alertname": "AriConfNoOwner", "exp_alerts": []},
            {"eval_time": at(LAST), "alertname": "AriConfNoOwner", "exp_alerts": [expected("AriConfNoOwner", case)]},
            {"eval_time": at(LAST), "alertname": "AriConfTwoOwners", "exp_alerts": []},
            {"eval_time": at(LAST), "alertname": "AriConfNoStandby", "exp_alerts": []},
        ],
    )


# What the rules name.


def test_each_metric_of_the_rules_is_documented() -> None:
    documented = SERVER.keys() | WEB.keys()
    used = {name for rule in RULES.values() for name in METRIC.findall(rule["expr"])} - set(JOBS)
    assert len(used) > 25
    unknown = {
        name
        for name in used
        if name not in documented
        and not any(name.endswith(end) and name.removesuffix(end) in documented for end in HISTOGRAM_SUFFIXES)
    }
    assert not unknown


@pytest.mark.parametrize("alert", RULES)
def test_it_says_what_to_do_and_links_to_a_page(alert: str) -> None:
    rule = RULES[alert]
    assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"].keys() == {"severity"} and rule["labels"]["severity"] in ("critical", "warning")
    annotations = rule["annotations"]
    assert annotations.keys() == {"summary", "description", "runbook"}
    assert annotations["description"].endswith(".") and "{{" not in annotations["description"]
    page, _, anchor = annotations["runbook"].partition("#")
    assert anchor in links.read((PROJECT / page).read_text()).anchors


def test_the_page_lists_each_alert_with_its_severity() -> None:
    rows = re.findall(r"^\| `(AriConf\w+)` \| (\w+) \|", MONITORING.read_text(), re.MULTILINE)
    assert dict(rows) == {name: rule["labels"]["severity"] for name, rule in RULES.items()}
    assert len(rows) == len(RULES)

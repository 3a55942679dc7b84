"""A real Prometheus with the alert rules, beside a real server and web process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from ari_conf.local import processes
from tests.integration.stage import Stage
from tests.lateness import Patience

pytestmark = pytest.mark.asyncio(loop_scope="session")

ALERTS = Path(__file__).parents[2] / "docs/alerts.yml"
NEVER = {
    "AriConfNotScraped",
    "AriConfTargetDown",
    "AriConfNoOwner",
    "AriConfTwoOwners",
    "AriConfNoStandby",
    "AriConfWebDown",
    "AriConfVersionsDiffer",
    "AriConfAsteriskDisconnected",
    "AriConfNoCallbackWorkers",
    "AriConfNoRecordingWorkers",
    "AriConfWorkerStuck",
    "AriConfCallbacksDropped",
    "AriConfRecordingsLost",
}
"""Alerts that no delay of this machine fires."""


class Prometheus:
    def __init__(self, url: str, client: aiohttp.ClientSession) -> None:
        self._url, self._client = url, client

    async def get(self, path: str, **query: str) -> Any:
        async with self._client.get(f"{self._url}/api/v1/{path}", params=query) as response:
            answer = await response.json()
        assert answer["status"] == "success", answer
        return answer["data"]

    async def alerts(self) -> set[str]:
        """Return the alerts whose condition is met now."""
        return {alert["labels"]["alertname"] for alert in (await self.get("alerts"))["alerts"]}

    async def up(self) -> dict[str, str]:
        found = await self.get("query", query="up")
        return {one["metric"]["job"]: one["value"][1] for one in found["result"]}


@asynccontextmanager
async def prometheus(stage: Stage, folder: Path) -> AsyncGenerator[Prometheus]:
    settings = stage.system.settings
    jobs = {"ari_conf_serve": settings.metrics_listen, "ari_conf_web": settings.web_listen}
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(ALERTS)],
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": [str(target)]}]} for job, target in jobs.items()
        ],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))
    address = f"127.0.0.1:{processes.free_port()}"
    command = [
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
    ]
    ready = processes.log_matches("Server is ready to receive web requests")
    process = await processes.start("prometheus", command, folder / "prometheus.log", ready=ready, deadline=60)
    try:
        async with aiohttp.ClientSession() as client:
            yield Prometheus(f"http://{address}", client)
    finally:
        await processes.stop(process)


async def until(condition: Callable[[], Any], within: float = 60) -> Any:
    patience = Patience(within)
    while not (found := await condition()):
        assert not patience.over, f"not within {within} s"
        await asyncio.sleep(0.5)
    return found


async def test_the_rules_work_on_what_is_really_exposed(stage: Stage, tmp_path: Path) -> None:
    async with prometheus(stage, tmp_path) as watching:

        async def both_up() -> bool:
            return await watching.up() == {"ari_conf_serve": "1", "ari_conf_web": "1"}

        async def evaluated() -> list[dict[str, Any]]:
            groups = (await watching.get("rules"))["groups"]
            rules = [rule for group in groups for rule in group["rules"]]
            return rules if all(rule["health"] != "unknown" for rule in rules) else []

        async def has_rates() -> bool:
            return bool((await watching.get("query", query="rate(ari_conf_redis_seconds_count[1m])"))["result"])

        async def no_worker() -> bool:
            return {"AriConfNoCallbackWorkers", "AriConfNoRecordingWorkers"} <= await watching.alerts()

        async def a_worker() -> bool:
            return not {"AriConfNoCallbackWorkers", "AriConfNoRecordingWorkers"} & await watching.alerts()

        await until(both_up)
        rules = await until(evaluated)
        assert {rule["health"] for rule in rules} == {"ok"}, [rule for rule in rules if rule["health"] != "ok"]
        await until(has_rates)
        assert not await watching.alerts() & NEVER
        await stage.system.kill("worker")
        await until(no_worker)
        await stage.system.start("worker")
        await until(a_worker)

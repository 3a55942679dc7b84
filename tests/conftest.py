"""Fixtures of all tests, and the hooks of pytest."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

from tests import lateness
from tests.integration.table import Rows
from tests.parallel import Printing, longest_first
from tests.redis import redis_server as redis_server

# A slow machine is not a failure.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Rows())
    if prints_for_others(config):
        config.pluginmanager.register(Printing(config))
    else:
        lateness.start()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        longest_first(items)


def prints_for_others(config: pytest.Config) -> bool:
    """Return True if this process only prints, because other processes run the tests."""
    return bool(config.getoption("numprocesses", None)) and not hasattr(config, "workerinput")

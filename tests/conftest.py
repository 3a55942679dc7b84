"""Fixtures of all tests, and what pytest does around them."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

from tests import lateness
from tests.integration.table import Rows
from tests.parallel import Printing, longest_first
from tests.redis import redis_server as redis_server

# A busy machine is no failure.
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
    """Other processes run the tests, and this one prints."""
    return bool(config.getoption("numprocesses", None)) and not hasattr(config, "workerinput")

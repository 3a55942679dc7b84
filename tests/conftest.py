"""Fixtures of all tests."""

from hypothesis import HealthCheck, settings

from tests.redis import redis_server as redis_server

# A busy machine is no failure.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

"""Fixtures of all tests."""

from tests.redis import redis_server as redis_server

"""Upgrades: the state that each release has written to Redis, and a test that this release takes it over."""

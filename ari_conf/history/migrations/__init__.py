"""Migrations of the history's tables, run by Alembic: `ari_conf.history.database`."""

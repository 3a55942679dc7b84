"""Environment in which Alembic runs the migrations: on the connection, and in the transaction, of the caller."""

from __future__ import annotations

from alembic import context

from ari_conf.history.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, transactional_ddl=False)
context.run_migrations()

"""Alembic's entry: the connection is handed in by `upgrade`, and on PostgreSQL its transaction is begun here."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], target_metadata=None)
with context.begin_transaction():
    context.run_migrations()

"""Alembic's entry: always runs on the connection (and in the transaction) that `schema.migrate` hands over."""

from alembic import context

from skyinfra.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=False,  # the caller's transaction is the one that counts
    render_as_batch=True,
)
context.run_migrations()

"""The PostgreSQL store: one schema per desk, an advisory lock with a lease, an epoch checked in every commit."""

from channeld.store.postgresql.lock import evict
from channeld.store.postgresql.store import PostgresqlStore

__all__ = ["PostgresqlStore", "evict"]

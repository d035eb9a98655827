"""Durable records behind one small interface (core/records.py). May import core alone."""

from channeld.store.memory import MemoryStore
from channeld.store.opening import evict, open_store, wait_for_lock
from channeld.store.sqlite import SqliteStore

__all__ = ["MemoryStore", "SqliteStore", "evict", "open_store", "wait_for_lock"]

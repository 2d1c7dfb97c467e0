"""Where a node keeps everything: what a store must do, and the stores that are there."""

from .memory import MemoryStore
from .postgres import PostgresStore
from .protocol import Change, Delete, Loaded, Put, Row, Store

__all__ = [
    "Change",
    "Delete",
    "Loaded",
    "MemoryStore",
    "PostgresStore",
    "Put",
    "Row",
    "Store",
]

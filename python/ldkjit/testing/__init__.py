"""For the tests of your own program: whether a store keeps what a node relies on."""

from .stores import StoreCheckError, check_store

__all__ = ["StoreCheckError", "check_store"]

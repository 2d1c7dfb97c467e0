"""For the tests of your own program: a chain with an LSP and a payer, and a check of stores."""

from .scenario import Scenario
from .stores import StoreCheckError, check_store

__all__ = ["Scenario", "StoreCheckError", "check_store"]

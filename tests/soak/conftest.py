"""The node that the soak kills."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture
def node() -> Path:
    """The node that can be killed at named moments."""
    binary = Path(os.environ.get("SOAK_NODE", ""))
    if not binary.is_file():
        reason = "SOAK_NODE does not name the node to kill: make test builds it"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return binary

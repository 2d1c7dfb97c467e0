"""Fixtures of the unit tests."""

from __future__ import annotations

import sys
from pathlib import Path

# importlib mode adds no folder to sys.path; the fake native module is shared by path.
sys.path.insert(0, str(Path(__file__).parent))

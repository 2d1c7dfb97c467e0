"""What figures depend on: machine, versions, commit, method."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ldkjit import __version__
from ldkjit.sandbox import Regtest

ROOT = Path(__file__).parent.parent.parent


def _first(file: str, pattern: str) -> str:
    found = re.search(pattern, Path(file).read_text(), re.MULTILINE)
    return found[1].strip() if found else "unknown"


async def machine(chain: Regtest, ldk_node: str) -> dict[str, Any]:
    """All of it; ``ldk_node`` is the profile that the opponent was built with."""
    commit = subprocess.run(  # noqa: ASYNC221 (before anything is measured)
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True
    )
    return {
        "at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit.stdout.strip(),
        "machine": {
            "cpu": _first("/proc/cpuinfo", r"^model name\s*:(.*)$"),
            "cpus": os.cpu_count(),
            "memory_mb": int(_first("/proc/meminfo", r"^MemTotal:\s*(\d+)")) // 1024,
            "kernel": platform.release(),
            "architecture": platform.machine(),
            "load_before": os.getloadavg()[0],
        },
        "versions": {
            "ldkjit": __version__,
            "python": platform.python_version(),
            "ldk-node": f"0.7.1 ({ldk_node} profile)",
            "bitcoind": (await chain.rpc.call("getnetworkinfo"))["subversion"],
        },
    }

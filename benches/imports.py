"""What ``import ldkjit`` takes beyond ``import pydantic``, in fresh interpreters by turns.

Run with the Python that has both: ``python benches/imports.py``. Times are those of whole
processes. The difference of the medians is what the package and its other imports cost, and the
parts of pydantic that ``import pydantic`` leaves for the first model.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

MODULES = ("pydantic", "ldkjit")


def measure(module: str) -> float:
    """How long a Python takes that imports this and ends, ms."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
    return (time.perf_counter() - began) * 1_000


def main() -> None:
    """Print medians, their difference and every sample as JSON."""
    parser = argparse.ArgumentParser(description="What `import ldkjit` takes.")
    parser.add_argument("--rounds", type=int, default=20, help="imports of each")
    rounds: int = parser.parse_args().rounds
    for module in MODULES:
        measure(module)  # files are read from the disk, and compiled
    # By turns, so that what slows the machine down slows both.
    samples = [{module: measure(module) for module in MODULES} for _ in range(rounds)]
    medians = {module: statistics.median(each[module] for each in samples) for module in MODULES}
    told = {
        "python": sys.version,
        "rounds": rounds,
        "median_ms": medians,
        "difference_ms": medians["ldkjit"] - medians["pydantic"],
        "samples_ms": samples,
    }
    print(json.dumps(told, indent=2))


if __name__ == "__main__":
    main()

"""Instructions that each of core's benchmarks takes, beside the last release: no more than it did.

What cargo runs the built benches/rust/instructions.rs with: ``make bench-guard``.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

RELEASE = Path(__file__).parent / "results" / "instructions.json"
# Between two processors, which have other ways to copy memory.
TOLERANCE = 0.10
MEASURED = "instructions::measured"


def count(program: Path) -> dict[str, float]:
    """Instructions of each case, as valgrind counts them, whatever else the machine does."""
    with tempfile.TemporaryDirectory(prefix="ldkjit-instructions-") as folder:
        out = Path(folder) / "out"
        told = subprocess.run(
            [
                *("valgrind", "--tool=callgrind", f"--callgrind-out-file={out}.%p"),
                *(f"--toggle-collect={MEASURED}", f"--dump-after={MEASURED}"),
                program,
            ],
            capture_output=True,
            text=True,
        )
        if told.returncode:
            raise SystemExit(told.stderr)
        # A part for each return of `measured`, and what was at the end.
        parts = {int(part.suffix[1:]): part for part in Path(folder).glob("out.*.*")}
        totals = [_total(parts[number].read_text()) for number in sorted(parts)]
    cases = [line.split() for line in told.stdout.splitlines()]
    return {name: total / int(times) for (name, times), total in zip(cases, totals, strict=True)}


def _total(part: str) -> int:
    found = re.search(r"^totals: (\d+)$", part, re.MULTILINE)
    assert found is not None
    return int(found[1])


def beside(now: dict[str, float], then: dict[str, float]) -> tuple[list[str], list[str]]:
    """A line for each case, and the names of those that take more than they did, or are gone."""
    worse = [name for name in then if name not in now]
    lines = [f"{name:40} gone" for name in worse]
    for name, instructions in now.items():
        line = f"{name:40} {instructions:12,.0f}"
        if name in then:
            change = instructions / then[name] - 1
            line += f"  {change:+.1%}"
            if change > TOLERANCE:
                worse.append(name)
                line += "  MORE"
        lines.append(line)
    return lines, worse


def main() -> None:
    """Count; compare, or keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program", type=Path)
    parser.add_argument("--bench", action="store_true", help=argparse.SUPPRESS)  # cargo says so
    parser.add_argument("--keep", action="store_true", help="as what the next are compared with")
    asked = parser.parse_args()
    compiler = subprocess.run(["rustc", "-V"], capture_output=True, text=True, check=True)
    now = {"compiler": compiler.stdout.strip(), "instructions": count(asked.program)}
    if asked.keep:
        RELEASE.parent.mkdir(exist_ok=True)
        RELEASE.write_text(json.dumps(now, indent=1) + "\n")
    then = json.loads(RELEASE.read_text())
    lines, worse = beside(now["instructions"], then["instructions"])
    print("\n".join(lines))
    if then["compiler"] != now["compiler"]:
        print(f"compared with {then['compiler']}: of another compiler, so nothing is decided")
    elif worse:
        sys.exit(f"more than {TOLERANCE:.0%} more instructions than {RELEASE.name}: {worse}")


if __name__ == "__main__":
    main()

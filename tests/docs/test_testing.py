"""The programs of docs/testing.md run as they stand."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_its_tests_pass(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "testing.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 3
    for n, block in enumerate(blocks):
        (tmp_path / f"test_{n}.py").write_text(block)
    flags = ("-p", "no:cacheprovider", "-o", "asyncio_mode=auto", "--ldkjit-chain", "boxed")
    command = [sys.executable, "-m", "pytest", *flags]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout

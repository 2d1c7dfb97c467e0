"""The page on stores shows the example, word for word."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_shows_the_example() -> None:
    text = (ROOT / "docs" / "stores.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert (ROOT / "examples" / "store.py").read_text() in blocks
    for block in blocks:
        compile(block, "stores.md", "exec")

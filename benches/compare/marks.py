"""A page written by hand, with a place for what was measured."""

from __future__ import annotations

from pathlib import Path

BEGINS, ENDS = "<!-- measured -->", "<!-- end -->"


def fill(page: Path, lines: list[str]) -> None:
    """Put these lines between the page's two marks."""
    head, rest = page.read_text().split(BEGINS)
    _, tail = rest.split(ENDS)
    page.write_text("\n".join([head + BEGINS, *lines, ENDS + tail]))

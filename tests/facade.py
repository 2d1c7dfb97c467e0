"""Writes the methods of ``ldkjit.sync.Node`` from ``ldkjit.Node``'s: python tests/facade.py."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "python" / "ldkjit"
FACADE = PACKAGE / "sync.py"
MARK = "    # What follows is written by tests/facade.py, from node.py.\n"
BY_HAND = ("start", "stop")


def written() -> str:
    """What the facade should be, but for its format."""
    return FACADE.read_text("utf-8").partition(MARK)[0] + MARK + _methods()


def _methods() -> str:
    source = (PACKAGE / "node.py").read_text("utf-8")
    lines = source.splitlines(keepends=True)
    (node,) = (
        each
        for each in ast.parse(source).body
        if isinstance(each, ast.ClassDef) and each.name == "Node"
    )
    text, after = "", 0
    for each in node.body:
        begin = min(mark.lineno for mark in (*getattr(each, "decorator_list", []), each))
        headings = [line for line in lines[after : begin - 1] if re.match(r"    # [A-Z]", line)]
        after = each.end_lineno or 0
        if not isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if each.name.startswith("_") or each.name in BY_HAND:
            continue
        text += "\n" + "".join(f"{line}\n" for line in headings)
        if isinstance(each, ast.FunctionDef):
            text += "".join(lines[begin - 1 : after])
            continue
        head = "".join(lines[begin - 1 : each.body[0].end_lineno])
        head = head.replace("async def", "def", 1)
        head = re.sub(r"-> AsyncGenerator\[(.*), None\]:", r"-> Generator[\1, None, None]:", head)
        text += f"{head}        return {_body(each)}\n"
    return text


def _body(method: ast.AsyncFunctionDef) -> str:
    given = [each.arg for each in method.args.args[1:]]
    given += [f"{each.arg}={each.arg}" for each in method.args.kwonlyargs]
    call = f"lambda node: node.{method.name}({', '.join(given)})"
    returns = ast.unparse(method.returns) if method.returns else ""
    if returns.startswith("AsyncGenerator"):
        return f"self._each({call})"
    waits = f"self._wait({call})"
    return f"self._invoice({waits})" if returns == "Invoice" else waits


if __name__ == "__main__":
    FACADE.write_text(written(), "utf-8")
    subprocess.run([sys.executable, "-m", "ruff", "format", FACADE], check=True)

"""What an import brings, and that every public name is there, documented and used."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "python" / "ldkjit"
# What a program may import beside the package itself.
MODULES = (
    "control",
    "history",
    "metrics",
    "parsing",
    "qr",
    "replay",
    "sandbox",
    "storage",
    "sync",
    "telemetry",
    "testing",
)
# Documented where they are written.
UNIONS = ("Change", "Event", "Parsed")
SOURCES = [
    file
    for file in sorted(PACKAGE.rglob("*.py"))
    if not file.name.startswith("_") and file.parent.name != "cli"
]
# Of extras, or of no use before they are asked for.
NOT_LOADED = (
    "typer",
    "rich",
    "segno",
    "psycopg",
    "asyncpg",
    "matplotlib",
    "numpy",
    "pandas",
    "fastapi",
    "uvicorn",
    "prometheus_client",
    "opentelemetry",
    "sqlite3",
)


def test_an_import_warns_of_nothing_and_loads_no_extra() -> None:
    program = f"import sys, ldkjit; print(*(set(sys.modules) & set({NOT_LOADED!r})))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == ""


def _public(module: ModuleType) -> list[str]:
    """What a module has for others: what it lists, else what it defines itself."""
    listed: list[str] | None = getattr(module, "__all__", None)
    own = (
        name
        for name, thing in vars(module).items()
        if not name.startswith("_") and getattr(thing, "__module__", None) == module.__name__
    )
    return list(own) if listed is None else listed


@cache
def _used() -> set[str]:
    """What tests and examples take from the package; that they use it is for ruff to say."""
    used: set[str] = set()
    for file in (*ROOT.glob("tests/**/*.py"), *ROOT.glob("examples/**/*.py")):
        if file.name == "every_case.py":  # it names every event and error, and uses none
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.ImportFrom(module=str(module)) if module.split(".")[0] == "ldkjit":
                    used.update(each.name for each in node.names)
                case ast.Attribute(value=ast.Name(id=module)) if module in ("ldkjit", *MODULES):
                    used.add(node.attr)
                case _:
                    pass
    return used


@pytest.mark.parametrize("name", ["", *MODULES])
def test_every_public_name_is_there_documented_and_used(name: str) -> None:
    module = importlib.import_module(f"ldkjit.{name}".rstrip("."))
    names = _public(module)
    assert sorted(names) == sorted(set(names))
    for each in names:
        if each not in UNIONS:
            about = (getattr(module, each).__doc__ or "").strip()
            assert about, each
            assert not about.startswith(f"{each}("), f"{each}: made by itself"
    assert [each for each in names if each not in _used()] == []


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_every_field_is_documented(file: Path) -> None:
    bare: list[str] = []
    for each in ast.parse(file.read_text()).body:
        if not isinstance(each, ast.ClassDef) or each.name.startswith("_"):
            continue
        about = ast.get_docstring(each) or ""
        for field, below in zip(each.body, [*each.body[1:], None], strict=True):
            if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
                continue
            name = field.target.id
            # A tag has one value, which its class is the meaning of.
            tag = field.value and f"Literal[{ast.unparse(field.value)}]"
            tagged = ast.unparse(field.annotation) == tag
            followed = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
            listed = f"\n    {name}: " in about
            if not (name.startswith("_") or tagged or followed or listed):
                bare.append(f"{each.name}.{name}")
    assert bare == []

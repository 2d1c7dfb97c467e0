"""What an import brings, and that every public name is there, documented and used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import ldkjit

ROOT = Path(__file__).parents[2]
# Of extras, or of no use before they are asked for.
NOT_LOADED = (
    "typer",
    "rich",
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


def test_every_public_name_is_there_and_documented() -> None:
    assert sorted(ldkjit.__all__) == sorted(set(ldkjit.__all__))
    for name in ldkjit.__all__:
        thing = getattr(ldkjit, name)
        if name != "Event":  # a union, documented where it is written
            assert (thing.__doc__ or "").strip(), name


def test_every_public_name_is_used_by_a_test_or_an_example() -> None:
    files = [*ROOT.glob("tests/**/*.py"), *ROOT.glob("examples/**/*.py"), ROOT / "README.md"]
    text = "\n".join(file.read_text() for file in files if file != Path(__file__))
    # What others give back is seen by its fields; what is raised, by its class.
    unused = [name for name in ldkjit.__all__ if name not in text]
    assert unused == []

"""LND's build: kept, renewed when its sources change, and a clear word when it cannot be made."""

from __future__ import annotations

from pathlib import Path

import pytest

from .building import BuildError
from .lnd_program import find_lnd, source_digest, version


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the build would be, on a machine without Go."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    return tmp_path / "ldkjit" / f"lnd-{version()}"


def test_without_go_it_says_what_is_missing(home: Path) -> None:
    with pytest.raises(BuildError, match="no go on PATH"):
        find_lnd()
    assert not home.exists()


def test_a_build_of_these_sources_is_used(home: Path) -> None:
    home.mkdir(parents=True)
    (home / "source").write_text(source_digest())
    assert find_lnd() == home


def test_a_build_of_other_sources_is_not(home: Path) -> None:
    home.mkdir(parents=True)
    (home / "source").write_text("0" * 64)
    with pytest.raises(BuildError):
        find_lnd()

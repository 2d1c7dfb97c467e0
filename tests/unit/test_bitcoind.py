"""Finding and fetching a bitcoind, without the network."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import ldkjit.sandbox.bitcoind as found

SCRIPT = Path(found.__file__)


def _program(path: Path, text: str = "#!/bin/sh\necho v1\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without a bitcoind, and with its own cache folder."""
    monkeypatch.delenv("BITCOIND_EXE", raising=False)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(found, "RETRY_PAUSES_S", (0.0, 0.0))
    return tmp_path


def test_the_order_of_discovery(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = _program(alone / "cache/ldkjit/bitcoind/bin/bitcoind")
    assert found.find_bitcoind(fetch=False) == cached
    on_path = _program(alone / "path/bitcoind")
    monkeypatch.setenv("PATH", f"{on_path.parent}:/usr/bin:/bin")
    assert found.find_bitcoind(fetch=False) == on_path
    named = _program(alone / "named")
    monkeypatch.setenv("BITCOIND_EXE", str(named))
    assert found.find_bitcoind(fetch=False) == named


def test_a_named_program_that_does_not_run_is_not_passed_over(
    alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _program(alone / "cache/ldkjit/bitcoind/bin/bitcoind")
    monkeypatch.setenv("BITCOIND_EXE", str(_program(alone / "named", "#!/bin/sh\nexit 1\n")))
    with pytest.raises(found.BitcoindNotFoundError, match="does not run"):
        found.find_bitcoind()


def test_without_a_fetch_the_error_says_what_to_do(alone: Path) -> None:
    with pytest.raises(found.BitcoindNotFoundError, match="BITCOIND_EXE"):
        found.find_bitcoind(fetch=False)


def test_without_debian_the_error_says_what_to_do(
    alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(alone))
    with pytest.raises(found.BitcoindNotFoundError, match="apt-get, dpkg-deb, tar is missing"):
        found.find_bitcoind()


@pytest.mark.parametrize(("problem", "tries"), [("404 Not Found", 3), ("no route", 1)])
def test_only_a_stale_index_is_tried_again(
    alone: Path, monkeypatch: pytest.MonkeyPatch, problem: str, tries: int
) -> None:
    seen: list[str] = []

    def build(work: Path, home: Path, site: str) -> None:
        seen.append(site)
        raise found._FetchError(problem)

    monkeypatch.setattr(found, "_sites", lambda: ["site"])
    monkeypatch.setattr(found, "_build", build)
    with pytest.raises(found.BitcoindNotFoundError, match=problem):
        found.find_bitcoind()
    assert seen == ["site"] * tries
    assert [path.name for path in (alone / "cache/ldkjit").iterdir()] == ["bitcoind.lock"]


def test_the_next_site_is_asked_and_a_broken_copy_replaced(
    alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = alone / "cache/ldkjit"
    _program(cache / "bitcoind/bin/bitcoind", "#!/bin/sh\nexit 1\n")
    (cache / "bitcoind.new.killed").mkdir()

    def build(work: Path, home: Path, site: str) -> None:
        if site == "bad":
            raise found._FetchError("no route")
        _program(work / "home/bin/bitcoind")

    monkeypatch.setattr(found, "_sites", lambda: ["bad", "good"])
    monkeypatch.setattr(found, "_build", build)
    assert found.runs(found.find_bitcoind())
    assert sorted(path.name for path in cache.iterdir()) == ["bitcoind", "bitcoind.lock"]


def test_an_old_index_is_refused(tmp_path: Path) -> None:
    release = tmp_path / "site_InRelease"
    release.write_text("Suite: unstable\nDate: Sat, 01 Jan 2022 00:00:00 UTC\n")
    with pytest.raises(found._FetchError, match="days old"):
        found._check_age(tmp_path)
    release.write_text("Suite: unstable\n")
    with pytest.raises(found._FetchError, match="no signed date"):
        found._check_age(tmp_path)


def test_the_loader_is_read_from_the_program() -> None:
    name = found._interpreter(Path(sys.executable).resolve())
    assert name.startswith("ld-")
    with pytest.raises(found._FetchError):
        found._interpreter(SCRIPT)


def test_a_wrapper_quotes_its_paths(tmp_path: Path) -> None:
    loader = _program(tmp_path / "a folder/loader", '#!/bin/sh\nprintf "<%s>" "$@"\n')
    text = found._wrapper("bitcoind", loader, Path("/r/usr/bin/bitcoind"), [Path("/r/my lib")])
    done = subprocess.run(["/bin/sh", "-c", text, "sh", "-a b"], capture_output=True, text=True)
    assert done.stdout == (
        "<--library-path></r/my lib><--argv0><bitcoind></r/usr/bin/bitcoind><-a b>"
    )


def test_it_runs_as_a_script_of_its_own(alone: Path) -> None:
    program = _program(alone / "cache/ldkjit/bitcoind/bin/bitcoind")
    done = subprocess.run([sys.executable, "-I", SCRIPT], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"{program}\n"), done.stderr

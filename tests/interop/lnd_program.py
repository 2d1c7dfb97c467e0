"""Find an LND, or build one from Go modules into the cache folder; run as a script, print where."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path

from ldkjit.sandbox.bitcoind import cache_home

from .building import BuildError, run

MODULE = Path(__file__).parent / "lnd"
# What LND's own releases are built with, less what needs other services.
TAGS = "autopilotrpc signrpc walletrpc chainrpc invoicesrpc watchtowerrpc neutrinorpc peersrpc"


def version() -> str:
    """The version that the module names, without its ``v``."""
    found = re.search(r"lightningnetwork/lnd v(\S+)", (MODULE / "go.mod").read_text())
    assert found is not None
    return found[1]


def find_lnd() -> Path:
    """Return the folder of ``lnd`` and ``lncli``, which are built if they are not there.

    The build is kept in the user's cache folder; the sources are checked against ``go.sum``.

    Raises:
        BuildError: Go is missing, or the build failed.
    """
    home = cache_home() / f"lnd-{version()}"
    home.parent.mkdir(parents=True, exist_ok=True)
    with _locked(home.with_name(f"{home.name}.lock")):
        if not _is_built(home):
            _build(home)
    return home


@contextlib.contextmanager
def _locked(path: Path) -> Generator[None, None, None]:
    """Let one builder in at a time; the kernel frees the lock if its holder dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def source_digest() -> str:
    """What is built, as a digest: another ``go.sum`` is another program of the same version."""
    return hashlib.sha256(
        b"".join((MODULE / name).read_bytes() for name in ("go.mod", "go.sum")) + TAGS.encode()
    ).hexdigest()


def _is_built(home: Path) -> bool:
    with contextlib.suppress(OSError):
        return (home / "source").read_text() == source_digest()
    return False


def _build(home: Path) -> None:
    go = shutil.which("go")
    if go is None:
        raise BuildError("LND is built with Go, and there is no go on PATH: install Go 1.25.")
    named = f"v{version()}"
    environ = {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOFLAGS": f"{os.environ.get('GOFLAGS', '')} -mod=readonly -buildvcs=false".strip(),
    }
    print(f"building LND {named} from Go modules; this takes minutes", file=sys.stderr)
    commit = f"github.com/lightningnetwork/lnd/build.Commit={named}"
    for left_by_a_killed_build in home.parent.glob(f"{home.name}.new.*"):
        shutil.rmtree(left_by_a_killed_build, ignore_errors=True)
    with tempfile.TemporaryDirectory(
        prefix=f"{home.name}.new.", dir=home.parent, ignore_cleanup_errors=True
    ) as new:
        flags = ["-trimpath", "-tags", TAGS, "-ldflags", f"-s -w -X {commit}"]
        run([go, "build", *flags, "-o", f"{new}/", "tool"], environ, MODULE)
        said = run([f"{new}/lnd", "--version"], environ, MODULE)
        if named not in said:
            raise BuildError(f"what was built is not {named}: {said}")
        (Path(new) / "source").write_text(source_digest())
        shutil.rmtree(home, ignore_errors=True)
        Path(new).rename(home)


def main() -> None:
    """Build if needed, and print where the programs are."""
    try:
        print(find_lnd())
    except BuildError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()

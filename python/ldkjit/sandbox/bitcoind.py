"""Find a bitcoind, or fetch one into the user's cache folder; run as a script, print its path.

Order: ``$BITCOIND_EXE``, then ``bitcoind`` on PATH, then the cached copy, then a fetch of Debian
sid's signed ``bitcoin-knots`` package. sid needs a newer libc than stable systems have, so the
package and everything it depends on is unpacked into one private root; nothing is installed.

Standard library only and no import from this package: it must run before ldkjit is built.
"""

from __future__ import annotations

import contextlib
import datetime
import email.utils
import fcntl
import os
import pwd
import re
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from pathlib import Path

PACKAGE = "bitcoin-knots"
PROGRAMS = ("bitcoind", "bitcoin-cli")
# apt's own limit of 7 days is lifted, as a caching site may serve an older index; this is ours.
MAX_INDEX_AGE = datetime.timedelta(days=90)
RETRY_PAUSES_S = (5.0, 20.0)
COMMAND_TIMEOUT_S = 900.0
HELP = (
    "Install Bitcoin Core or Knots yourself and put bitcoind on PATH, "
    "or name the program in the environment variable BITCOIND_EXE."
)


class BitcoindNotFoundError(Exception):
    """No usable bitcoind, and none could be fetched; the message says why and what to do."""


class _FetchError(Exception):
    """One attempt to fetch failed."""


def find_bitcoind(*, fetch: bool = True) -> Path:
    """Return a bitcoind that runs.

    Args:
        fetch: Whether a missing program may be fetched (about 27 MB, some 15 s).

    Raises:
        BitcoindNotFoundError: None works, or ``$BITCOIND_EXE`` names one that does not.
    """
    if named := os.environ.get("BITCOIND_EXE"):
        if runs(Path(named)):
            return Path(named)
        raise BitcoindNotFoundError(f"BITCOIND_EXE={named} does not run. Correct or unset it.")
    on_path = shutil.which("bitcoind")
    if on_path and runs(Path(on_path)):
        return Path(on_path)
    home = cache_home() / "bitcoind"
    cached = home / "bin" / "bitcoind"
    if runs(cached):
        return cached
    if not fetch:
        raise BitcoindNotFoundError(f"There is no bitcoind on this machine. {HELP}")
    home.parent.mkdir(parents=True, exist_ok=True)
    with _locked(home.with_name("bitcoind.lock")):
        if not runs(cached):  # another process may have fetched it while we waited
            _fetch(home)
    return cached


def cache_home() -> Path:
    """The folder under which everything fetched is kept."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "ldkjit"


def runs(program: Path) -> bool:
    """Whether ``program --version`` succeeds."""
    try:
        done = subprocess.run(
            [program, "--version"], capture_output=True, stdin=subprocess.DEVNULL, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


@contextlib.contextmanager
def _locked(path: Path) -> Generator[None, None, None]:
    """Let one fetcher in at a time; the kernel frees the lock if its holder dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fetch(home: Path) -> None:
    """Fetch into a new folder beside ``home`` and swap it in."""
    missing = [tool for tool in ("apt-get", "dpkg-deb", "tar") if not shutil.which(tool)]
    if missing:
        raise BitcoindNotFoundError(
            f"Cannot fetch bitcoind: it comes from Debian and {', '.join(missing)} is missing. "
            + HELP
        )
    for left_by_a_killed_fetch in (*home.parent.glob("bitcoind.new.*"), _old(home)):
        shutil.rmtree(left_by_a_killed_fetch, ignore_errors=True)
    problems: list[str] = []
    for site in _sites():
        for pause in (*RETRY_PAUSES_S, None):
            with tempfile.TemporaryDirectory(
                prefix="bitcoind.new.", dir=home.parent, ignore_cleanup_errors=True
            ) as new:
                try:
                    _build(Path(new), home, site)
                    _swap(Path(new) / "home", home)
                    return
                except _FetchError as error:
                    problems.append(str(error))
            # An index may name packages already superseded (404): a later one will not.
            if pause is None or "404" not in problems[-1]:
                break
            time.sleep(pause)
    reason = problems[-1] if problems else "apt has no package source configured"
    raise BitcoindNotFoundError(f"Cannot fetch {PACKAGE} from Debian sid: {reason}\n{HELP}")


def _sites() -> list[str]:
    """The package sites apt already uses, without the security ones, which have no sid."""
    try:
        listed = _run(
            ["apt-get", "indextargets", "--format", "$(SITE)", "Created-By: Packages"],
            environ=None,
        )
    except _FetchError as error:
        raise BitcoindNotFoundError(f"Cannot ask apt for its site: {error}\n{HELP}") from error
    return [site for site in dict.fromkeys(listed.split()) if "security" not in site]


def _old(home: Path) -> Path:
    return home.with_name("bitcoind.old")


def _swap(new: Path, home: Path) -> None:
    if home.exists():
        home.rename(_old(home))
    new.rename(home)
    shutil.rmtree(_old(home), ignore_errors=True)


def _build(work: Path, home: Path, site: str) -> None:
    """Make ``work/home`` what ``home`` shall be; its wrappers already name ``home``."""
    root = work / "home" / "root"
    root.mkdir(parents=True)
    for package in _download(work, site):
        _unpack(package, root)
    binaries = work / "home" / "bin"
    binaries.mkdir()
    for name in PROGRAMS:
        program = root / "usr/bin" / name
        loader = _loader(program, root)
        folders = _library_folders(root)
        _check_closed(loader, folders, program, root)
        final = [home / "root" / path.relative_to(root) for path in (loader, program, *folders)]
        wrapper = binaries / name
        wrapper.write_text(_wrapper(name, final[0], final[1], final[2:]))
        wrapper.chmod(0o755)


def _download(work: Path, site: str) -> list[Path]:
    """Download the package and its whole closure with apt's checks of signature and hash."""
    keyring = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
    if not keyring.exists():
        raise BitcoindNotFoundError(
            "Cannot check Debian's signatures: install the package debian-archive-keyring. " + HELP
        )
    architecture = _run(["dpkg", "--print-architecture"], environ=None).strip()
    proxies = re.findall(
        r"^Acquire::https?::Proxy\b.*;$", _run(["apt-config", "dump"], environ=None), re.MULTILINE
    )
    apt = work / "apt"
    for folder in ("etc/parts", "etc/trusted", "etc/preferences", "state/lists/partial"):
        (apt / folder).mkdir(parents=True)
    (apt / "cache/archives/partial").mkdir(parents=True)
    (apt / "log").mkdir()
    for empty in ("etc/empty", "state/status"):
        (apt / empty).touch()
    # check-valid-until is off for this source alone; signatures are still verified.
    (apt / "etc/sources.list").write_text(
        f"deb [arch={architecture} signed-by={keyring} check-valid-until=no] {site} sid main\n"
    )
    config = apt / "apt.conf"
    config.write_text(
        "\n".join(
            [
                *proxies,
                f'Dir::Etc "{apt}/etc";',
                'Dir::Etc::main "empty";',
                'Dir::Etc::parts "parts";',
                'Dir::Etc::sourcelist "sources.list";',
                'Dir::Etc::sourceparts "parts";',
                'Dir::Etc::preferences "empty";',
                'Dir::Etc::preferencesparts "preferences";',
                'Dir::Etc::trusted "empty";',
                'Dir::Etc::trustedparts "trusted";',
                f'Dir::State "{apt}/state";',
                # An empty status: every dependency is resolved, libc included.
                f'Dir::State::status "{apt}/state/status";',
                f'Dir::Cache "{apt}/cache";',
                f'Dir::Log "{apt}/log";',
                f'APT::Architecture "{architecture}";',
                f'APT::Architectures {{ "{architecture}"; }};',
                'APT::Install-Recommends "false";',
                'APT::Install-Suggests "false";',
                f'APT::Sandbox::User "{pwd.getpwuid(os.getuid()).pw_name}";',
                'Debug::NoLocking "true";',
                'Acquire::Languages "none";',
                'Acquire::PDiffs "false";',
                'Acquire::AllowInsecureRepositories "false";',
                'Acquire::AllowWeakRepositories "false";',
                'Acquire::Retries "3";',
                "",
            ]
        )
    )
    environ = {**os.environ, "APT_CONFIG": str(config), "LC_ALL": "C"}
    _run(["apt-get", "update", "-q", "-o", "APT::Update::Error-Mode=any"], environ)
    _check_age(apt / "state/lists")
    _run(["apt-get", "-y", "-q", "--download-only", "install", PACKAGE], environ)
    return sorted((apt / "cache/archives").glob("*.deb"))


def _check_age(lists: Path) -> None:
    """Refuse an index older than our limit; apt keeps InRelease only with a good signature."""
    for release in lists.glob("*InRelease"):
        found = re.search(r"^Date: (.+)$", release.read_text(errors="replace"), re.MULTILINE)
        if found is None:
            continue
        age = datetime.datetime.now(datetime.timezone.utc) - email.utils.parsedate_to_datetime(
            found[1].replace("UTC", "+0000")
        )
        if age > MAX_INDEX_AGE:
            raise _FetchError(f"the site's index is {age.days} days old")
        return
    raise _FetchError("the site's index has no signed date")


def _unpack(package: Path, root: Path) -> None:
    """Unpack one package's files; no maintainer script runs."""
    skipped = ("doc", "man", "locale", "info", "lintian")
    with subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    ) as source:
        done = subprocess.run(
            ["tar", "-x", "-C", root, "--keep-directory-symlink", "--no-same-owner"]
            + [f"--exclude=./usr/share/{folder}/*" for folder in skipped],
            stdin=source.stdout,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
        )
    if done.returncode or source.returncode:
        raise _FetchError(f"cannot unpack {package.name}: {done.stderr.strip()[-500:]}")


def _interpreter(program: Path) -> str:
    """The file name of the loader (PT_INTERP) a 64-bit little-endian ELF program asks for."""
    image = program.read_bytes()
    if image[:6] != b"\x7fELF\x02\x01":
        raise _FetchError(f"{program.name} is not a 64-bit little-endian program")
    (table,) = struct.unpack_from("<Q", image, 32)
    size, count = struct.unpack_from("<HH", image, 54)
    for index in range(count):
        kind, _, offset, _, _, length = struct.unpack_from("<IIQQQQ", image, table + index * size)
        if kind == 3:
            return Path(image[offset : offset + length].rstrip(b"\0").decode()).name
    raise _FetchError(f"{program.name} names no loader")


def _loader(program: Path, root: Path) -> Path:
    if not program.is_file():
        raise _FetchError(f"the package holds no {program.name}")
    name = _interpreter(program)
    # Links may lead out of the root: only a regular file will do.
    for path in sorted(root.rglob(name)):
        if path.is_file() and not path.is_symlink():
            return path
    raise _FetchError(f"the loader {name} is not among the packages")


def _library_folders(root: Path) -> list[Path]:
    """Every folder in which the root keeps shared libraries, deeper plug-in folders aside."""
    patterns = ("lib*", "lib*/*-linux-*", "usr/lib*", "usr/lib*/*-linux-*")
    folders = [path for pattern in patterns for path in sorted(root.glob(pattern))]
    return [path for path in folders if not path.is_symlink() and any(path.glob("*.so*"))]


def _check_closed(loader: Path, folders: list[Path], program: Path, root: Path) -> None:
    """Make sure that the program takes no library from outside the root."""
    libraries = ":".join(map(str, folders))
    listed = _run([loader, "--library-path", libraries, "--list", program], environ=None)
    used = re.findall(r"^\s+(?:\S+ => )?(/.+?) \(0x", listed, re.MULTILINE)
    outside = [path for path in used if not Path(path).is_relative_to(root)]
    if not used or outside or "not found" in listed:
        raise _FetchError(f"{program.name} would use libraries from outside: {outside or listed}")


def _wrapper(name: str, loader: Path, program: Path, folders: list[Path]) -> str:
    libraries = ":".join(map(str, folders))
    words = [loader, "--library-path", libraries, "--argv0", name, program]
    return f'#!/bin/sh\nexec {shlex.join(map(str, words))} "$@"\n'


def _run(command: list[str | Path], environ: dict[str, str] | None) -> str:
    """Run a command to its end and return what it printed; ``environ`` None means ours."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            env=environ,
            stdin=subprocess.DEVNULL,
            timeout=COMMAND_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _FetchError(f"{Path(command[0]).name}: {error}") from error
    if done.returncode:
        # The first lines name the cause, e.g. the package that answered 404.
        said = (done.stderr.strip() or done.stdout.strip())[:1000]
        raise _FetchError(f"{Path(command[0]).name} failed: {said}")
    return done.stdout


def main() -> int:
    """Print the path of a working bitcoind, or say on stderr why there is none."""
    try:
        print(find_bitcoind())
    except (BitcoindNotFoundError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

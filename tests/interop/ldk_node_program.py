"""Build the ldk-node peer into the cache folder; run as a script, print where it is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Literal

from ldkjit.sandbox.bitcoind import cache_home

CRATE = Path(__file__).parent / "ldk_node"
PROGRAM = "ldk-node-peer"
# A cold build takes minutes, the more of them the less of the machine it gets.
BUILD_TIMEOUT_S = 3_600.0

# For tests, and what a benchmark must have: ldk-node as its users have it.
Profile = Literal["interop", "release"]


class LdkNodeBuildError(Exception):
    """The ldk-node peer could not be built; the message says why."""


def find_ldk_node(profile: Profile = "interop") -> Path:
    """Return the program, which is built if what it is made of has changed.

    Cargo keeps the build, in ``CARGO_TARGET_DIR`` or else in the user's cache folder, and lets one
    builder in at a time; the sources are checked against ``Cargo.lock``. Nothing is downloaded for
    a build that is there already.

    Raises:
        LdkNodeBuildError: Cargo is missing, or the build failed.
    """
    cargo = shutil.which("cargo")
    if cargo is None:
        raise LdkNodeBuildError("ldk-node is built with Rust: install Rust 1.89 or newer.")
    environ = {"CARGO_TARGET_DIR": str(cache_home() / "target"), **os.environ}
    manifest = str(CRATE / "Cargo.toml")
    command = [cargo, "build", "--locked", "--profile", profile, "--manifest-path", manifest]
    try:
        done = subprocess.run(
            [*command, "--message-format", "json-render-diagnostics"],
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=BUILD_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LdkNodeBuildError(f"{' '.join(command)}: {error}") from error
    if done.returncode:
        raise LdkNodeBuildError(f"{' '.join(command)}:\n{done.stderr.strip()[-4_000:]}")
    return _program(done.stdout)


def _program(told: str) -> Path:
    """Where cargo says that the program is, which its configuration may place anywhere."""
    for line in told.splitlines():
        message = json.loads(line)
        if message.get("executable") and message["target"]["name"] == PROGRAM:
            return Path(message["executable"])
    raise LdkNodeBuildError(f"cargo built no {PROGRAM}")


def main() -> None:
    """Build if needed, and print where the program is."""
    try:
        print(find_ldk_node("release" if sys.argv[1:] == ["release"] else "interop"))
    except LdkNodeBuildError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()

"""Build the ldk-node peer into the cache folder; run as a script, print where it is."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Literal

from ldkjit.sandbox.bitcoind import cache_home

from .building import BuildError, run

CRATE = Path(__file__).parent / "ldk_node"
PROGRAM = "ldk-node-peer"
# For tests, and what a benchmark must have: ldk-node as its users have it.
Profile = Literal["interop", "release"]


def find_ldk_node(profile: Profile = "interop") -> Path:
    """Return the program, which is built if what it is made of has changed.

    Cargo keeps the build, in ``CARGO_TARGET_DIR`` or else in the user's cache folder, and lets one
    builder in at a time; the sources are checked against ``Cargo.lock``. Nothing is downloaded for
    a build that is there already.

    Raises:
        BuildError: Cargo is missing, or the build failed.
    """
    cargo = shutil.which("cargo")
    if cargo is None:
        raise BuildError("ldk-node is built with Rust: install Rust 1.89 or newer.")
    environ = {"CARGO_TARGET_DIR": str(cache_home() / "target"), **os.environ}
    manifest = str(CRATE / "Cargo.toml")
    command = [cargo, "build", "--locked", "--profile", profile, "--manifest-path", manifest]
    command += ["--message-format", "json-render-diagnostics"]
    return _program(run(command, environ))


def _program(told: str) -> Path:
    """Where cargo says that the program is, which its configuration may place anywhere."""
    for line in told.splitlines():
        message = json.loads(line)
        if message.get("executable") and message["target"]["name"] == PROGRAM:
            return Path(message["executable"])
    raise BuildError(f"cargo built no {PROGRAM}")


def main() -> None:
    """Build if needed, and print where the program is."""
    try:
        print(find_ldk_node("release" if sys.argv[1:] == ["release"] else "interop"))
    except BuildError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()

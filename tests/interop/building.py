"""Runs what builds a program of others, and says what went wrong."""

from __future__ import annotations

import subprocess
from pathlib import Path

# A cold build takes minutes, the more of them the less of the machine it gets.
BUILD_TIMEOUT_S = 3_600.0


class BuildError(Exception):
    """A program is not there and could not be built; the message says why."""


def run(command: list[str], environ: dict[str, str], folder: Path | None = None) -> str:
    """Run a command to its end; return what it says.

    Raises:
        BuildError: It cannot be run, fails or takes too long.
    """
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=BUILD_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"{command[0]}: {error}") from error
    if done.returncode:
        raise BuildError(f"{' '.join(command)}:\n{done.stderr.strip()[-4_000:]}")
    return done.stdout

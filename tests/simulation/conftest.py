"""Builds the simulation's command line once a run, and gives tests a way to run one job on it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# The installed package is `bridge` alone; `integration` is found from the root of the checkout.
sys.path.insert(0, str(ROOT))


@pytest.fixture(scope="session")
def simulation_cli() -> Path:
    subprocess.run(
        ["make", "--no-print-directory", "-s", "-C", "workers/c", "simulation-cli"],
        cwd=ROOT,
        check=True,
    )
    return ROOT / "build/bin/rb-simulation-cli"


@pytest.fixture(scope="session")
def run_job(simulation_cli: Path) -> Callable[[bytes], bytes | tuple[int, str]]:
    """request -> answer bytes, or (code, message) of a failed job."""

    def run(request: bytes) -> bytes | tuple[int, str]:
        done = subprocess.run([simulation_cli], input=request, capture_output=True, timeout=50)
        if done.returncode == 0:
            return done.stdout
        assert done.returncode == 1, (done.returncode, done.stderr)
        code, _, message = done.stderr.decode().strip().partition(" ")
        return int(code), message

    return run

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


Outcome = bytes | tuple[int, str]


def run_cli(program: Path, *arguments: str, request: bytes) -> Outcome:
    """Answer bytes, or (code, message) of a failed job. Skips where the CPU has no such vectors."""
    done = subprocess.run([program, *arguments], input=request, capture_output=True, timeout=50)
    if done.returncode == 0:
        return done.stdout
    if done.returncode == 64 and b"this CPU has no" in done.stderr:
        pytest.skip(done.stderr.decode())
    assert done.returncode == 1, (done.returncode, done.stderr)
    code, _, message = done.stderr.decode().strip().partition(" ")
    return int(code), message


@pytest.fixture(scope="session")
def run_job(simulation_cli: Path) -> Callable[[bytes], Outcome]:
    return lambda request: run_cli(simulation_cli, request=request)


@pytest.fixture(scope="session")
def run_cluster(simulation_cli: Path) -> Callable[[bytes], Outcome]:
    return lambda request: run_cli(simulation_cli, "cluster", request=request)


@pytest.fixture(scope="session")
def run_with(simulation_cli: Path) -> Callable[..., Outcome]:
    """(arguments..., request=...) -> the same."""
    return lambda *arguments, request: run_cli(simulation_cli, *arguments, request=request)

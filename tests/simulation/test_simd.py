"""The variants of the sums of forces agree bit for bit, whatever vectors the CPU has."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from integration.solar.de421 import State
from integration.solar.many import Request
from integration.solar.payload import RELATIVISTIC, decode_answer, encode_request

Outcome = bytes | tuple[int, str]
RunWith = Callable[..., Outcome]

VECTORS = ["avx2", "avx512"]


def swarm(count: int, flags: int = 0) -> bytes:
    """A request of that many bodies, of all sizes, at no particular places."""
    random = np.random.default_rng(count)
    states = {
        naif: State(random.normal(0, 1e8, 3), random.normal(0, 10, 3)) for naif in range(count)
    }
    gm = {naif: 10.0 ** random.uniform(0, 10) for naif in states}
    return encode_request(0.0, 100.0, states, gm, flags=flags)


@pytest.mark.parametrize("simd", VECTORS)
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 8, 9, 11, 16, 17, 31, 63, 64])
def test_orbits_have_the_same_bits(run_with: RunWith, simd: str, count: int) -> None:
    """For every filling of the last vector. Any difference at all grows over the steps."""
    request = swarm(count)
    scalar = run_with("--simd", "scalar", request=request)
    assert isinstance(scalar, bytes)
    assert count == 1 or decode_answer(scalar).steps > 5
    assert run_with("--simd", simd, request=request) == scalar


@pytest.mark.parametrize("simd", VECTORS)
def test_bodies_that_meet_fail_in_the_same_way(run_with: RunWith, simd: str) -> None:
    still = np.zeros(3)
    states = {1: State(np.zeros(3), still), 2: State(np.array([1e5, 0, 0]), still)}
    request = encode_request(0.0, 1000.0, states, {1: 1e9, 2: 1e9})
    scalar = run_with("--simd", "scalar", request=request)
    assert isinstance(scalar, tuple)
    assert run_with("--simd", simd, request=request) == scalar


@pytest.mark.parametrize("simd", VECTORS)
@pytest.mark.parametrize("flags", [RELATIVISTIC])
def test_relativity_has_the_same_bits(run_with: RunWith, simd: str, flags: int) -> None:
    request = swarm(11, flags)
    scalar = run_with("--simd", "scalar", request=request)
    assert isinstance(scalar, bytes)
    assert run_with("--simd", simd, request=request) == scalar


@pytest.mark.parametrize("simd", VECTORS)
@pytest.mark.parametrize("count", [1, 2, 7, 63, 65, 1000, 4099])
@pytest.mark.parametrize("theta", [0.0, 0.6])
def test_clusters_have_the_same_bits(
    run_with: RunWith, simd: str, count: int, theta: float
) -> None:
    """Near bodies and far cells, energies, and the sums over all of a sample."""
    sampled = min(count, 100)
    request = Request(
        count, steps=3, theta=theta, returned=count, sampled=sampled, accelerations=True
    ).encode()
    scalar = run_with("cluster", "--simd", "scalar", request=request)
    assert isinstance(scalar, bytes)
    assert run_with("cluster", "--simd", simd, request=request) == scalar


def test_what_is_not_known_is_refused_by_name(simulation_cli: Path) -> None:
    for arguments, got in (["--simd", "mmx"], "mmx"), (["--simd"], "nothing"):
        done = subprocess.run([simulation_cli, *arguments], input=b"", capture_output=True)
        assert done.returncode == 64
        assert f"must be scalar, avx2 or avx512, got {got}" in done.stderr.decode()

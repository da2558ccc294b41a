"""Many bodies: the tree against sums by NumPy, what is conserved, and what is refused."""

from __future__ import annotations

import struct
from collections.abc import Callable
from math import inf, nan, pi, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from integration.solar.many import Answer, Request

Array = NDArray[np.float64]
Run = Callable[[bytes], bytes | tuple[int, str]]


def run(run_cluster: Run, request: Request) -> Answer:
    answer = run_cluster(request.encode())
    assert isinstance(answer, bytes), answer
    return Answer.decode(answer)


def direct(mass: Array, x: Array, softening: float) -> tuple[Array, float]:
    """Accelerations of all bodies and the energy of their positions, pair by pair."""
    d = x[None, :, :] - x[:, None, :]
    inverse = 1 / np.sqrt((d**2).sum(axis=2) + softening**2)
    np.fill_diagonal(inverse, 0)
    a: Array = np.einsum("j,ij,ijk->ik", mass, inverse**3, d)
    return a, float(-0.5 * mass @ inverse @ mass)


def clumps(count: int) -> Array:
    """Rows of a request: three clumps of very different density and mass, and a far body."""
    random = np.random.default_rng(7)
    which = random.integers(0, 3, count)
    centre = np.array([[0, 0, 0], [5, 1, 0], [0, -3, 2]])[which]
    spread = np.array([1.0, 0.01, 0.2])[which][:, None]
    x = centre + spread * random.normal(size=(count, 3))
    x[-1] = [300, 200, -100]
    mass = 10 ** random.uniform(-3, 0, count) / count
    return np.column_stack([mass, x, 0.1 * random.normal(size=(count, 3))])


# --- forces ---------------------------------------------------------------------------------------


def test_without_leaving_anything_out_it_is_the_sum_of_all_pairs(run_cluster: Run) -> None:
    rows = clumps(1500)
    request = Request(rows, theta=0.0, returned=1500, accelerations=True)
    answer = run(run_cluster, request)
    a, potential = direct(rows[:, 0], rows[:, 1:4], 0.01)
    np.testing.assert_array_equal(answer.bodies[:, :6], rows[:, 1:7])
    np.testing.assert_allclose(answer.bodies[:, 6:], a, rtol=1e-10, atol=1e-12 * np.abs(a).max())
    kinetic = 0.5 * rows[:, 0] @ (rows[:, 4:] ** 2).sum(axis=1)
    assert answer.energy_before == pytest.approx(kinetic + potential, rel=1e-12)
    assert (answer.body_pairs, answer.cell_pairs) == (1500**2, 0)


@pytest.mark.parametrize("theta", [0.25, 0.5, 0.75, 0.9])
@pytest.mark.parametrize("bodies", [2000, 20_000])
def test_the_trees_error_is_within_its_stated_bound(
    run_cluster: Run, theta: float, bodies: int
) -> None:
    """Stated in docs/simulation.md: 0.05 theta^3 as rms, theta^3 for any body of a sphere."""
    answer = run(run_cluster, Request(bodies, theta=theta, sampled=500))
    assert 0 < answer.error_rms < 0.05 * theta**3
    assert answer.error_max < theta**3


def test_the_error_falls_with_the_third_power_of_theta(run_cluster: Run) -> None:
    """As what is left out does; without second moments it would be the second power: 4."""
    wide, narrow = (
        run(run_cluster, Request(5000, theta=theta, sampled=1000)).error_rms for theta in (0.6, 0.3)
    )
    assert wide > 6 * narrow


@pytest.mark.parametrize("rows", [clumps(1500)], ids=["clumps"])
def test_what_it_says_of_its_error_is_what_numpy_finds(run_cluster: Run, rows: Array) -> None:
    count = len(rows)
    request = Request(rows, theta=0.7, returned=count, sampled=count, accelerations=True)
    answer = run(run_cluster, request)
    a, _ = direct(rows[:, 0], rows[:, 1:4], 0.01)
    error = np.linalg.norm(answer.bodies[:, 6:] - a, axis=1) / np.linalg.norm(a, axis=1)
    assert answer.error_rms == pytest.approx(sqrt((error**2).mean()), rel=1e-6)
    assert answer.error_max == pytest.approx(error.max(), rel=1e-6)
    assert 1e-6 < answer.error_rms < 0.05 * 0.7**3
    assert answer.body_pairs + answer.cell_pairs < count**2 / 2


# --- motion ---------------------------------------------------------------------------------------


def test_two_bodies_go_around_each_other(run_cluster: Run) -> None:
    """A circle under softened gravity: v^2 = r^2 / (4 r^2 + e^2)^(3/2) for each of GM 1."""
    radius, softening = 0.5, 0.1
    speed = sqrt(radius * 2 * radius / (4 * radius**2 + softening**2) ** 1.5)
    rows = np.array([[1, radius, 0, 0, 0, speed, 0], [1, -radius, 0, 0, 0, -speed, 0]])
    period, steps = 2 * pi * radius / speed, 4000
    request = Request(rows, steps=steps, step=period / steps, softening=softening, returned=2)
    answer = run(run_cluster, request)
    assert answer.time == pytest.approx(period)
    np.testing.assert_allclose(answer.bodies[:, :3], rows[:, 1:4], atol=1e-5)


def test_energy_and_momenta_are_kept_within_their_stated_bounds(run_cluster: Run) -> None:
    """Half a crossing time of a sphere of 2,000; docs/simulation.md states these."""
    answer = run(run_cluster, Request(2000, steps=200, step=1 / 128, softening=0.05))
    assert abs(answer.energy_after / answer.energy_before - 1) < 1e-4
    assert 0 < answer.momentum_gained < 1e-4
    assert 0 < answer.angular_gained < 1e-4


def test_summing_all_pairs_keeps_the_momenta_to_rounding(run_cluster: Run) -> None:
    answer = run(run_cluster, Request(1000, steps=50, step=1 / 64, theta=0.0, softening=0.05))
    assert answer.momentum_gained < 1e-14
    assert answer.angular_gained < 1e-14


def test_its_steps_are_of_second_order(run_cluster: Run) -> None:
    """Half the step, a quarter of the error; of first order it would be half."""

    def lost(steps: int) -> float:
        request = Request(500, steps=steps, step=1 / steps, theta=0.0, softening=0.1)
        answer = run(run_cluster, request)
        return abs(answer.energy_after - answer.energy_before)

    assert lost(32) > 3.3 * lost(64) > 3.3 * 3.3 * lost(128)


def test_there_and_back_returns_to_the_start(run_cluster: Run) -> None:
    start = clumps(400)
    there = Request(start, steps=40, step=0.01, theta=0.0, softening=0.1, returned=400)
    rows = np.column_stack([start[:, 0], run(run_cluster, there).bodies])
    assert np.abs(rows[:, 1:] - start[:, 1:]).max() > 0.01
    back = Request(rows, steps=40, step=-0.01, theta=0.0, softening=0.1, returned=400)
    np.testing.assert_allclose(run(run_cluster, back).bodies, start[:, 1:], atol=1e-11)


# --- the sphere -----------------------------------------------------------------------------------


def test_a_generated_sphere_is_plummers(run_cluster: Run) -> None:
    count = 20_000
    answer = run(run_cluster, Request(count, returned=count, softening=1e-6))
    x, v = answer.bodies[:, :3], answer.bodies[:, 3:]
    # The mass within r, against what the 999 thousandths kept of it should be: Kolmogorov.
    r = np.sort(np.linalg.norm(x, axis=1)) / (3 * pi / 16)
    expected = r**3 / (1 + r**2) ** 1.5 / 0.999
    assert np.abs(expected - (np.arange(count) + 0.5) / count).max() < 1.63 / sqrt(count)
    # Kinetic energy 1/4 by the virial theorem, all of it -1/4; sampling varies by 1/sqrt(count).
    assert 0.5 * (v**2).sum() / count == pytest.approx(0.25, rel=0.03)
    assert answer.energy_before == pytest.approx(-0.25, rel=0.03)
    assert np.abs(x.mean(axis=0)).max() < 1e-12
    assert np.abs(v.mean(axis=0)).max() < 1e-12
    # Directions are even: thirds of the square in each axis.
    for values in (x / np.linalg.norm(x, axis=1)[:, None], v / np.linalg.norm(v, axis=1)[:, None]):
        np.testing.assert_allclose((values**2).mean(axis=0), 1 / 3, atol=0.01)


def test_a_seed_makes_a_sphere_and_another_seed_another(run_cluster: Run) -> None:
    first, again, other = (
        run(run_cluster, Request(100, seed=seed, returned=100)).bodies for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.1


# --- odd bodies -----------------------------------------------------------------------------------


@pytest.mark.parametrize("returned", [0, 1, 7, 64, 99, 100])
def test_those_returned_are_evenly_from_the_requests(run_cluster: Run, returned: int) -> None:
    rows = clumps(100)
    answer = run(run_cluster, Request(rows, returned=returned))
    expected = [rows[n * 100 // returned, 1:] for n in range(returned)]
    np.testing.assert_array_equal(answer.bodies, np.array(expected).reshape(returned, 6))


@pytest.mark.parametrize(
    "x",
    [
        np.zeros((1, 3)),
        np.zeros((1000, 3)),
        np.full((1000, 3), -1e30),
        np.column_stack([np.zeros((300, 2)), np.arange(300)]),
        np.vstack([np.full((300, 3), 1e30), np.random.default_rng(1).normal(size=(300, 3))]),
        1e-300 * np.arange(300).reshape(100, 3),
    ],
    ids=["one", "in one place", "in one far place", "in line", "a far place", "in hardly any"],
)
@pytest.mark.parametrize("mass", [0.0, 1.0])
def test_bodies_in_odd_places_are_summed_as_any(run_cluster: Run, x: Array, mass: float) -> None:
    count = len(x)
    rows = np.column_stack([np.full(count, mass), x, np.zeros((count, 3))])
    answer = run(run_cluster, Request(rows, returned=count, accelerations=True))
    a, potential = direct(rows[:, 0], x, 0.01)
    scale = max(float(np.abs(a).max()), mass)
    np.testing.assert_allclose(answer.bodies[:, 6:], a, atol=0.2 * 0.5**3 * scale, rtol=0)
    # Their own depth in their own softening is taken off again: mass / softening each.
    assert answer.energy_before == pytest.approx(potential, rel=1e-2, abs=1e-9)


def test_a_body_that_leaves_is_a_failed_job(run_cluster: Run) -> None:
    rows = np.array([[1.0, 0, 0, 0, 1e30, 0, 0], [1.0, 1, 0, 0, 0, 0, 0]])
    assert run_cluster(Request(rows, steps=5, step=1.0).encode()) == (
        7,
        "a body is farther away than 1e+30 after 1 steps",
    )


# --- refusals -------------------------------------------------------------------------------------

GOOD = Request(np.array([[1.0, 0, 0, 0, 0, 0, 0], [1.0, 1, 0, 0, 0, 1, 0]])).encode()
SPHERE = Request(10).encode()


def changed(at: int, form: str, *values: object, of: bytes = GOOD) -> bytes:
    request = bytearray(of)
    struct.pack_into("<" + form, request, at, *values)
    return bytes(request)


REFUSED = {
    "empty": (b"", 1, "a header of 56 bytes, got 0"),
    "header cut": (GOOD[:55], 1, "56 bytes, got 55"),
    "body cut": (GOOD[:-1], 1, "2 bodies take 168 bytes, got 167"),
    "trailing byte": (GOOD + b"x", 1, "got 169"),
    "bodies besides a seed": (SPHERE + bytes(560), 1, "0 bodies take 56 bytes, got 616"),
    "version 2": (changed(0, "H", 2), 2, "must be 1, got 2"),
    "no bodies": (changed(4, "I", 0), 3, "1 to 4194304, got 0"),
    "too many": (changed(4, "I", 4_194_305, of=SPHERE), 3, "1 to 4194304, got 4194305"),
    "more returned": (changed(12, "I", 3), 3, "returned must be at most bodies, got 3"),
    "more sampled": (changed(16, "I", 3), 3, "sampled must be at most bodies and 65536, got 3"),
    "unknown flag": (changed(2, "H", 6), 4, "unknown flags 0x6, known are 0x3"),
    "reserved bytes used": (changed(20, "I", 9), 4, "bytes 20 to 23 must be zero, got 9"),
    "too many steps": (changed(8, "I", 1_000_001), 5, "at most 1000000, got 1000001"),
    "endless step": (changed(24, "d", inf), 5, "step must lie within 1e+30, got inf"),
    "theta not a number": (changed(32, "d", nan), 12, "theta must be 0 to 0.9, got nan"),
    "theta 1": (changed(32, "d", 1.0), 12, "theta must be 0 to 0.9, got 1"),
    "no softening": (changed(40, "d", 0.0), 12, "softening must be 1e-09 to 1e+30, got 0"),
    "negative GM": (changed(56, "d", -1.0), 6, "body 0: GM must lie within 1e+30 and not be"),
    "position not a number": (changed(56 + 56 + 16, "d", nan), 6, "body 1: y must lie within"),
    "too fast": (changed(56 + 48, "d", -2e30), 6, "body 0: vz must lie within 1e+30, got -2e+30"),
}


@pytest.mark.parametrize(("request_", "code", "message"), REFUSED.values(), ids=REFUSED)
def test_a_bad_request_is_refused_by_rule_and_value(
    run_cluster: Run, request_: bytes, code: int, message: str
) -> None:
    answer = run_cluster(request_)
    assert isinstance(answer, tuple)
    assert answer[0] == code
    assert message in answer[1]


@settings(max_examples=30)
@given(st.binary(max_size=400))
def test_garbage_is_a_failed_job(run_cluster: Run, data: bytes) -> None:
    assert isinstance(run_cluster(data), tuple)

"""The integrator by itself: analytic orbits, conservation, reversal, relativity by its theory."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from datetime import date
from math import pi, sqrt
from pathlib import Path

import numpy as np
import pytest
from numpy.polynomial import legendre
from numpy.typing import NDArray

from integration.solar.bodies import Body
from integration.solar.bound import relativity_km
from integration.solar.de421 import DAY_S, State, constant, gm_km3_s2, states
from integration.solar.payload import RELATIVISTIC, Answer, decode_answer, encode_request
from integration.solar.states import julian_date

Run = Callable[[bytes], bytes]

GM_SUN = gm_km3_s2(10)
AU = constant("AU")
AT_REST = State(np.zeros(3), np.zeros(3))


def kepler_state(a_km: float, e: float, mean_anomaly: float, gm: float) -> State:
    """A point on a Kepler orbit in the xy plane, pericentre on +x."""
    anomaly = mean_anomaly
    for _ in range(50):
        anomaly -= (anomaly - e * np.sin(anomaly) - mean_anomaly) / (1 - e * np.cos(anomaly))
    root, n = sqrt(1 - e * e), sqrt(gm / a_km**3)
    rate = n / (1 - e * np.cos(anomaly))
    return State(
        a_km * np.array([np.cos(anomaly) - e, root * np.sin(anomaly), 0.0]),
        a_km * rate * np.array([-np.sin(anomaly), root * np.cos(anomaly), 0.0]),
    )


def integrate(
    run: Run, bodies: dict[int, State], gm: dict[int, float], days: float, flags: int = 0
) -> Answer:
    return decode_answer(run(encode_request(2451544.5, days, bodies, gm, flags=flags)))


def distance(a: State, b: State) -> float:
    difference: NDArray[np.float64] = a.position - b.position
    return float(np.linalg.norm(difference))


@pytest.mark.parametrize("e", [0.0, 0.2, 0.6, 0.9, 0.99])
@pytest.mark.parametrize("revolutions", [1, 100, -100])
def test_a_light_body_follows_keplers_ellipse(run_job: Run, e: float, revolutions: int) -> None:
    """With e = 0.99 as well, where pericentre passes 199 times as fast as apocentre."""
    a = 0.5 * AU
    n = sqrt(GM_SUN / a**3)
    start, whole = 0.3, 2 * pi * revolutions + 1.0
    begin = {1: AT_REST, 2: kepler_state(a, e, start, GM_SUN)}
    answer = integrate(run_job, begin, {1: GM_SUN, 2: 0.0}, whole / n / DAY_S)
    expected = kepler_state(a, e, start + whole, GM_SUN)
    # Rounding: a relative error of 2e-16 in the mean motion's square, over the whole arc.
    assert distance(answer.states[2], expected) < 3e-14 * a * abs(whole) / (1 - e) ** 1.5


def test_two_heavy_bodies_go_around_their_barycentre(run_job: Run) -> None:
    gm = {1: 3e11, 2: 1e11}
    whole = kepler_state(1e8, 0.4, 0.0, 4e11)
    begin = {
        1: State(-whole.position / 4, -whole.velocity / 4),
        2: State(whole.position * 3 / 4, whole.velocity * 3 / 4),
    }
    period_days = 2 * pi * sqrt(1e8**3 / 4e11) / DAY_S
    answer = integrate(run_job, begin, gm, 10 * period_days)
    for body in begin:
        assert distance(answer.states[body], begin[body]) < 1e-3


def solar_system(day: date) -> tuple[dict[int, State], dict[int, float]]:
    begin = states(julian_date(day))
    return begin, {naif: gm_km3_s2(naif) for naif in begin}


@pytest.mark.parametrize("flags", [0, RELATIVISTIC])
@pytest.mark.parametrize("days", [30.0, 365.25, 3652.5])
def test_there_and_back_returns_to_the_start(run_job: Run, days: float, flags: int) -> None:
    begin, gm = solar_system(date(2000, 1, 1))
    there = integrate(run_job, begin, gm, days, flags)
    back = integrate(run_job, there.states, gm, -days, flags)
    for naif, state in begin.items():
        # Observed: 0.3 mm after a year, 14 mm after a decade, both of the Moon.
        assert distance(back.states[naif], state) < 1e-4, naif


@pytest.mark.parametrize("flags", [0, RELATIVISTIC])
def test_energy_is_conserved_to_rounding_over_a_century(run_job: Run, flags: int) -> None:
    """The 1/c^2 energy is checked too: without its terms it would drift by 1e-10."""
    answer = integrate(run_job, *solar_system(date(1950, 1, 1)), 36525.0, flags)
    assert abs(answer.energy_error) < 1e-14


def test_the_barycentre_moves_in_a_straight_line(run_job: Run) -> None:
    begin, gm = solar_system(date(2000, 1, 1))
    answer = integrate(run_job, begin, gm, 3652.5)
    total = sum(gm.values())

    def centre(of: dict[int, State], what: str) -> NDArray[np.float64]:
        weighted = [gm[naif] * getattr(state, what) for naif, state in of.items()]
        summed: NDArray[np.float64] = np.sum(weighted, axis=0)
        return summed / total

    expected = centre(begin, "position") + centre(begin, "velocity") * 3652.5 * DAY_S
    assert np.linalg.norm(centre(answer.states, "position") - expected) < 1e-5


def test_the_order_of_the_bodies_does_not_matter(run_job: Run) -> None:
    begin, gm = solar_system(date(2000, 1, 1))
    answer = integrate(run_job, begin, gm, 365.25)
    turned = integrate(run_job, dict(reversed(begin.items())), gm, 365.25)
    for naif in begin:
        assert distance(answer.states[naif], turned.states[naif]) < 1e-4


def test_the_same_request_gives_the_same_bytes(run_job: Run) -> None:
    begin, gm = solar_system(date(2000, 1, 1))
    request = encode_request(2451544.5, 100.0, begin, gm)
    assert run_job(request) == run_job(request)


@pytest.mark.parametrize("e", [0.0, 0.05, 0.2056, 0.25])
def test_relativity_displaces_an_orbit_as_far_as_its_bound_says(run_job: Run, e: float) -> None:
    """Newton against 1PN from the same state, at many phases: within the bound, near it once."""
    a = 0.4 * AU
    period_days = 2 * pi * sqrt(a**3 / GM_SUN) / DAY_S
    body = Body(2, "test", a / AU, e)
    gm = {1: GM_SUN, 2: 0.0}
    for revolutions in (0.02, 0.5, 1.5, 4.0):
        days, reached = revolutions * period_days, []
        for phase in np.linspace(0, 2 * pi, 8, endpoint=False):
            begin = {1: AT_REST, 2: kepler_state(a, e, float(phase), GM_SUN)}
            newton = integrate(run_job, begin, gm, days).states[2]
            einstein = integrate(run_job, begin, gm, days, RELATIVISTIC).states[2]
            reached.append(distance(newton, einstein))
        assert max(reached) <= relativity_km(body, days), revolutions
        assert max(reached) >= relativity_km(body, days) / 3, revolutions


def test_mercurys_perihelion_advances_by_43_arc_seconds_a_century(run_job: Run) -> None:
    a, e = 0.38709927 * AU, 0.20563593
    begin = {1: AT_REST, 2: kepler_state(a, e, 0.0, GM_SUN)}
    answer = integrate(run_job, begin, {1: GM_SUN, 2: 0.0}, 36525.0, RELATIVISTIC)
    state = answer.states[2]
    r, v = state.position, state.velocity
    towards = np.cross(v, np.cross(r, v)) / GM_SUN - r / np.linalg.norm(r)  # Laplace's vector
    advance = np.degrees(np.arctan2(towards[1], towards[0])) * 3600
    # The osculating vector sways around its mean by about GM / (a c^2 e) = 0.03 arc seconds.
    assert advance == pytest.approx(42.98, abs=0.1)


def test_the_nodes_are_the_roots_of_p7_plus_p8(simulation_cli: Path) -> None:
    printed = subprocess.run([simulation_cli, "--nodes"], capture_output=True, check=True)
    roots = legendre.legroots([0, 0, 0, 0, 0, 0, 0, 1, 1])
    expected = np.sort((1 + roots) / 2)
    assert np.allclose([float(x) for x in printed.stdout.split()], expected, atol=1e-13)

"""JPL's ephemeris DE421: barycentric states of the bodies, and the constants that it was integrated
with.

Source: W. M. Folkner, J. G. Williams, D. H. Boggs, "The Planetary and Lunar Ephemeris DE 421", IPN
Progress Report 42-178 (2009). Data: the PyPI package `de421`, JPL's own Chebyshev coefficients and
header constants (GM1 .. GM9, GMB, GMS in au^3/day^2, EMRAT, AU, the asteroids' MA0001 ...), read by
`jplephem`. Frame: ICRF, origin at the solar system's barycentre. Time: TDB. Units here: km, km/s,
km^3/s^2.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import de421  # type: ignore[import-untyped]
import numpy as np
from jplephem.ephem import Ephemeris  # type: ignore[import-untyped]
from numpy.typing import NDArray

from integration.solar.bodies import BODIES

DAY_S = 86400.0

# The ephemeris's own names; Earth and Moon are built from "earthmoon" (their barycentre) and "moon"
# (geocentric).
_SERIES = {
    10: "sun",
    199: "mercury",
    299: "venus",
    4: "mars",
    5: "jupiter",
    6: "saturn",
    7: "uranus",
    8: "neptune",
    9: "pluto",
}
_EARTH, _MOON = 399, 301


@dataclass(frozen=True, slots=True)
class State:
    """Position in km and velocity in km/s of one body."""

    position: NDArray[np.float64]
    velocity: NDArray[np.float64]


@cache
def _ephemeris() -> Any:
    return Ephemeris(de421)


def constant(name: str) -> float:
    """A constant of the ephemeris's header, in its own units (au, day, km as the header has it)."""
    return float(getattr(_ephemeris(), name))


def asteroid_masses() -> dict[str, float]:
    """GM in au^3/day^2: MA.... of single asteroids, GMAST1 to 3 of the classes of all others."""
    names = [name for name in dir(_ephemeris()) if name.startswith(("MA0", "GMAST"))]
    return {name: constant(name) for name in names}


def span_jd() -> tuple[float, float]:
    """First and last TDB Julian date that the ephemeris covers (1899-12-04 to 2200-02-01)."""
    return float(_ephemeris().jalpha), float(_ephemeris().jomega)


@cache
def gm_km3_s2(naif: int) -> float:
    """GM of a body, from the header (au^3/day^2) by the header's own au. Raises KeyError."""
    scale = constant("AU") ** 3 / DAY_S**2
    ratio = constant("EMRAT")
    if naif == _EARTH:
        return constant("GMB") * scale * ratio / (1 + ratio)
    if naif == _MOON:
        return constant("GMB") * scale / (1 + ratio)
    names = {10: "GMS", 199: "GM1", 299: "GM2"} | {n: f"GM{n}" for n in range(4, 10)}
    return constant(names[naif]) * scale


def _read(series: str, jd: float) -> State:
    position, velocity = _ephemeris().position_and_velocity(series, jd)
    return State(position.reshape(3), velocity.reshape(3) / DAY_S)


def states(jd: float) -> dict[int, State]:
    """Barycentric states of all bodies at a TDB Julian date, in the order of BODIES. Raises
    ValueError outside the span.

    A Julian date of today has a resolution of 40 us as a float, in which Mercury moves 2 m: dates
    here should be multiples of 1/1024 day, which are exact.
    """
    first, last = span_jd()
    if not first <= jd <= last:
        raise ValueError(f"DE421 covers the Julian dates {first} to {last}, asked for {jd}")
    found = {naif: _read(series, jd) for naif, series in _SERIES.items()}
    centre, moon = _read("earthmoon", jd), _read("moon", jd)
    share = 1 / (1 + constant("EMRAT"))
    earth = State(centre.position - share * moon.position, centre.velocity - share * moon.velocity)
    found[_EARTH] = earth
    found[_MOON] = State(earth.position + moon.position, earth.velocity + moon.velocity)
    return {body.naif: found[body.naif] for body in BODIES}

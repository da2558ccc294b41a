"""The eleven bodies of the simulation and what is known about each, with sources.

Identifiers are JPL's NAIF numbers
(https://naif.jpl.nasa.gov/pub/naif/toolkit_docs/C/req/naif_ids.html). Mean elements: Standish and
Williams, Explanatory Supplement to the Astronomical Almanac, table 8.10.2
(https://ssd.jpl.nasa.gov/planets/approx_pos.html, table 1, valid 1800 to 2050). The Earth's and the
Moon's entry are those of their barycentre, which is what goes around the Sun.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Body:
    """One body. `a_au`, `eccentricity`: of its orbit around the Sun; 0 for the Sun itself."""

    naif: int
    name: str
    a_au: float
    eccentricity: float


BODIES = (
    Body(10, "Sun", 0.0, 0.0),
    Body(199, "Mercury", 0.38709927, 0.20563593),
    Body(299, "Venus", 0.72333566, 0.00677672),
    Body(399, "Earth", 1.00000261, 0.01671123),
    Body(301, "Moon", 1.00000261, 0.01671123),
    Body(4, "Mars", 1.52371034, 0.09339410),
    Body(5, "Jupiter", 5.20288700, 0.04838624),
    Body(6, "Saturn", 9.53667594, 0.05386179),
    Body(7, "Uranus", 19.18916464, 0.04725744),
    Body(8, "Neptune", 30.06992276, 0.00859048),
    Body(9, "Pluto", 39.48211675, 0.24882730),
)

BY_NAIF = {body.naif: body for body in BODIES}
BY_NAME = {body.name: body for body in BODIES}

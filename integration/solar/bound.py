"""How far Newtonian point masses may stray from DE421 in a year: a bound per body, term by term.

The simulated bodies start from DE421's own states, so at the start the error is zero (but for the
ephemeris's interpolation) and grows by what the model leaves out. docs/simulation.md, "The bound",
has the derivation. Each left-out acceleration f acts on an orbit with attraction mu/r^2 in one of
two regimes, and the smaller of the two bounds counts:

early    |error| <= F / (2 k^2) (cosh(sqrt(2) k t) - 1), k^2 = mu / r_min^3, F = max |f|: Gronwall's
         comparison with the largest eigenvalue, 2 k^2, of the tidal tensor. Holds always, and is
         the smaller one for k t below about 3.
secular  a drift in proportion to n t (the mean motion differs), and periodic terms of bounded size.

Sources:
[W]   C. M. Will, Living Reviews in Relativity 17 (2014) 4.
[DD]  T. Damour, N. Deruelle, Ann. IHP (Physique theorique) 43 (1985) 107: 1PN mean motion.
[F]   W. M. Folkner, J. G. Williams, D. H. Boggs, IPN Progress Report 42-178 (2009): DE421.
[CW]  W. H. Clohessy, R. S. Wiltshire, J. Aerospace Sci. 27 (1960) 653: circular orbits.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, cosh, hypot, pi, sin, sqrt

from integration.solar.bodies import BODIES, BY_NAME, Body
from integration.solar.de421 import DAY_S, asteroid_masses, constant, gm_km3_s2

DAYS_MAX = 366.25
"""Beyond a year terms of second order begin to count, the Moon's above all."""

# What the reference itself is worth: its Chebyshev series are a fit to JPL's integration. Observed:
# over six hours, in which nothing that is left out moves an outer planet by as much, they are met
# within 2 mm.
REFERENCE_KM = 5e-6

_GM_SUN = gm_km3_s2(10)
_AU = constant("AU")
_SUN_M = _GM_SUN / constant("CLIGHT") ** 2  # half of the Sun's Schwarzschild radius: 1.4766 km

# The Moon: its orbit around the Earth.
_MOON_A = 384400.0
_MOON_R_MIN = 356350.0  # the closest perigees (Meeus, Astronomical Algorithms, chapter 50)
_MOON_E = 0.0767  # the largest osculating eccentricity, evection included: 0.0549 (1 + 0.4)
_MOON_INCLINATION = (
    18.3 * pi / 180
)  # to the equator, when smallest: there the Earth's bulge acts most


@dataclass(frozen=True, slots=True)
class Asteroid:
    """A perturber that the model leaves out; `share`: its mass in Suns."""

    name: str
    share: float
    a_au: float


def asteroids() -> tuple[Asteroid, ...]:
    """The belt as DE421 weighs it: the three largest by name, all others together at 2.7 au."""
    sun = constant("GMS")
    named = (("Ceres", "MA0001", 2.77), ("Pallas", "MA0002", 2.77), ("Vesta", "MA0004", 2.36))
    single = [Asteroid(name, constant(key) / sun, a) for name, key, a in named]
    # MA....: 67 masses of single asteroids; GMAST1 to 3: those of the three classes of all others.
    rest = sum(asteroid_masses().values()) / sun - sum(one.share for one in single)
    return (*single, Asteroid("all others", rest, 2.7))


def _early(f_over_k2: float, kt: float) -> float:
    # cosh overflows a float at 710; long before that the secular regime is the smaller one.
    return 0.5 * f_over_k2 * (cosh(min(sqrt(2) * kt, 500.0)) - 1)


def _orbit(a_km: float, e: float, mu: float, days: float) -> tuple[float, float]:
    """n t and k t of an orbit: mean anomaly gone through, and time by the fall at pericentre."""
    nt = sqrt(mu / a_km**3) * days * DAY_S
    return nt, nt / (1 - e) ** 1.5


def relativity_km(body: Body, days: float) -> float:
    """The Sun's field beyond Newton's, to order 1/c^2, from the worst point to start at.

    With x = a/r at the start and m = GM/c^2: the state's true (1PN) energy gives the radial mean
    motion n' = n (1 - (m/a) (15 x^2 - 9 x + 3)) [DD], while the pericentre advances by
    3 m / (a (1 - e^2)) per radian [W]. For a circle both make 6 m per radian: 55.7 km in each
    revolution, at any distance from the Sun.
    """
    e, a = body.eccentricity, body.a_au * _AU
    nt, kt = _orbit(a, e, _GM_SUN, days)
    x = 1 / (1 - e)
    anomaly = -(15 * x * x - 9 * x + 3)
    pericentre = 3 / (1 - e * e)

    # Displacement in m per radian of nt, at true anomaly f at the end.
    def drift(f: float) -> float:
        root = sqrt(1 - e * e)
        radial = e * sin(f) / root * anomaly
        transverse = (1 + e * cos(f)) / root * anomaly + (1 - e * e) / (1 + e * cos(f)) * pericentre
        return hypot(radial, transverse)

    secular = max(drift(2 * pi * i / 360) for i in range(360)) * nt
    # [CW] with f radial: hypot(3 (1 - cos nt), 6 (nt - sin nt)) m <= (6 nt + 4 sqrt(3)) m; with e,
    # as the drift grows.
    periodic = 4 * sqrt(3) * -anomaly / 9
    # |f| at pericentre: GM m / r^3 (4 - v^2 r / GM), and v^2 r / GM = 1 + e there.
    return _SUN_M * min(_early(3 - e, kt), secular + periodic)


def _response(f_over_k2: float, nt: float, kt: float, tangential: float) -> float:
    """[CW] of a force of any direction; at most the share `tangential` acts along the track."""
    return min(_early(f_over_k2, kt), f_over_k2 * (1.5 * tangential * nt * nt + 2 * nt + 4))


def sun_and_belt_km(days: float) -> float:
    """The Sun goes around the barycentre with the belt; without the belt it goes straight on."""
    total = 0.0
    for one in asteroids():
        nt, _ = _orbit(one.a_au * _AU, 0.0, _GM_SUN, days)
        total += one.share * one.a_au * _AU * min(0.5 * nt * nt, nt + 2)
    return total


def belt_km(body: Body, days: float) -> float:
    """The belt's attraction, all of it on our side and near: its mean distance to our aphelion.

    Near the Sun: what the belt does to the orbit around the Sun, and to the Sun, which carries the
    orbit along. Far out: what it does to the body by itself, and the little that the displaced Sun
    does to it in that time.
    """
    a, sun = body.a_au, sun_and_belt_km(days)
    nt, kt = _orbit(a * _AU, body.eccentricity, _GM_SUN, days)
    nearest = a * (1 + body.eccentricity) if a < 2 else a * (1 - body.eccentricity)
    # In units of the Sun's attraction at a: relative to the Sun, which falls towards the belt too,
    # and by itself.
    relative = direct = 0.0
    for one in asteroids():
        pull = 1 / (one.a_au - nearest) ** 2
        relative += one.share * a * a * abs(pull - 1 / one.a_au**2)
        direct += one.share * a * a * pull
    # Along a circle beside a mass at distance d the attraction along the track is at most 2 / (3
    # sqrt 3) of GM/d^2.
    carried = a * _AU * _response(relative, nt, kt, 2 / (3 * sqrt(3))) + sun
    return min(carried, a * _AU * _early(direct, kt) + 2 * sun * _early(1.0, kt))


def sun_oblateness_km(body: Body, days: float) -> float:
    """The Sun's J2 (2e-7 in DE421): a radial pull of 3/2 J2 (R/a)^2 of GM/a^2, so a drift [CW]."""
    a = body.a_au * _AU
    nt, kt = _orbit(a, body.eccentricity, _GM_SUN, days)
    x = 1 / (1 - body.eccentricity)
    size = 1.5 * constant("J2SUN") * (constant("ASUN") / a) ** 2 * a
    return _response(size * x**4, nt, kt, 0.0)


def _moon_terms(days: float) -> dict[str, float]:
    """Of the Moon as seen from the Earth."""
    mu = gm_km3_s2(399) + gm_km3_s2(301)
    nt = sqrt(mu / _MOON_A**3) * days * DAY_S
    kt = sqrt(mu / _MOON_R_MIN**3) * days * DAY_S
    x = _MOON_A / _MOON_R_MIN
    shape = sqrt((1 + _MOON_E) / (1 - _MOON_E))  # of the speed to the mean speed, at most

    def bulge(size: float, inclination: float) -> float:
        # Brouwer's first order: the energy at the start, on the equator, gives 3/2 x^3; pericentre
        # and node 3/4 (3 cos^2 i - 1); the node also turns the plane, across the track.
        along = (1.5 * x**3 + 0.75 * (3 * cos(inclination) ** 2 - 1)) * nt * shape
        across = 1.5 * cos(inclination) * sin(inclination) * nt
        early = _early(1.5 * size * x * x * (_MOON_R_MIN / _MOON_A), kt)
        return min(early, size * (hypot(along, across) + 4 * sqrt(3) / 2))

    earth = constant("J2E") * (constant("RE") / _MOON_A) ** 2 * _MOON_A
    # The Moon turns with its orbit, so C22 pulls as steadily as J2: radially 3/2 (J2 + 6 C22).
    moon = (constant("J2M") + 6 * constant("C22M")) * (constant("AM") / _MOON_A) ** 2 * _MOON_A
    # Two bodies side by side in the Sun's potential U, both at v^2 = U c^2: the braces of the EIH
    # equation [F, eq. 1] make -4U - U + (1 + 2 - 4) U - 3/2 U at most, -7.5 U of their mutual
    # attraction.
    sun = 7.5 * _SUN_M / _AU * _MOON_A
    # Tides on the Earth slow the Moon by 25.9 arc seconds per century squared [F].
    arc_second = pi / 180 / 3600
    tide = 0.5 * 25.9 * arc_second * (days / 36525) ** 2 * _MOON_A
    return {
        "Earth's bulge": bulge(earth, _MOON_INCLINATION),
        "Moon's figure": bulge(moon, 0.0),
        "relativity, geocentric": min(_early(sun, kt), sun * (2 * nt * shape + 4 * sqrt(3) / 3)),
        "tides": tide,
    }


def _heliocentric_terms(body: Body, days: float) -> dict[str, float]:
    return {
        "relativity": relativity_km(body, days),
        "asteroids": belt_km(body, days),
        "Sun's bulge": sun_oblateness_km(body, days),
        "reference": REFERENCE_KM,
    }


def newtonian_terms_km(name: str, days: float) -> dict[str, float]:
    """The terms of newtonian_bound_km for one body of BODIES, in km.

    Raises: KeyError for another name, ValueError for more than DAYS_MAX days.
    """
    body, days = BY_NAME[name], abs(days)
    if days > DAYS_MAX:
        raise ValueError(f"the bound is derived for at most {DAYS_MAX} days, asked for {days}")
    if name == "Sun":
        return {"asteroids": sun_and_belt_km(days), "reference": REFERENCE_KM}
    terms = _heliocentric_terms(body, days)
    ratio = constant("EMRAT")
    share = {"Moon": ratio / (1 + ratio), "Earth": 1 / (1 + ratio)}.get(name)
    if share is not None:
        terms |= {term: share * size for term, size in _moon_terms(days).items()}
    return terms


def newtonian_bound_km(name: str, days: float) -> float:
    """How far in km Newtonian point masses may be from DE421 after `days`, of either sign.

    Raises: as newtonian_terms_km.
    """
    return sum(newtonian_terms_km(name, days).values())


def relativistic_bound_km(name: str, days: float) -> float:
    """The same when the model has the Einstein-Infeld-Hoffmann terms: all but relativity."""
    terms = newtonian_terms_km(name, days)
    return sum(size for term, size in terms.items() if not term.startswith("relativity"))


def main() -> None:
    """Prints the terms after a day, a month and a year."""
    for days in (1.0, 30.0, 365.25):
        print(f"\n{days:g} days: bound in km, and its terms")
        for body in BODIES:
            terms = newtonian_terms_km(body.name, days)
            listed = ", ".join(f"{term} {size:.4g}" for term, size in terms.items())
            print(f"  {body.name:8s} {sum(terms.values()):10.4g}  = {listed}")


if __name__ == "__main__":
    main()

"""What `python -m integration.solar.states` writes for callers in other languages."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration.solar.bodies import BODIES
from integration.solar.de421 import gm_km3_s2, span_jd, states
from integration.solar.states import _number, julian_date, main, make_case

# Erlang's float: digits on both sides of the point, and only then an exponent.
ERLANG_FLOAT = re.compile(r"-?\d+\.\d+(e[+-]?\d+)?")


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_are_erlang_floats_of_the_same_value(value: float) -> None:
    text = _number(value)
    assert ERLANG_FLOAT.fullmatch(text)
    assert float(text) == value


def test_each_date_and_span_gives_a_newtonian_and_a_relativistic_job(tmp_path: Path) -> None:
    options = ["--out", str(tmp_path), "--start", "2000-01-01", "--span", "30", "--span", "-30"]
    main(options)
    index = (tmp_path / "index.terms").read_text()
    payloads = re.findall(r'payload => <<"(.*?)">>', index)
    assert len(payloads) == len(set(payloads)) == 4
    assert index.count("relativistic => true") == 2
    for payload in payloads:
        assert (tmp_path / payload).stat().st_size == 24 + 64 * len(BODIES)
    assert "'end' => <<\"1999-12-02\">>" in index


def test_a_julian_date_begins_its_day() -> None:
    assert julian_date(date(2000, 1, 1)) == 2451544.5
    assert julian_date(date(1969, 7, 20)) == 2440422.5


def test_dates_outside_the_ephemeris_are_refused_by_its_range() -> None:
    with pytest.raises(ValueError, match=r"2414992\.5 to 2524624\.5"):
        make_case(date(1850, 1, 1), 30.0, relativistic=False)
    assert states(span_jd()[0])


def test_the_masses_are_those_of_the_ephemeris_in_km() -> None:
    """Against JPL's GM values in km^3/s^2 as published with DE421 (IPN 42-178)."""
    published = {10: 132712440040.944, 199: 22032.090000, 399: 398600.436233, 301: 4902.800076}
    for naif, gm in published.items():
        assert gm_km3_s2(naif) == pytest.approx(gm, rel=1e-9)


def test_the_barycentre_of_all_bodies_stays_near_the_origin() -> None:
    """Nearly: DE421's origin counts the belt in, and masses with their 1/c^2 terms."""
    for jd in (2440422.5, 2451544.5):
        found = states(jd)
        total = sum(gm_km3_s2(naif) for naif in found)
        centre = sum(gm_km3_s2(naif) * state.position for naif, state in found.items()) / total
        assert np.linalg.norm(centre) < 5

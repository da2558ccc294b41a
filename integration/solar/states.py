"""Writes simulation jobs, and what DE421 says of their ends, for callers in other languages.

`python -m integration.solar.states --out build/solar/` writes one `.request` file a job (the
payload as it is submitted) and `index.terms`, Erlang terms for `file:consult/1` (Elixir:
`:file.consult/1`):

    {bodies, [{10, <<"Sun">>}, ...]}.                        in the payload's order
    {simulation, #{name => <<"2000-01-01 +365.25d">>,        unique
                   payload => <<"2000-01-01+365.25d.request">>,   beside the index
                   relativistic => false,
                   start => <<"2000-01-01">>,               TDB, at 0 h
                   'end' => <<"2000-12-31">>,               the day in which the span ends
                   start_jd => 2451544.5, span_days => 365.25,
                   reference => #{10 => {X, Y, Z, Vx, Vy, Vz}, ...},   km, km/s
                   bound_km => #{10 => 0.46, ...}}}.   (bound.py)

Each date and span comes twice: Newton alone, and with the relativistic terms (flag bit 0, `+gr` in
the name).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from integration.solar.bodies import BODIES, BY_NAIF
from integration.solar.bound import newtonian_bound_km, relativistic_bound_km
from integration.solar.de421 import State, gm_km3_s2, states
from integration.solar.payload import RELATIVISTIC, encode_request

STARTS = (date(1969, 7, 20), date(2000, 1, 1), date(2020, 11, 20))
SPANS_DAYS = (30.0, 365.25, -365.25)

_ORDINAL_TO_JD = (
    1721424.5  # datetime.date's ordinal 1 is 0001-01-01, Julian date 1721425.5 at midnight
)


@dataclass(frozen=True, slots=True)
class Case:
    """One job: its request, the reference's end states, and how far from them it may end."""

    name: str
    start: date
    end: date
    start_jd: float
    span_days: float
    relativistic: bool
    request: bytes
    reference: dict[int, State]
    bound_km: dict[int, float]

    @property
    def payload_file(self) -> str:
        return self.name.replace(" ", "") + ".request"


def julian_date(day: date) -> float:
    """The Julian date of a day's beginning."""
    return day.toordinal() + _ORDINAL_TO_JD


def make_case(start: date, span_days: float, *, relativistic: bool) -> Case:
    """Raises ValueError when a date lies outside DE421, or the span is over a year (bound.py)."""
    start_jd = julian_date(start)
    end_jd = start_jd + span_days
    begin = states(start_jd)
    bound = relativistic_bound_km if relativistic else newtonian_bound_km
    return Case(
        name=f"{start} {span_days:+g}d" + ("+gr" if relativistic else ""),
        start=start,
        end=date.fromordinal(int(end_jd - _ORDINAL_TO_JD)),
        start_jd=start_jd,
        span_days=span_days,
        relativistic=relativistic,
        request=encode_request(
            start_jd,
            span_days,
            begin,
            {naif: gm_km3_s2(naif) for naif in begin},
            flags=RELATIVISTIC if relativistic else 0,
        ),
        reference=states(end_jd),
        bound_km={body.naif: bound(body.name, span_days) for body in BODIES},
    )


def _number(value: float) -> str:
    """A float as Erlang reads it back exactly: Erlang wants a fraction before the exponent."""
    mantissa, mark, exponent = repr(float(value)).partition("e")
    return (mantissa if "." in mantissa else mantissa + ".0") + mark + exponent


def _binary(text: str) -> str:
    return f'<<"{text}">>'


def _reference(state: State) -> str:
    return "{" + ", ".join(_number(v) for v in (*state.position, *state.velocity)) + "}"


def _case_term(case: Case) -> str:
    reference = ",\n        ".join(f"{n} => {_reference(s)}" for n, s in case.reference.items())
    bound = ", ".join(f"{n} => {_number(km)}" for n, km in case.bound_km.items())
    return (
        "{simulation, #{\n"
        f"    name => {_binary(case.name)},\n"
        f"    payload => {_binary(case.payload_file)},\n"
        f"    relativistic => {str(case.relativistic).lower()},\n"
        f"    start => {_binary(str(case.start))}, 'end' => {_binary(str(case.end))},\n"
        f"    start_jd => {_number(case.start_jd)}, span_days => {_number(case.span_days)},\n"
        f"    reference => #{{\n        {reference}}},\n"
        f"    bound_km => #{{{bound}}}}}}}.\n"
    )


def index_terms(cases: Sequence[Case]) -> str:
    """The text of `index.terms`."""
    bodies = ", ".join(f"{{{naif}, {_binary(body.name)}}}" for naif, body in BY_NAIF.items())
    return f"{{bodies, [{bodies}]}}.\n" + "".join(_case_term(case) for case in cases)


def write(out: Path, cases: Sequence[Case]) -> None:
    """Writes all files of the cases; the index comes last, so who finds it finds its payloads."""
    out.mkdir(parents=True, exist_ok=True)
    for case in cases:
        (out / case.payload_file).write_bytes(case.request)
    (out / "index.terms").write_text(index_terms(cases))


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m integration.solar.states")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for the payloads and index.terms"
    )
    parser.add_argument(
        "--start", type=date.fromisoformat, action="append", help="YYYY-MM-DD; repeatable"
    )
    parser.add_argument(
        "--span", type=float, action="append", help="days, signed, a year at most; repeatable"
    )
    options = parser.parse_args(argv)
    cases = [
        make_case(start, span, relativistic=relativistic)
        for start in options.start or STARTS
        for span in options.span or SPANS_DAYS
        for relativistic in (False, True)
    ]
    write(options.out, cases)
    print(f"{len(cases)} simulations in {options.out}/index.terms")


if __name__ == "__main__":
    main()

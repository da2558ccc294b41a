"""What may be asked, and the check of it: a query comes from a stranger, as a term.

    %{table: :flights,
      where: [{:origin, :in, ["JFK", "LGA"]}, {:dep_delay, :>, 60}],
      group_by: [:carrier],
      select: [:count, {:mean, :dep_delay}, {:quantile, :dep_delay, 0.9}],
      order_by: [{1, :desc}], limit: 10}

Without `group_by`, `select` names columns, and the answer is rows of the table, or it names sums,
and the answer is one row. `order_by` counts the answer's columns from 0, those of `group_by` first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bridge.etf import Atom, Map

ROWS_MAX = 100_000  # of one answer; a stream may have more
LIST_MAX = 32
IN_MAX = 1_000
COMPARISONS = ("==", "!=", "<", "<=", ">", ">=", "in")
# What can be worked out of a column: needs numbers, or words too.
OF_NUMBERS = ("sum", "mean", "std", "quantile", "median")
OF_ANY = ("count", "count_distinct", "min", "max")


class BadQuery(ValueError):
    """A rule above is broken; the message says which."""


@dataclass(frozen=True)
class Condition:
    column: str
    comparison: str
    value: Any  # int, float, str, None; of `in` a tuple of them


@dataclass(frozen=True)
class Output:
    """A column of the answer: one of the table's (`what` is None), or what is worked out of it."""

    column: str | None
    what: str | None = None
    fraction: float = 0.5  # of a quantile

    @property
    def name(self) -> str:
        if self.what is None:
            return self.column or ""
        inside = self.column or "*"
        inside += f", {self.fraction:g}" if self.what == "quantile" else ""
        return f"{self.what}({inside})"


@dataclass(frozen=True)
class Query:
    table: str
    where: tuple[Condition, ...]
    group_by: tuple[str, ...]
    select: tuple[Output, ...]
    order_by: tuple[tuple[int, bool], ...]  # (column of the answer, downwards)
    limit: int | None

    @property
    def sums_up(self) -> bool:
        return bool(self.group_by) or self.select[0].what is not None

    @property
    def outputs(self) -> tuple[Output, ...]:
        return (*map(Output, self.group_by), *self.select)


def text(value: Any, what: str) -> str:
    if isinstance(value, Atom):
        return value.name
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            pass
    raise BadQuery(f"{what} is not a name")


def _list(value: Any, what: str, most: int = LIST_MAX) -> list[Any]:
    if not isinstance(value, list) or len(value) > most:
        raise BadQuery(f"{what} is not a list of at most {most}")
    return value


def _scalar(value: Any) -> Any:
    if isinstance(value, bool) or value is None or value == Atom("nil"):
        if isinstance(value, bool):
            raise BadQuery("a condition's value is a number, a binary or nil")
        return None
    if isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**53):
        return value
    if isinstance(value, bytes | Atom):
        return text(value, "a condition's value")
    raise BadQuery("a condition's value is a number, a binary or nil")


def _condition(value: Any) -> Condition:
    if not isinstance(value, tuple) or len(value) != 3:
        raise BadQuery("a condition is {column, comparison, value}")
    column, comparison = text(value[0], "a column"), text(value[1], "a comparison")
    if comparison not in COMPARISONS:
        raise BadQuery(f"no comparison {comparison!r}; there are: {' '.join(COMPARISONS)}")
    if comparison == "in":
        return Condition(column, "in", tuple(map(_scalar, _list(value[2], "the values", IN_MAX))))
    return Condition(column, comparison, _scalar(value[2]))


def _output(value: Any) -> Output:
    if isinstance(value, Atom | bytes):
        name = text(value, "a column")
        return Output(None, "count") if name == "count" else Output(name)
    if not isinstance(value, tuple) or not 2 <= len(value) <= 3:
        raise BadQuery("select lists columns, :count, {what, column} and {:quantile, column, p}")
    what, column = text(value[0], "what is worked out"), text(value[1], "a column")
    if what not in OF_NUMBERS + OF_ANY or (len(value) == 3) != (what == "quantile"):
        raise BadQuery(
            f"{what!r} is nothing to work out; there are: {' '.join(OF_NUMBERS + OF_ANY)}"
        )
    fraction = value[2] if len(value) == 3 else 0.5
    if not isinstance(fraction, int | float) or not 0 <= fraction <= 1:
        raise BadQuery("a quantile's fraction lies between 0 and 1")
    return Output(column, what, float(fraction))


def _order(value: Any, count: int) -> tuple[int, bool]:
    match value:
        case (int() as index, Atom(name="asc" | "desc") as way) if 0 <= index < count:
            return index, way.name == "desc"
    raise BadQuery(f"order_by lists {{column of the answer, :asc | :desc}}, 0 to {count - 1}")


def read(term: Any) -> Query:
    """The query of a payload's term. Raises BadQuery."""
    if not isinstance(term, Mapping | Map):
        raise BadQuery("a query is a map")
    asked = {text(key, "a key"): value for key, value in term.items()}
    known = ("table", "where", "group_by", "select", "order_by", "limit")
    for key in asked:
        if key not in known:
            raise BadQuery(f"no key {key!r}; there are: {' '.join(known)}")
    group_by = tuple(text(v, "a column") for v in _list(asked.get("group_by", []), "group_by"))
    select = tuple(map(_output, _list(asked.get("select", []), "select")))
    if not select:
        raise BadQuery("select names nothing")
    if len({output.what is None for output in select}) > 1 or (group_by and select[0].what is None):
        raise BadQuery("select lists columns, or what is worked out of groups, not both")
    limit = asked.get("limit")
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 0):
        raise BadQuery("limit is not a count")
    count = len(group_by) + len(select)
    return Query(
        table=text(asked.get("table", Atom("flights")), "the table"),
        where=tuple(map(_condition, _list(asked.get("where", []), "where"))),
        group_by=group_by,
        select=select,
        order_by=tuple(_order(v, count) for v in _list(asked.get("order_by", []), "order_by")),
        limit=limit,
    )

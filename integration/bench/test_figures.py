"""What becomes of samples: ratios within a round, medians over rounds, and gaps that stay gaps."""

from __future__ import annotations

from integration.bench import table
from integration.bench.figures import FIGURES, Cell, Sample, ratios, rows_of, values

RATE, MEDIAN, _P99 = FIGURES


def sample(calls: int, median_ns: int = 0, errors: int = 0) -> Sample:
    return Sample(calls, errors, 1_000_000, median_ns, 2 * median_ns)


def test_a_ratio_is_taken_within_its_round() -> None:
    # The machine was ten times slower in the second round: the ratios do not show it.
    samples = {"ours": [sample(300), sample(30)], "ei": [sample(200), sample(20)]}
    (row,) = [row for row in rows_of(Cell(16, 8), samples) if row["unit"] == "calls/s"]
    assert row["ratio"] == {"min": 1.5, "median": 1.5, "max": 1.5}
    assert (row["ours"], row["peer"]) == (165, 110)


def test_round_trips_are_rows_only_where_one_caller_gave_them() -> None:
    many = {"ours": [sample(10)], "beam": [sample(10)]}
    one = {"ours": [sample(10, 5_000)], "beam": [sample(10, 10_000)]}
    assert [row["work"] for row in rows_of(Cell(16, 8), many)] == [RATE.work]
    assert {row["ratio"]["median"] for row in rows_of(Cell(16, 1), one)} == {1.0, 0.5}


def test_a_side_that_refused_is_a_gap_and_the_others_stay_in_step() -> None:
    ours = [sample(100), None, sample(300)]
    peer = [sample(100), sample(100), sample(100)]
    assert ratios(values(RATE, ours), values(RATE, peer)) == [1.0, 3.0]


def test_peers_are_rows_when_ours_did_not_run() -> None:
    rows = rows_of(Cell(16, 1), {"beam": [sample(10, 1_000)]})
    assert [(row["ours"], row["ratio"]) for row in rows] == [(None, None)] * 3


def test_errors_are_told_beside_the_figure() -> None:
    samples = {"ours": [sample(10, errors=3)], "beam": [sample(10)]}
    assert rows_of(Cell(16, 8), samples)[0]["errors"] == 3
    assert any("10!" in line for line in table.lines_of({Cell(16, 8): samples}, ["ours", "beam"]))


def test_the_generators_lines_are_read() -> None:
    assert Sample.parse("result 10 0 1000000 5000 9000") == Sample(10, 0, 1_000_000, 5000, 9000)
    assert Sample.parse("refused {:error, :no_worker}") is None
    assert values(MEDIAN, [Sample.parse("result 10 0 1000000 5000 9000"), None]) == [5.0, None]

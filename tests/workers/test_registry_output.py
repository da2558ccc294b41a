"""output.py: a worker's bytes become bounded lines."""

import pytest

from bridge.workers.output import LINE_BYTES_MAX, LINES_PER_SECOND, LineCutter


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_any_split_gives_the_same_lines(size: int) -> None:
    data = "eins\nzwei\r\n\ndrei ü\nrest".encode()
    cutter = LineCutter()
    lines: list[str] = []
    for at in range(0, len(data), size):
        lines += cutter.feed(data[at : at + size], 0.0)
    assert lines + cutter.finish(0.0) == ["eins", "zwei", "", "drei ü", "rest"]


def test_a_line_without_an_end_is_cut_and_never_kept_whole() -> None:
    cutter = LineCutter()
    lines = cutter.feed(b"x" * (3 * LINE_BYTES_MAX + 5), 0.0)
    assert [len(line) for line in lines] == [LINE_BYTES_MAX] * 3
    assert cutter.finish(0.0) == ["xxxxx"]


def test_a_flood_is_dropped_and_its_size_told_in_the_next_second() -> None:
    cutter = LineCutter()
    assert len(cutter.feed(b"x\n" * (LINES_PER_SECOND + 7), 10.2)) == LINES_PER_SECOND
    assert cutter.feed(b"y\n", 11.0) == ["(7 lines were dropped: too many in a second)", "y"]


def test_bytes_that_are_not_utf_8_are_shown_all_the_same() -> None:
    assert LineCutter().feed(b"\xff\n", 0.0) == ["\N{REPLACEMENT CHARACTER}"]

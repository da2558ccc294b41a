"""output.py: a worker's bytes become bounded lines, and the last of them are kept."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.workers.output import LINE_BYTES_MAX, LINES_PER_SECOND, Line, LineCutter, Tail


def texts(lines: list[Line]) -> list[str]:
    return [line.text for line in lines]


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_any_split_gives_the_same_lines(size: int) -> None:
    data = "eins\nzwei\r\n\ndrei ü\nrest".encode()
    cutter = LineCutter()
    lines: list[Line] = []
    for at in range(0, len(data), size):
        lines += cutter.feed(data[at : at + size], 0.0)
    assert texts(lines + cutter.finish(0.0)) == ["eins", "zwei", "", "drei ü", "rest"]


def test_a_line_without_an_end_is_cut_and_never_kept_whole() -> None:
    cutter = LineCutter()
    lines = cutter.feed(b"x" * (3 * LINE_BYTES_MAX + 5), 0.0)
    assert [len(line.text) for line in lines] == [LINE_BYTES_MAX] * 3
    assert texts(cutter.finish(0.0)) == ["xxxxx"]


def test_a_flood_is_dropped_and_its_size_told_in_the_next_second() -> None:
    cutter = LineCutter()
    assert len(cutter.feed(b"x\n" * (LINES_PER_SECOND + 7), 10.2)) == LINES_PER_SECOND
    told = texts(cutter.feed(b"y\n", 11.0))
    assert told == ["(7 lines were dropped: too many in a second)", "y"]


def test_bytes_that_are_not_utf_8_are_shown_all_the_same() -> None:
    assert texts(LineCutter().feed(b"\xff\n", 0.0)) == ["\N{REPLACEMENT CHARACTER}"]


def test_a_line_is_of_the_job_in_which_it_began() -> None:
    cutter = LineCutter()
    assert cutter.feed(b"one\ntw", 0.0, 7) == [("one", 7)]
    assert cutter.feed(b"o\nthree\nfo", 0.0, 8) == [("two", 7), ("three", 8)]
    assert cutter.feed(b"", 0.0, 9) == []
    assert cutter.feed(b"ur\n", 0.0, None) == [("four", 8)]
    assert cutter.feed(b"idle\n", 0.0) == [("idle", None)]
    assert cutter.feed(b"rest", 0.0, 9) == []
    assert cutter.finish(0.0) == [("rest", 9)]


@given(
    pieces=st.lists(st.tuples(st.binary(max_size=9), st.sampled_from([None, 1, 2])), max_size=20)
)
def test_lines_and_jobs_are_those_of_a_naive_cutter(
    pieces: list[tuple[bytes, int | None]],
) -> None:
    cutter, lines = LineCutter(), list[Line]()
    for data, job in pieces:
        lines += cutter.feed(data, 0.0, job)
    lines += cutter.finish(0.0)
    letters = [(byte, job) for data, job in pieces for byte in data]
    naive: list[list[tuple[int, int | None]]] = [[]]
    for letter in letters:
        naive[-1].append(letter)
        if letter[0] == ord("\n"):
            naive.append([])
    wanted = []
    for line in naive:
        text = bytes(byte for byte, _ in line).removesuffix(b"\n")
        if line:
            wanted.append((text.decode("utf-8", "replace").rstrip("\r"), line[0][1]))
    assert lines == wanted


@given(size=st.integers(1, 40), pieces=st.lists(st.binary(max_size=60)))
def test_the_tail_is_the_last_bytes_of_all(size: int, pieces: list[bytes]) -> None:
    tail = Tail(size)
    whole = b""
    for piece in pieces:
        tail.add(piece)
        whole += piece
        assert tail.read() == whole[-size:]
        assert tail.forgotten == max(0, len(whole) - size)
        assert tail._size < size + 60  # what it keeps is bounded


def test_the_tail_of_small_pieces_keeps_few_of_them() -> None:
    tail = Tail(10)
    for _ in range(1000):
        tail.add(b"x")
    assert len(tail._pieces) == 10

"""One direction of a troubled connection: what may happen to bytes, and what never does."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.chaos.lane import HELD_BYTES_MAX, Cut, End, Lane, Send, Shape, Step, Wait

shapes = st.builds(
    Shape,
    delay_ms=st.floats(0, 50),
    jitter_ms=st.floats(0, 50),
    bytes_per_s=st.one_of(st.just(0), st.integers(100, 1_000_000)),
    piece_bytes=st.integers(0, 40),
)


def run(lane: Lane, shape: Shape, now: float) -> tuple[list[tuple[float, bytes]], Step, float]:
    """Let go what goes, waiting as it says: pieces with their times, and what came then."""
    gone = []
    while True:
        match lane.next_step(now, shape):
            case Send(data):
                gone.append((now, data))
            case Wait(until) if until < math.inf:
                assert until > now
                now = until
            case step:
                return gone, step, now


@given(st.lists(st.binary(min_size=1, max_size=200), max_size=10), shapes, st.integers(0, 2**32))
def test_each_byte_goes_once_and_in_order(chunks: list[bytes], shape: Shape, seed: int) -> None:
    lane = Lane(Random(seed))
    for at, chunk in enumerate([*chunks, b""]):
        lane.receive_data(chunk, at / 1000, shape)
    gone, step, _ = run(lane, shape, len(chunks) / 1000)
    assert b"".join(data for _, data in gone) == b"".join(chunks)
    assert step == End()
    assert lane.held == 0


def test_without_a_shape_bytes_go_as_they_came() -> None:
    lane = Lane(Random(0))
    lane.receive_data(b"abc", 1.0, Shape())
    lane.receive_data(b"de", 1.0, Shape())
    assert run(lane, Shape(), 1.0) == ([(1.0, b"abc"), (1.0, b"de")], Wait(math.inf), 1.0)


def test_a_delay_counts_from_the_arrival() -> None:
    lane, shape = Lane(Random(0)), Shape(delay_ms=100)
    lane.receive_data(b"a", 1.0, shape)
    lane.receive_data(b"b", 1.05, shape)
    assert lane.next_step(1.05, shape) == Wait(pytest.approx(1.1))  # type: ignore[arg-type]
    gone, _, _ = run(lane, shape, 1.05)
    assert [data for _, data in gone] == [b"a", b"b"]
    assert [at_s for at_s, _ in gone] == pytest.approx([1.1, 1.15])


def test_jitter_lets_nothing_overtake() -> None:
    lane, shape = Lane(Random(3)), Shape(jitter_ms=1000)
    for byte in range(100):
        lane.receive_data(bytes([byte]), byte / 1000, shape)
    gone, _, _ = run(lane, shape, 0.1)
    assert b"".join(data for _, data in gone) == bytes(range(100))
    assert gone[-1][0] > 0.5, "a hundred draws up to a second"


@given(st.integers(100, 100_000), st.integers(1, 5000))
def test_a_rate_is_kept_over_any_stretch(bytes_per_s: int, size: int) -> None:
    lane, shape = Lane(Random(0)), Shape(bytes_per_s=bytes_per_s)
    lane.receive_data(bytes(size), 0.0, shape)
    gone, _, _ = run(lane, shape, 0.0)
    sent = 0
    for at, data in gone:
        assert sent <= at * bytes_per_s + 1e-6, "nothing goes before its turn"
        sent += len(data)
    assert gone[-1][0] == pytest.approx((size - len(gone[-1][1])) / bytes_per_s)


def test_pieces_are_never_longer_than_asked_and_differ() -> None:
    lane, shape = Lane(Random(1)), Shape(piece_bytes=7)
    lane.receive_data(bytes(1000), 0.0, shape)
    sizes = {len(data) for _, data in run(lane, shape, 0.0)[0]}
    assert sizes == set(range(1, 8))


def test_a_cut_falls_on_its_byte() -> None:
    lane, shape = Lane(Random(0)), Shape(cut_after_bytes=5)
    lane.receive_data(b"abc", 0.0, shape)
    lane.receive_data(b"defg", 0.0, shape)
    gone, step, _ = run(lane, shape, 0.0)
    assert b"".join(data for _, data in gone) == b"abcde"
    assert step == Cut()


def test_a_still_lane_keeps_all_and_ends_nothing() -> None:
    lane, still = Lane(Random(0)), Shape(still=True)
    lane.receive_data(b"abc", 0.0, still)
    lane.receive_data(b"", 0.0, still)
    assert run(lane, still, 99.0) == ([], Wait(math.inf), 99.0)
    gone, step, _ = run(lane, Shape(), 100.0)
    assert (gone, step) == ([(100.0, b"abc")], End())


def test_what_is_held_is_bounded_by_who_reads() -> None:
    lane, shape = Lane(Random(0)), Shape(delay_ms=1)
    room = [lane.has_room]
    lane.receive_data(bytes(HELD_BYTES_MAX), 0.0, shape)
    room.append(lane.has_room)
    run(lane, shape, 0.0)
    room.append(lane.has_room)
    assert room == [True, False, True]


@pytest.mark.parametrize("wrong", [{"delay_ms": -1}, {"bytes_per_s": -5}, {"jitter_ms": math.nan}])
def test_what_no_wire_can_do_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Shape(**wrong)  # type: ignore[arg-type]

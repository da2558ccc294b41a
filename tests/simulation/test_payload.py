"""The simulation's payload: what is refused, with which code, and the value in the message."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from math import inf, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration.solar.de421 import State
from integration.solar.payload import decode_answer, encode_request

Run = Callable[[bytes], bytes | tuple[int, str]]

SUN = State(np.zeros(3), np.zeros(3))
PLANET = State(np.array([1.5e8, 0.0, 0.0]), np.array([0.0, 30.0, 0.0]))
GM = {10: 1.3e11, 3: 4e5}
GOOD = encode_request(2451544.5, 10.0, {10: SUN, 3: PLANET}, GM)


def changed(at: int, form: str, *values: object) -> bytes:
    request = bytearray(GOOD)
    struct.pack_into("<" + form, request, at, *values)
    return bytes(request)


REFUSED = {
    "empty": (b"", 1, "24 bytes, got 0"),
    "header cut": (GOOD[:23], 1, "24 bytes, got 23"),
    "body cut": (GOOD[:-1], 1, "2 bodies take 152 bytes, got 151"),
    "trailing byte": (GOOD + b"x", 1, "got 153"),
    "count too high for its bytes": (changed(2, "H", 3), 1, "3 bodies take 216 bytes, got 152"),
    "version 0": (changed(0, "H", 0), 2, "must be 1, got 0"),
    "version 2": (changed(0, "H", 2), 2, "must be 1, got 2"),
    "no bodies": (changed(2, "H", 0), 3, "1 to 64, got 0"),
    "65 bodies": (changed(2, "H", 65), 3, "1 to 64, got 65"),
    "unknown flag": (changed(4, "I", 6), 4, "0x6"),
    "start not a number": (changed(8, "d", nan), 5, "start must be a finite Julian date, got nan"),
    "endless span": (changed(16, "d", -inf), 5, "got -inf"),
    "span not a number": (changed(16, "d", nan), 5, "got nan"),
    "span too long": (changed(16, "d", 4e5), 5, "within 365250 days, got 400000"),
    "reserved bytes used": (changed(24 + 4, "I", 7), 6, "must be zero, got 7"),
    "same id twice": (changed(24 + 64, "I", 10), 6, "bodies 0 and 1 have the same id 10"),
    "negative GM": (changed(24 + 8, "d", -1.0), 6, "GM must be finite and not negative, got -1"),
    "GM not a number": (changed(24 + 8, "d", nan), 6, "got nan"),
    "position not a number": (changed(24 + 64 + 24, "d", nan), 6, "body 1 (id 3): y must be"),
    "faster than light": (changed(24 + 64 + 56, "d", 3e5), 6, "vz must be below the speed of"),
    "same place": (changed(24 + 64 + 16, "d", 0.0), 7, "bodies 10 and 3 are in the same place"),
}


@pytest.mark.parametrize(("request_", "code", "message"), REFUSED.values(), ids=REFUSED)
def test_a_bad_request_is_refused_by_rule_and_value(
    run_job: Run, request_: bytes, code: int, message: str
) -> None:
    answer = run_job(request_)
    assert isinstance(answer, tuple)
    assert answer[0] == code
    assert message in answer[1]


def test_the_good_request_that_the_bad_ones_are_made_from_is_answered(run_job: Run) -> None:
    answer = run_job(GOOD)
    assert isinstance(answer, bytes)
    decoded = decode_answer(answer)
    assert list(decoded.states) == [10, 3]
    assert (decoded.end_jd, decoded.span_days, decoded.flags) == (2451554.5, 10.0, 0)
    assert decoded.steps > 0


def test_a_span_of_zero_gives_the_start_back(run_job: Run) -> None:
    answer = run_job(changed(16, "d", 0.0))
    assert isinstance(answer, bytes)
    decoded = decode_answer(answer)
    assert decoded.steps == 0
    assert decoded.energy_error == 0
    assert np.array_equal(decoded.states[3].position, PLANET.position)


def test_one_body_alone_moves_in_a_straight_line(run_job: Run) -> None:
    answer = run_job(encode_request(0.0, 1000.0, {3: PLANET}, GM))
    assert isinstance(answer, bytes)
    assert decode_answer(answer).states[3].position[1] == pytest.approx(30.0 * 86400 * 1000)


def test_a_head_on_collision_is_a_failed_job_and_no_endless_loop(run_job: Run) -> None:
    falling = State(np.array([1e5, 0.0, 0.0]), np.zeros(3))
    answer = run_job(encode_request(0.0, 1000.0, {10: SUN, 3: falling}, {10: 1e9, 3: 1e9}))
    assert isinstance(answer, tuple)
    assert answer[0] in (7, 8)
    assert re.search(r"after \d+ steps", answer[1])


@given(st.binary(max_size=400))
def test_garbage_is_a_failed_job(run_job: Run, data: bytes) -> None:
    assert isinstance(run_job(data), tuple)

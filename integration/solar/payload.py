"""The simulation's payload: requests out, answers in (docs/simulation.md, "Payload")."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from integration.solar.de421 import State

VERSION = 1
RELATIVISTIC = 1

_REQUEST = struct.Struct("<HHIdd")
_REQUEST_BODY = struct.Struct("<IId3d3d")
_ANSWER = struct.Struct("<HHIdddQQ")
_ANSWER_BODY = struct.Struct("<II3d3d")


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished simulation. `energy_error` is relative; states by id, in the request's order."""

    flags: int
    end_jd: float
    span_days: float
    energy_error: float
    steps: int
    evaluations: int
    states: dict[int, State]


def encode_request(
    start_jd: float,
    span_days: float,
    states: Mapping[int, State],
    gm: Mapping[int, float],
    *,
    flags: int = 0,
) -> bytes:
    """One request: every body of `states`, in its order, with its GM in km^3/s^2."""
    parts = [_REQUEST.pack(VERSION, len(states), flags, start_jd, span_days)]
    parts += [
        _REQUEST_BODY.pack(naif, 0, gm[naif], *state.position, *state.velocity)
        for naif, state in states.items()
    ]
    return b"".join(parts)


def decode_answer(data: bytes) -> Answer:
    """Raises ValueError for a version or a length that is not an answer's."""
    version, count, flags, end_jd, span_days, energy_error, steps, evaluations = (
        _ANSWER.unpack_from(data)
    )
    if version != VERSION:
        raise ValueError(f"answer has version {version}, expected {VERSION}")
    if len(data) != _ANSWER.size + count * _ANSWER_BODY.size:
        raise ValueError(f"answer of {count} bodies has {len(data)} bytes")
    states = {}
    for at in range(_ANSWER.size, len(data), _ANSWER_BODY.size):
        naif, _, *values = _ANSWER_BODY.unpack_from(data, at)
        states[naif] = State(np.array(values[:3]), np.array(values[3:]))
    return Answer(flags, end_jd, span_days, energy_error, steps, evaluations, states)

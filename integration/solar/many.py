"""The operation *cluster* of the simulation: requests out, answers in (docs/simulation.md)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

VERSION = 1
GENERATED, ACCELERATIONS = 1, 2
OPCODE = 1

_REQUEST = struct.Struct("<HHIIIII3dQ")
_ANSWER = struct.Struct("<HHIIIII7dQQ")
_PROGRESS = struct.Struct("<IId")

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Request:
    """`bodies`: how many to generate from `seed`, or rows of GM, x, y, z, vx, vy, vz."""

    bodies: int | Array
    steps: int = 0
    step: float = 0.01
    theta: float = 0.5
    softening: float = 0.01
    seed: int = 1
    returned: int = 0
    sampled: int = 0
    accelerations: bool = False

    def encode(self) -> bytes:
        given = not isinstance(self.bodies, int)
        count = len(self.bodies) if not isinstance(self.bodies, int) else self.bodies
        flags = (0 if given else GENERATED) | (ACCELERATIONS if self.accelerations else 0)
        counts = (count, self.steps, self.returned, self.sampled, 0)
        reals = (self.step, self.theta, self.softening)
        head = _REQUEST.pack(VERSION, flags, *counts, *reals, self.seed)
        return head + (np.ascontiguousarray(self.bodies, "<f8").tobytes() if given else b"")


@dataclass(frozen=True, slots=True)
class Answer:
    """What was measured, and the bodies returned: rows of position, velocity, acceleration."""

    time: float
    energy_before: float
    energy_after: float
    momentum_gained: float
    angular_gained: float
    error_rms: float
    error_max: float
    body_pairs: int
    cell_pairs: int
    bodies: Array

    @classmethod
    def decode(cls, data: bytes) -> Answer:
        """Raises ValueError for a version or a length that is not an answer's."""
        version, flags, _, _, returned, _, _, *measured = _ANSWER.unpack_from(data)
        if version != VERSION:
            raise ValueError(f"answer has version {version}, expected {VERSION}")
        columns = 9 if flags & ACCELERATIONS else 6
        if len(data) != _ANSWER.size + returned * columns * 8:
            raise ValueError(f"answer of {returned} bodies has {len(data)} bytes")
        rows = np.frombuffer(data, "<f8", offset=_ANSWER.size).reshape(returned, columns)
        told = (*measured, rows)
        return cls(*told)


def decode_progress(data: bytes) -> tuple[int, int, float]:
    """Steps done, steps in all, the share of the whole job that is done."""
    done, steps, share = _PROGRESS.unpack(data)
    return done, steps, share

"""The role worldgen, held value for value against PyPI's opensimplex; and its pictures, decoded."""

from __future__ import annotations

import math
import struct
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import opensimplex
import pytest

from bridge.fabric import layout

ROOT = Path(__file__).parents[2]
# The installed package is `bridge` alone; the battery is found from the root of the checkout.
sys.path.insert(0, str(ROOT))
from workers.conformance.bench import Bench  # noqa: E402
from workers.conformance.jobs import CANCELLED, FAILED, OK, PART, PROGRESS  # noqa: E402
from workers.conformance.peer import Peer  # noqa: E402

WORKER = ROOT / "build" / "bin" / "rb-worldgen"
HEIGHTS, PICTURE = 0, 1
CODE_BAD_REQUEST, CODE_UNKNOWN_OPCODE = 10, 11
# Both sum the same terms, in another order: a few units in the last place of the largest.
ROUNDING = 4e-15


@dataclass(frozen=True)
class Tile:
    """A request (docs/worldgen.md)."""

    seed: int = 3
    width: int = 40
    height: int = 30
    octaves: int = 1
    rows: int = 0
    x: float = -7.3
    y: float = 4.1
    step: float = 0.137
    lacunarity: float = 2.0
    gain: float = 0.5
    version: int = 1

    def payload(self) -> bytes:
        head = struct.pack(
            "<HHIIIq", self.version, self.octaves, self.width, self.height, self.rows, self.seed
        )
        return head + struct.pack("<5d", self.x, self.y, self.step, self.lacunarity, self.gain)

    def expected(self) -> np.ndarray:
        """What opensimplex says, octave by octave."""
        noise = opensimplex.OpenSimplex(self.seed)
        x = self.x + np.arange(self.width) * self.step
        y = self.y + np.arange(self.height) * self.step
        total, weights, frequency, amplitude = np.zeros((self.height, self.width)), 0.0, 1.0, 1.0
        for _ in range(self.octaves):
            total += amplitude * noise.noise2array(x * frequency, y * frequency)
            weights += amplitude
            frequency *= self.lacunarity
            amplitude *= self.gain
        return np.asarray(total / weights)

    def array(self, data: bytes) -> np.ndarray:
        return np.frombuffer(data, "<f8").reshape(-1, self.width)


@pytest.fixture
def peer() -> Iterator[Peer]:
    bench = Bench([str(WORKER)])
    try:
        yield bench.start()
    finally:
        bench.close()


def parts_of(peer: Peer, job: int, demand: int = 1000) -> list[bytes]:
    """The parts of a job, asked for `demand` at a time, to its end."""
    parts: list[bytes] = []
    peer.demand(job, demand)
    while (answer := peer.take()).status == PART:
        parts.append(answer.payload)
        peer.give_back(answer)
        if len(parts) % demand == 0:
            peer.demand(job, len(parts) + demand)
    assert (answer.status, answer.payload) == (OK, b"")
    return parts


# --- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tile",
    [
        Tile(),
        Tile(seed=0, x=-900.5, y=1200.25, step=0.71),
        Tile(seed=-(2**63), x=0.0, y=0.0, step=1.0),  # on whole numbers, where cells meet
        Tile(seed=2**63 - 1, x=-1e-9, y=1e-9, step=1e-3),
        Tile(seed=42, octaves=6, lacunarity=2.1, gain=0.45),
        Tile(width=1, height=1),
        Tile(width=4, height=2),  # 64 bytes, in the envelope
    ],
    ids=repr,
)
def test_the_heights_are_those_of_opensimplex(peer: Peer, tile: Tile) -> None:
    answer = peer.expect(peer.submit(HEIGHTS, tile.payload()))
    got, expected = tile.array(answer.payload), tile.expected()
    assert got.shape == (tile.height, tile.width)
    np.testing.assert_allclose(got, expected, rtol=0, atol=ROUNDING)


def test_a_wrong_seed_would_be_noticed(peer: Peer) -> None:
    answer = peer.expect(peer.submit(HEIGHTS, Tile(seed=4).payload()))
    assert not np.allclose(Tile().array(answer.payload), Tile(seed=3).expected(), atol=1e-3)


# --- parts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "counts"), [(0, [30]), (7, [7, 7, 7, 7, 2]), (1000, [30])])
def test_a_stream_has_the_same_heights_in_rows(peer: Peer, rows: int, counts: list[int]) -> None:
    tile = Tile(rows=rows)
    parts = parts_of(peer, peer.submit(HEIGHTS, tile.payload(), flags=layout.FLAG_PARTS), demand=2)
    heads = [struct.unpack_from("<II", part) for part in parts]
    assert [count for _, count in heads] == counts
    assert [first for first, _ in heads] == [sum(counts[:i]) for i in range(len(counts))]
    whole = peer.expect(peer.submit(HEIGHTS, tile.payload())).payload
    assert b"".join(part[8:] for part in parts) == whole


def test_a_part_is_made_while_the_one_before_is_waited_for_and_a_cancel_ends_it(peer: Peer) -> None:
    job = peer.submit(HEIGHTS, Tile(rows=1).payload(), flags=layout.FLAG_PARTS, demand=2)
    for _ in range(2):
        peer.give_back(peer.take())
    peer.silence()
    peer.cancel(job)
    peer.expect(job, CANCELLED)


def test_its_progress_is_the_rows_made(peer: Peer) -> None:
    job = peer.submit(HEIGHTS, Tile().payload(), flags=layout.FLAG_PROGRESS)
    told = []
    while (answer := peer.take()).status == PROGRESS:
        told.append(struct.unpack("<II", answer.payload))
        assert answer.job == job
    assert answer.status == OK
    assert told == [(row, 30) for row in range(1, 31)]


# --- pictures -------------------------------------------------------------------------------------


def decoded(png: bytes) -> np.ndarray:
    """The pixels of a PNG of ours: chunk by chunk, with filters None and Sub."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = [], 8
    while at < len(png):
        size, kind = struct.unpack_from(">I4s", png, at)
        data = png[at + 8 : at + 8 + size]
        (crc,) = struct.unpack_from(">I", png, at + 8 + size)
        assert crc == zlib.crc32(kind + data)
        chunks.append((kind, data))
        at += 12 + size
    kinds = [kind for kind, _ in chunks]
    assert kinds == [b"IHDR", *[b"IDAT"] * (len(kinds) - 2), b"IEND"]
    width, height, *rest = struct.unpack(">IIBBBBB", chunks[0][1])
    assert rest == [8, 2, 0, 0, 0]
    raw = zlib.decompress(b"".join(data for kind, data in chunks if kind == b"IDAT"))
    lines = np.frombuffer(raw, np.uint8).reshape(height, 1 + 3 * width)
    assert (lines[:, 0] == 1).all()
    sums = np.cumsum(lines[:, 1:].reshape(height, width, 3), axis=1, dtype=np.uint64)
    return sums.astype(np.uint8)


@pytest.mark.parametrize("size", [(64, 48), (1, 1), (400, 300)])
def test_a_picture_has_water_where_the_heights_are_below_0(
    peer: Peer, size: tuple[int, int]
) -> None:
    tile = Tile(width=size[0], height=size[1], octaves=5, step=0.02)
    pixels = decoded(peer.expect(peer.submit(PICTURE, tile.payload())).payload)
    assert pixels.shape == (tile.height, tile.width, 3)
    heights = tile.array(peer.expect(peer.submit(HEIGHTS, tile.payload())).payload)
    red, blue = pixels[:, :, 0].astype(int), pixels[:, :, 2].astype(int)
    clear = np.abs(heights) < 0.6  # above, snow is white
    assert (((blue > red) == (heights < 0)) | ~clear | (np.abs(heights) < 1e-9)).all()


def test_the_parts_of_a_picture_are_the_picture(peer: Peer) -> None:
    tile = Tile(width=500, height=300, octaves=5, step=0.01)
    whole = peer.expect(peer.submit(PICTURE, tile.payload())).payload
    parts = parts_of(peer, peer.submit(PICTURE, tile.payload(), flags=layout.FLAG_PARTS))
    assert len(parts) > 3
    assert b"".join(parts) == whole
    picture = ROOT / "build" / "worldgen" / "tile.png"
    picture.parent.mkdir(parents=True, exist_ok=True)
    picture.write_bytes(whole)


def test_room_that_a_picture_did_not_need_is_free_again(peer: Peer) -> None:
    """The worker reserves for the worst; what it kept of that would fill the region in a while."""
    tile = Tile(width=300, height=200, octaves=2, step=0.01)
    for _ in range(30):
        peer.expect(peer.submit(PICTURE, tile.payload()))


def test_tiles_beside_each_other_have_no_seam(peer: Peer) -> None:
    left = Tile(width=50, octaves=3)
    right = replace(left, width=10, x=left.x + 40 * left.step)
    pixels = [
        decoded(peer.expect(peer.submit(PICTURE, tile.payload())).payload) for tile in (left, right)
    ]
    # Its x is rounded once more than the other's, so a channel may fall to the next number.
    assert np.abs(pixels[0][:, 40:].astype(int) - pixels[1].astype(int)).max() <= 1


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tile", "words"),
    [
        (Tile(version=2), "version must be 1"),
        (Tile(octaves=17), "octaves must be 1 to 16"),
        (Tile(width=8193), "width and height must be 1 to 8192"),
        (Tile(step=math.nan), "step must be more than 0"),
        (Tile(lacunarity=9.0), "lacunarity must be 1 to 8"),
        (Tile(gain=0.0), "gain must be more than 0 and at most 1"),
        (Tile(x=math.inf), "x, y or step reach too far out"),
    ],
)
def test_what_breaks_a_rule_is_refused_with_the_rule(peer: Peer, tile: Tile, words: str) -> None:
    answer = peer.expect(peer.submit(HEIGHTS, tile.payload()), FAILED, code=CODE_BAD_REQUEST)
    assert answer.payload.decode() == words


def test_terms_other_lengths_and_other_opcodes_are_refused(peer: Peer) -> None:
    peer.expect(peer.submit(HEIGHTS, b"a\1", flags=layout.FLAG_TERM), FAILED, code=CODE_BAD_REQUEST)
    peer.expect(peer.submit(PICTURE, bytes(63)), FAILED, code=CODE_BAD_REQUEST)
    peer.expect(peer.submit(2, Tile().payload()), FAILED, code=CODE_UNKNOWN_OPCODE)


def test_the_reference_is_not_the_worker_s_own() -> None:
    """opensimplex's documented value, so that two equal mistakes would be noticed."""
    assert opensimplex.OpenSimplex(3).noise2(0.5, 0.5) == pytest.approx(-0.43906247097569345)
    values = opensimplex.OpenSimplex(3).noise2array(np.arange(0, 3, 0.01), np.zeros(1))[0]
    assert all(abs(a - b) < 0.1 for a, b in pairwise(values))

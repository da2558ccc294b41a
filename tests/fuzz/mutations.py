"""Changes of kept inputs, the same ones for the same seed: what is tried where no atheris is."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
TAGS = [0, 1, 2, 3, 127, 128, 255, *range(67, 122)]


def kept(target: str) -> dict[str, bytes]:
    """The committed inputs of a target, by file name."""
    return {path.name: path.read_bytes() for path in sorted((CORPUS / target).iterdir())}


def changed(inputs: list[bytes], rng: random.Random) -> Iterator[bytes]:
    """Without end: an input with one to four bytes set, cut, doubled, or another's put in."""
    while True:
        data = bytearray(rng.choice(inputs))
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(data) + 1)
            match rng.randrange(6):
                case 0 if at < len(data):
                    data[at] = rng.choice(TAGS)
                case 1 if at < len(data):
                    data[at] ^= 1 << rng.randrange(8)
                case 2:
                    del data[at : at + rng.randint(1, 8)]
                case 3:
                    data[at:at] = data[at : at + rng.randint(1, 30)]
                case 4:
                    other = rng.choice(inputs)
                    start = rng.randrange(len(other) + 1)
                    data[at:at] = other[start : start + rng.randint(1, 40)]
                case _:
                    data[at:at] = bytes(rng.choice(TAGS) for _ in range(rng.randint(1, 4)))
        yield bytes(data[:4096])

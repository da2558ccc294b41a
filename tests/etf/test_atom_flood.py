"""A peer that sends new atoms without end fills nothing: no atom is interned without bound."""

from __future__ import annotations

import gc
import sys
from typing import Any

import pytest

from bridge.etf import Atom, decode, decode_bare, encode

FLOOD = 200_000
CACHE_SLOTS_MAX = 10_000  # generous: what the codec may keep of the texts it saw last


def flood(start: int, count: int) -> bytes:
    """A list of `count` atoms that nobody has seen before."""
    body = b"".join(b"w\x0dflood_%07d" % number for number in range(start, start + count))
    return b"\x83l" + count.to_bytes(4, "big") + body + b"j"


def test_the_codec_keeps_a_bounded_number_of_atoms() -> None:
    decode(flood(0, 1_000))
    gc.collect()
    before = sys.getallocatedblocks()
    for start in range(1_000, FLOOD, 10_000):
        terms: Any = decode(flood(start, 10_000))
        assert len(terms) == 10_000
        del terms
    gc.collect()
    # An atom is two blocks at least, the object and its text.
    assert sys.getallocatedblocks() - before < 3 * CACHE_SLOTS_MAX


def test_nothing_of_a_decoded_atom_is_interned_by_python() -> None:
    terms: Any = decode(flood(FLOOD, 1))
    [atom] = terms
    text = atom.name
    assert text == f"flood_{FLOOD:07d}"
    assert sys.intern("".join(["flood_", f"{FLOOD:07d}"])) is not text


@pytest.mark.parametrize("number", range(3))
def test_an_atom_pushed_out_of_the_cache_is_the_same_atom(number: int) -> None:
    held = Atom(f"held_{number}")
    data = encode(held)
    decode(flood(FLOOD + 1, 50_000))
    assert decode(data) == held
    assert hash(decode(data)) == hash(held)
    assert decode_bare(data[1:])[0] == held

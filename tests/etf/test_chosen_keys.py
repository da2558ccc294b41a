"""Keys that a peer has chosen so that a dict is slow to find them: docs/terms.md, "Map keys"."""

import random
import sys
import time
from typing import Any

import pytest
from etf_support import both_codecs

import bridge.etf
from bridge.etf import Atom, Map, _reference, encode

HASH_MODULUS = sys.hash_info.modulus


def map_of(keys: list[Any]) -> bytes:
    entries = b"".join(encode(key)[1:] + b"j" for key in keys)
    return b"\x83t" + len(keys).to_bytes(4) + entries


def in_each_others_way(bits: int) -> list[int]:
    """Two thirds of a dict of 2^bits places: a chain of places that are tried one after the other,
    and numbers all of whose tries lie on it, the last ones near its beginning.
    """
    size = 1 << bits
    chain = [0]
    while len(chain) < size // 3:
        chain.append((chain[-1] * 5 + 1) % size)
    place = {at: number for number, at in enumerate(chain)}
    found: list[int] = []
    for high in range(1, size):
        for low in chain:
            rest, at = high << bits | low, low
            while rest and at in place:
                rest >>= 5
                at = (at * 5 + rest + 1) % size
            if not rest and place.get(at, size) < len(chain) // 4:
                found.append(high << bits | low)
                if len(found) == len(chain):
                    return chain + found
    raise AssertionError("not so many")


@both_codecs
def test_a_map_whose_keys_share_a_hash_is_a_map_that_shares_none(codec: Any) -> None:
    big = [n * HASH_MODULUS for n in range(1, 200)]
    assert len({hash(key) for key in big}) == 1
    tuples: list[Any] = [(key, Atom("x")) for key in big]
    for keys in (big, tuples, [*range(100), *big], [*map(str, range(100)), *tuples]):
        term = codec.decode(map_of(keys))
        assert type(term) is Map
        assert len(term) == len(keys)
        assert all(term[key] == [] for key in keys)
        assert codec.decode(codec.encode(term)) == term


@both_codecs
def test_a_map_with_few_keys_of_one_hash_stays_a_dict(codec: Any) -> None:
    few = [n * HASH_MODULUS for n in range(1, 17)]
    for keys in (
        few,
        [*range(1, 101), *few],
        [*range(2**59, 2**59 + 300)],
        [(n,) for n in range(300)],
    ):
        assert type(codec.decode(map_of(keys))) is dict


def test_keys_chosen_to_share_a_hash_cost_no_more_than_others() -> None:
    """Thirty thousand of them once took ten seconds, in which no other process got a turn."""
    began = time.process_time()
    term = bridge.etf.decode(map_of([n * HASH_MODULUS for n in range(1, 30_000)]))
    assert time.process_time() - began < 2
    assert len(term) == 29_999  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [int, float])
@both_codecs
def test_a_map_whose_keys_lie_in_each_others_way_is_a_map(codec: Any, kind: Any) -> None:
    """Each has a hash of its own. 260 kB of such once took two seconds, twice as many eight."""
    keys = [kind(key) for key in in_each_others_way(11)]
    assert len(set(map(hash, keys))) == len(keys)
    term = codec.decode(map_of(keys))
    assert type(term) is Map
    assert [*term] == keys


@both_codecs
def test_keys_that_nobody_chose_stay_in_a_dict(codec: Any) -> None:
    dice = random.Random(11)
    for keys in (
        [*range(3000)],
        [*range(-3000, 0)],
        [number << 40 for number in range(1, 3000)],
        [number << 49 for number in range(1, 2000)],
        [dice.randrange(2**59) for _ in range(3000)],
        [dice.random() for _ in range(3000)],
        [float(number) for number in range(1, 3000)],
        [1700000000000 + 1000 * number for number in range(3000)],
        [(dice.randrange(99), number) for number in range(3000)],
        [str(number) for number in range(3000)],
    ):
        term = codec.decode(map_of(keys))
        assert type(term) is dict, keys[:3]


def test_both_codecs_look_from_the_same_key_on() -> None:
    keys = in_each_others_way(11)
    kinds = set()
    for count in range(600, len(keys), 7):
        data = map_of(keys[:count])
        ours = bridge.etf.decode(data)
        assert type(ours) is type(_reference.decode(data))
        kinds.add(type(ours))
    assert kinds == {dict, Map}

"""Our term codec beside msgspec's MessagePack, and beside erlang_py on nested data, in turn.

    python -m integration.bench.codec

All sides build every object: msgspec by its untyped decoder, we as any term is built. Each has the
data in the form that is natural for it: an atom of ours is a str in MessagePack, a pid an array of
its four parts; erlang_py has the objects that it makes of our bytes. Ratios are our time over the
peer's in the same round: below 1 we are faster. Times are CPU time of this thread, so that other
processes do not count.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import erlang
import msgspec

from bridge.etf import Atom, ImproperList, Pid, Reference, Term, decode, encode
from integration.bench.figures import rounded, spread

ROUNDS = 15
ROUND_S = 0.004
MSGSPEC, ERLANG_PY = "msgspec MessagePack", "erlang_py"
NESTED = ("call", "200 maps")


def main() -> int:
    for row in rows():
        ratio = row["ratio"]
        print(
            f"{row['work']:<28} {row['size_bytes']:>9} B  {row['ours']:>9.3f} {row['unit']}"
            f"  {row['peer']:>9.3f} {row['unit']}  ratio {ratio['median']:.3g}"
            f" ({ratio['min']:.3g}..{ratio['max']:.3g})  {row['beside']}"
        )
    return 0


def rows() -> list[dict[str, Any]]:
    """One row for each kind of data and direction; `ours` and `peer` are times of one operation."""
    kinds = data()
    of_msgspec = [
        _row(f"codec {verb}, {name}", MSGSPEC, size, ours, peer)
        for name, term in kinds.items()
        for verb, size, ours, peer in _beside_msgspec(term)
    ]
    of_erlang_py = [
        _row(f"codec {verb}, {name}", ERLANG_PY, size, ours, peer)
        for name in NESTED
        for verb, size, ours, peer in _beside_erlang_py(kinds[name])
    ]
    return of_msgspec + of_erlang_py


def data() -> dict[str, Term]:
    random.seed(29)
    caller = Atom("app@127.0.0.1")
    reference = Reference(caller, 1763683200, (203913, 1187250177, 2415919104))
    alias = ImproperList((Atom("alias"),), reference)
    call: Term = (
        Atom("$gen_call"),
        (Pid(caller, 312, 0, 1763683200), [Atom("alias"), alias]),
        (Atom("submit"), b"simulation", b"0123456789abcdef", {Atom("timeout"): 5000}),
    )
    maps: list[Term] = [
        {
            Atom("id"): number,
            Atom("name"): b"body %d" % number,
            Atom("mass"): random.random() * 1e24,
            Atom("position"): [random.random(), random.random(), random.random()],
            Atom("alive"): number % 3 != 0,
            Atom("kind"): Atom(random.choice(["planet", "moon", "comet"])),
            Atom("parent"): None,
        }
        for number in range(200)
    ]
    integers: list[Term] = [
        random.choice([7, 250, 40_000, 2**31 - 1, -5]) * number for number in range(3000)
    ]
    return {
        "call": call,
        "200 maps": maps,
        "3000 integers": integers,
        "1 MB binary": random.randbytes(1_000_000),
    }


Operations = Iterator[tuple[str, int, Callable[[], Any], Callable[[], Any]]]


def _beside_erlang_py(term: Term) -> Operations:
    ours = encode(term)
    natural = erlang.binary_to_term(ours)
    assert encode(decode(erlang.term_to_binary(natural))) == ours
    yield "decode", len(ours), lambda: decode(ours), lambda: erlang.binary_to_term(ours)
    yield "encode", len(ours), lambda: encode(term), lambda: erlang.term_to_binary(natural)


def _beside_msgspec(term: Term) -> Operations:
    natural = for_peer(term)
    decoder, encoder = msgspec.msgpack.Decoder(), msgspec.msgpack.Encoder()
    ours, peers = encode(term), encoder.encode(natural)
    assert encode(decode(ours)) == ours
    assert decoder.decode(peers) == natural
    yield "decode", len(ours), lambda: decode(ours), lambda: decoder.decode(peers)
    yield "encode", len(ours), lambda: encode(term), lambda: encoder.encode(natural)


def for_peer(term: Term) -> Any:
    """The same data as MessagePack has it: same number of objects wherever it has the type."""
    match term:
        case Atom():
            return term.name
        case Pid(node, number, serial, creation):
            return [node.name, number, serial, creation]
        case Reference(node, creation, words):
            return [node.name, creation, list(words)]
        case ImproperList(elements, tail):
            return [*map(for_peer, elements), for_peer(tail)]
        case tuple() | list():
            return [for_peer(element) for element in term]
        case dict():
            return {for_peer(key): for_peer(value) for key, value in term.items()}
        case _:
            return term


def _row(
    work: str, beside: str, size: int, ours: Callable[[], Any], peer: Callable[[], Any]
) -> dict[str, Any]:
    loops = max(1, round(ROUND_S / max(_time(ours, 3), _time(peer, 3))))
    taken = []
    for number in range(ROUNDS):
        first, second = (ours, peer) if number % 2 == 0 else (peer, ours)
        times = {first: _time(first, loops)}
        times[second] = _time(second, loops)
        taken.append((times[ours] * 1e6, times[peer] * 1e6))
    return {
        "work": work,
        "size_bytes": size,
        "callers": None,
        "beside": beside,
        "ours": rounded(median(a for a, _ in taken)),
        "peer": rounded(median(b for _, b in taken)),
        "unit": "us",
        "ratio": spread([a / b for a, b in taken]),
    }


def _time(operation: Callable[[], Any], loops: int) -> float:
    """Seconds for one operation; each result is dropped at once, as a server drops it."""
    started = time.thread_time()
    for _ in range(loops):
        operation()
    return (time.thread_time() - started) / loops


if __name__ == "__main__":
    raise SystemExit(main())

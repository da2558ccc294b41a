"""References and memory: nothing is kept that should go, and nothing goes that should stay."""

import gc
import random
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from etf_support import fun_raw
from test_decode_rules import BROKEN
from test_golden_vectors import VECTORS

from bridge.etf import (
    Atom,
    BitString,
    CodecError,
    Export,
    ImproperList,
    Limits,
    Map,
    Pid,
    Port,
    Record,
    Reference,
    canonical,
    decode,
    decode_bare,
    encode,
)

AB = Atom("a@b")
EVERYTHING: list[Any] = [
    Atom("atom"), Atom("é" * 200), True, None, 7, -(2**40), 2**3000, 1.5, b"bytes", "text",
    (1, (2, (3,))), [1, [2, [3]]], [1, 2, 3], [300, {}], {Atom("a"): {b"b": [1.5]}}, {(1, "x"): 2},
    Map([(1, 1), (1.0, 2), ([], 3), ({1: 2, 3: 4}, {})]), ImproperList(((1,), [2]), (3,)),
    Pid(AB, 1, 2, 3), Port(AB, 1, 2), Port(AB, 2**60, 2), Reference(AB, 1, (1, 2, 3)),
    BitString(b"\xff\x80", 1), Export(AB, AB, 3), decode(b"\x83" + fun_raw(b"h\x01jj", 2)),
    Record(AB, AB, 1, (AB, Atom("b")), ((1,), [2.5])),
]  # fmt: skip


# A reference that leaks costs at least one block for each run; some noise is the interpreter's own.
LEAK = 0.5


@pytest.fixture(autouse=True)
def _quick_collections() -> Iterator[None]:
    """The heap of the test run itself is looked at no more."""
    gc.freeze()
    yield
    gc.unfreeze()


def leaked_blocks(action: Callable[[], object], times: int = 200) -> float:
    """Blocks of memory more for each run, once the caches are warm."""
    for _ in range(20):
        action()
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(times):
        action()
    gc.collect()
    return (sys.getallocatedblocks() - before) / times


def ignoring_errors(
    function: Callable[..., object], *args: Any, **kwargs: Any
) -> Callable[[], None]:
    def action() -> None:
        with suppress(CodecError, TypeError, ValueError):
            function(*args, **kwargs)

    return action


def test_what_is_decoded_and_encoded_is_freed() -> None:
    for vector in VECTORS:
        data = b"\x83" + vector.wire
        assert leaked_blocks(lambda data=data: decode(data)) < LEAK, vector.name  # type: ignore[misc]
    for term in EVERYTHING:
        for function in (encode, canonical):
            options = {"record_ok": True} if function is encode else {}
            action = lambda t=term, f=function, o=options: f(t, **o)  # noqa: E731
            assert leaked_blocks(action) < LEAK, term


def test_what_is_refused_is_freed() -> None:
    for name, (wire, _) in BROKEN.items():
        assert leaked_blocks(ignoring_errors(decode, b"\x83" + wire)) < LEAK, name
    for term in (
        [1, (2, {3: set()})],
        {"a": 1, b"a": 2},
        {(1, (2,)): 1, Atom("true"): 2, True: 3},
        Map([([], object())]),
        ImproperList((1,), set()),  # type: ignore[arg-type]
        [[[[float("nan")]]]],
        "\ud800",
        [Record(AB, AB, 0, (), ())],
        memoryview(b"abcd")[::2],
    ):
        assert leaked_blocks(ignoring_errors(encode, [term])) < LEAK, term
        assert leaked_blocks(ignoring_errors(canonical, [term])) < LEAK, term


def test_every_way_of_calling_frees_its_arguments() -> None:
    atoms = [Atom("m"), Atom("x")]
    limits = [Limits(depth_max=depth) for depth in (1, 2, 10)]
    fun = fun_raw(b"R\x01" + fun_raw(b"R\x01", 1), 2, module=b"R\x00")
    packed = b"\x83P\0\0\0\x02" + zlib.compress(b"a\x01")
    for action in (
        lambda: decode(b"\x83" + fun, atoms=atoms),
        lambda: decode_bare(bytearray(fun), 0, atoms=tuple(atoms)),
        lambda: decode(packed, allow_compressed=True),
        lambda: [decode(b"\x83a\x01", limits=limit) for limit in limits],
        lambda: decode(memoryview(b"\x83jj")[:2]),
        ignoring_errors(decode, packed[:-1], allow_compressed=True),
        ignoring_errors(decode, b"\x83j", atoms=[1]),
        ignoring_errors(decode, b"\x83j", limits=1),
        ignoring_errors(decode_bare, b"j", 9),
        ignoring_errors(decode, "text"),
        ignoring_errors(Atom, "a" * 256),
        ignoring_errors(Atom, "\ud800"),
        ignoring_errors(Atom, 1),
        lambda: (repr(Atom("x y")), Atom("x") < Atom("y"), Atom("x") == 1, Atom("x").__reduce__()),
    ):
        assert leaked_blocks(action) < LEAK


def test_changed_bytes_are_freed() -> None:
    random.seed(7)
    whole = encode(EVERYTHING, record_ok=True)
    changed = []
    for _ in range(2000):
        data = bytearray(whole)
        for _ in range(random.randint(1, 3)):
            data[random.randrange(len(data))] = random.choice([0, 1, 2, 255, *range(67, 122)])
        changed.append(bytes(data[: random.choice([len(data), random.randrange(len(data))])]))

    def all_of_them() -> None:
        for data in changed:
            ignoring_errors(decode, data)()

    all_of_them()  # atoms that the changes have made are in the table now
    assert leaked_blocks(all_of_them, times=3) < 50


def test_reference_counts_of_singletons_do_not_drift() -> None:
    term = [None, True, False, 7, (), Atom("known"), b"", b"x"]
    data = encode(term)
    watched: list[Any] = [None, True, False, 7, (), Atom("known"), b"", b"x"]
    before = [sys.getrefcount(value) for value in watched]
    for _ in range(10_000):
        decode(data)
        encode(term)
    after = [sys.getrefcount(value) for value in watched]
    assert all(abs(now - then) < 100 for then, now in zip(before, after, strict=True))


def test_a_huge_claim_costs_no_memory() -> None:
    resource = pytest.importorskip("resource")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for opening in (
        b"l\xff\xff\xff\xff",
        b"i\x00\xff\xff\xff",
        b"t\x7f\xff\xff\xff",
        b"m\xff\xff\xff\xff",
    ):
        for _ in range(50):
            with pytest.raises(CodecError):
                decode(b"\x83" + opening + b"j" * 64)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 20_000  # KiB


def test_running_out_of_memory_at_any_step_is_a_memory_error() -> None:
    testcapi = pytest.importorskip("_testcapi", reason="CPython built without its test modules")
    data = encode(EVERYTHING, record_ok=True)
    failures = 0
    actions: list[Callable[[], object]] = [
        lambda: decode(data),
        lambda: encode([EVERYTHING, [1000] * 3000], record_ok=True),
        lambda: canonical(EVERYTHING),
        ignoring_errors(decode, data[:-1]),
        ignoring_errors(encode, {"a": 1, b"a": (2,)}),
    ]
    for action in actions:
        for step in range(150):
            testcapi.set_nomemory(step, step + 1)
            try:
                action()
            except MemoryError:
                failures += 1
            finally:
                testcapi.remove_mem_hooks()
    assert failures > 100
    assert encode(decode(data), record_ok=True) == data

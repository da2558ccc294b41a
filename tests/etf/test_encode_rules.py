"""What is refused when it is sent, what is sent for Python's own types, and canonical bytes."""

import enum
import threading
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from typing import Any

import pytest
from etf_support import both_codecs, exact, fun_raw, outcome

import bridge.etf
from bridge.etf import (
    Atom,
    BitString,
    EncodeError,
    Fun,
    ImproperList,
    Limits,
    Map,
    Pid,
    Port,
    Record,
    Reference,
    _reference,
)

AB = Atom("a@b")


def refused(codec: Any, term: Any, **options: Any) -> tuple[str, object]:
    with pytest.raises(EncodeError) as caught:
        codec.encode(term, **options)
    error = caught.value
    assert error.args == (error.rule, error.value)
    assert error.rule in str(error)
    return error.rule, error.value


@both_codecs
def test_what_has_no_form_on_the_wire_is_refused(codec: Any) -> None:
    class Thing:
        pass

    assert refused(codec, {1, 2}) == ("type", "set")
    assert refused(codec, Thing()) == ("type", "Thing")
    assert refused(codec, [deque()]) == ("type", "deque")
    assert refused(codec, {1: (Atom,)}) == ("type", "type")
    assert refused(codec, 1j) == ("type", "complex")
    assert refused(codec, range(3)) == ("type", "range")
    assert refused(codec, ...) == ("type", "ellipsis")


@both_codecs
def test_numbers_that_erlang_has_not_are_refused(codec: Any) -> None:
    assert refused(codec, float("inf")) == ("float", float("inf"))
    assert refused(codec, [float("-inf")]) == ("float", float("-inf"))
    assert refused(codec, {1: float("nan")})[0] == "float"
    size = 524_280
    assert len(codec.encode(2 ** (8 * size) - 1)) == size + 7
    assert len(codec.encode(1 - 2 ** (8 * size))) == size + 7
    assert refused(codec, 2 ** (8 * size)) == ("integer_size", size + 1)
    assert refused(codec, -(2 ** (8 * size))) == ("integer_size", size + 1)
    assert refused(codec, 2**40, limits=Limits(integer_bytes_max=5)) == ("integer_size", 6)


@both_codecs
def test_text_with_lone_surrogates_is_refused(codec: Any) -> None:
    assert refused(codec, "a\ud800") == ("text", "a\ud800")
    assert refused(codec, {"\udfff": 1}) == ("text", "\udfff")


@both_codecs
def test_memory_that_lies_scattered_is_refused(codec: Any) -> None:
    assert codec.encode(memoryview(b"abc")) == codec.encode(b"abc")
    assert codec.encode(memoryview(b"abcdef")[2:4]) == codec.encode(b"cd")
    assert codec.encode(memoryview(b"abcd").cast("H")) == codec.encode(b"abcd")
    assert refused(codec, memoryview(b"abcdef")[::2]) == ("buffer", "memoryview")


@both_codecs
def test_a_term_that_holds_itself_is_refused(codec: Any) -> None:
    endless: list[Any] = []
    endless.append(endless)
    assert refused(codec, endless) == ("depth", 10_000)
    circle: dict[Any, Any] = {}
    circle[1] = (circle,)
    assert refused(codec, circle) == ("depth", 10_000)


@both_codecs
def test_a_small_object_that_is_a_huge_term_is_refused(codec: Any) -> None:
    term: Any = b""
    for _ in range(64):
        term = (term, term)
    assert refused(codec, term, limits=Limits(terms_max=100_000)) == ("terms", 100_000)


@both_codecs
def test_depth_is_bounded_as_when_decoding(codec: Any) -> None:
    limits = Limits(depth_max=3)
    leaves: list[Any] = [1, [], (), [1, 2], {}]
    for leaf in leaves:
        codec.encode([({1: leaf},)], limits=limits)
        if leaf not in (1, [], (), {}):
            continue
        assert refused(codec, [({1: (leaf,)},)], limits=limits) == ("depth", 3)
    assert refused(
        codec, ImproperList((ImproperList((((),),), 1),), 1), limits=Limits(depth_max=2)
    ) == (
        "depth",
        2,
    )


@both_codecs
def test_terms_are_counted_as_when_decoding(codec: Any) -> None:
    for term, terms in ((1, 1), ((1, 2), 3), ([1, 2], 3), ([1, 256, ()], 4), ({1: 2, 3: 4}, 5)):
        data = codec.encode(term, limits=Limits(terms_max=terms))
        assert exact(codec.decode(data, limits=Limits(terms_max=terms))) == exact(term)
        if terms > 1:
            assert refused(codec, term, limits=Limits(terms_max=terms - 1)) == ("terms", terms - 1)


@both_codecs
def test_keys_that_are_one_term_are_refused(codec: Any) -> None:
    assert refused(codec, {"a": 1, b"a": 2}) == ("duplicate_key", b"a")
    assert refused(codec, {True: 1, Atom("true"): 2}) == ("duplicate_key", True)
    assert refused(codec, {Atom("nil"): 1, None: 2}) == ("duplicate_key", None)
    assert refused(codec, {("a", 1): 1, (b"a", 1): 2}) == ("duplicate_key", (b"a", 1))
    assert refused(codec, [{1: {"a": 1, b"a": 2}}])[0] == "duplicate_key"
    for fine in (
        {"a": 1, b"b": 2},
        {True: 1, False: 2, None: 3},
        {Atom("true"): 1, Atom("false"): 2},
        {("a", 1): 1, ("a", 2): 2},
        {1: 1, 2.0: 2, True - 1: 3},
    ):
        assert len(codec.decode(codec.encode(fine))) == len(fine)


@both_codecs
def test_a_tuple_key_too_deep_for_comparing_is_refused(codec: Any) -> None:
    key: Any = ()
    for _ in range(101):
        key = (key,)
    assert refused(codec, {key: 1, "a": 2}) == ("key_depth", 100)
    assert codec.encode({key: 1})


@both_codecs
def test_records_are_sent_only_where_asked_for(codec: Any) -> None:
    record = Record(AB, AB, 1, (AB,), ((),))
    assert refused(codec, record) == ("record", "Record")
    assert refused(codec, [record]) == ("record", "Record")
    assert codec.decode(codec.encode([record], record_ok=True)) == [record]


FORGED: list[Any] = []
for kind, fields in (
    (Pid, {"node": "a@b"}),
    (Pid, {"id": 2**32}),
    (Pid, {"serial": -1}),
    (Pid, {"creation": 1.0}),
    (Port, {"id": 2**64}),
    (Port, {"node": None}),
    (Reference, {"words": ()}),
    (Reference, {"words": [1]}),
    (Reference, {"words": (2**32,)}),
    (BitString, {"bits": 8}),
    (BitString, {"data": b""}),
    (ImproperList, {"elements": ()}),
    (ImproperList, {"elements": [1]}),
    (Map, {"_index": None}),
    (Fun, {"raw": b""}),
    (Fun, {"raw": b"jjj"}),
    (Fun, {"raw": "p"}),
    (Record, {"fields": (AB, AB)}),
    (Record, {"fields": ("x",)}),
    (Record, {"flags": None}),
    (Record, {"values": [1]}),
):
    good: dict[Any, Any] = {
        Pid: Pid(AB, 1, 2, 3),
        Port: Port(AB, 1, 2),
        Reference: Reference(AB, 1, (2,)),
        BitString: BitString(b"\x80", 1),
        ImproperList: ImproperList((1,), 2),
        Map: Map({1: 2}),
        Fun: bridge.etf.decode(b"\x83" + fun_raw()),
        Record: Record(AB, AB, 1, (AB,), (1,)),
    }
    forged = object.__new__(kind)
    slots: Any = kind.__slots__  # type: ignore[union-attr]
    for slot in slots:
        object.__setattr__(forged, slot, fields.get(slot, getattr(good[kind], slot)))
    FORGED += [forged, object.__new__(kind)]


@both_codecs
@pytest.mark.parametrize("forged", FORGED, ids=lambda forged: type(forged).__name__)
def test_a_term_not_made_by_its_constructor_is_refused(codec: Any, forged: Any) -> None:
    assert refused(codec, (forged,), record_ok=True) == ("field", type(forged).__name__)


@both_codecs
def test_subclasses_are_sent_as_their_base(codec: Any) -> None:
    class Whole(enum.IntEnum):
        SEVEN = 7

    class Word(enum.StrEnum):
        HELLO = "hello"

    class Bytes(bytes):
        pass

    class Float(float):
        pass

    pair = namedtuple("pair", "left right")
    for term, base in (
        (Whole.SEVEN, 7),
        ([Whole.SEVEN], [7]),
        (Word.HELLO, b"hello"),
        (Bytes(b"abc"), b"abc"),
        (Float(1.5), 1.5),
        (pair(1, [2]), (1, [2])),
        (OrderedDict(a=1), {b"a": 1}),
        (Counter(b"a"), {97: 1}),
        (defaultdict(int, {1: 2}), {1: 2}),
        (bytearray(b"abc"), b"abc"),
        ("grün", "grün".encode()),
    ):
        assert codec.encode(term) == codec.encode(base)


@both_codecs
def test_lists_of_bytes_become_strings_where_a_beam_makes_them(codec: Any) -> None:
    assert codec.encode([0, 255]) == b"\x83k\0\x02\0\xff"
    assert codec.encode([0, 256])[1:2] == b"l"
    assert codec.encode([1, -1])[1:2] == b"l"
    assert codec.encode([1, 2**70])[1:2] == b"l"
    assert codec.encode([1, True])[1:2] == b"l"
    assert codec.encode([1, 1.0])[1:2] == b"l"
    assert codec.encode([9] * 65535) == b"\x83k\xff\xff" + b"\x09" * 65535
    assert codec.encode([9] * 65536) == b"\x83l\0\1\0\0" + b"a\x09" * 65536 + b"j"
    assert codec.encode(ImproperList((1, 2), 3)) == b"\x83l\0\0\0\x02a\x01a\x02a\x03"


@both_codecs
def test_tuples_have_two_forms(codec: Any) -> None:
    assert codec.encode((0,) * 255) == b"\x83h\xff" + b"a\0" * 255
    assert codec.encode((0,) * 256) == b"\x83i\0\0\1\0" + b"a\0" * 256


def test_a_tuple_above_the_limit_of_erts_is_refused() -> None:
    limits = Limits(terms_max=2**31)
    assert refused(bridge.etf, (1,) * 2**24, limits=limits) == ("size", 2**24)
    assert len(bridge.etf.encode((1,) * (2**24 - 1), limits=limits)) == 6 + 2 * (2**24 - 1)


@both_codecs
def test_canonical_bytes_are_the_same_for_the_same_term_only(codec: Any) -> None:
    same: list[tuple[Any, Any]] = [
        ({1: 2, 3: 4}, {3: 4, 1: 2}),
        ({"a": {1: 2, 3: 4}, "b": 1}, {b"b": 1, b"a": Map([(3, 4), (1, 2)])}),
        (Port(AB, 1, 2), codec.decode(b"\x83x\x77\x03a@b" + (1).to_bytes(8) + (2).to_bytes(4))),
        ("ab", b"ab"),
        (True, Atom("true")),
    ]
    for left, right in same:
        assert codec.canonical(left) == codec.canonical(right)
    different: list[Any] = [0, 0.0, -0.0, False, [], (), b"", Atom(""), {}, 1, 1.0, True, [1], (1,)]
    different += [{1: 2}, {2: 1}, {1.0: 2}, [{}], [[]], None, Atom("undefined")]
    assert len(set(map(codec.canonical, different))) == len(different)


@both_codecs
def test_canonical_bytes_of_maps_in_maps(codec: Any) -> None:
    entries: list[tuple[Any, Any]] = [
        (number % 7 * 1000 + number, {b"x": number, b"a": 1}) for number in range(50)
    ]
    forward = Map([(Map(entries), 1), ({1: 2}, 2), ([], {})])
    backward = Map([([], {}), ({1: 2}, 2), (Map(entries[::-1]), 1)])
    assert codec.canonical(forward) == codec.canonical(backward)
    assert outcome(codec.canonical, {"a": 1, b"a": 2})[1] == ("str", "duplicate_key")  # type: ignore[index]


def test_lists_and_dicts_that_change_meanwhile_break_nothing() -> None:
    stop = threading.Event()
    numbers: list[Any] = [(), 1] * 500
    table: dict[Any, Any] = {(key,): [key] for key in range(500)}

    def change() -> None:
        while not stop.is_set():
            numbers.append(((),))
            table[len(numbers), ()] = {"a": ()}
            if len(numbers) > 1200:
                del numbers[:300]
                table.clear()

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(300):
            try:
                bridge.etf.decode(bridge.etf.encode([numbers, table, numbers]))
            except EncodeError as error:
                assert error.rule == "changed"  # noqa: PT017 - either outcome is right
    finally:
        stop.set()
        thread.join()


def test_both_codecs_refuse_wrong_arguments() -> None:
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]]
    calls = [((), {}), ((1, 2), {}), ((1,), {"other": 1}), ((1,), {"term": 1})]
    functions: list[Any] = [bridge.etf.encode, bridge.etf.encode_bare, _reference.encode]
    for arguments, options in calls:
        for function in functions:
            with pytest.raises(TypeError):
                function(*arguments, **options)
    calls = [
        ((), {}),
        ((b"", 0, 1), {}),
        (("text",), {}),
        ((b"\x83j",), {"atoms": [1]}),
        ((b"\x83j",), {"atoms": 1}),
        ((b"\x83j", 0), {"offset": 0}),
    ]
    for arguments, options in calls:
        with pytest.raises(TypeError):
            bridge.etf.decode_bare(*arguments, **options)


@both_codecs
def test_canonical_bytes_are_bounded_in_depth(codec: Any) -> None:
    term: Any = ()
    for _ in range(100):
        term = {1: term, 0: ()}
    assert codec.canonical(term)
    assert outcome(codec.canonical, (term,)) == outcome(_reference.canonical, (term,))
    assert outcome(codec.canonical, (term,))[1:] == (("str", "key_depth"), ("int", 100))  # type: ignore[index]
    assert codec.canonical((term,), limits=Limits(key_depth_max=101))


def test_a_map_finds_keys_that_were_let_in_by_wider_limits() -> None:
    wide = Limits(key_depth_max=300, integer_bytes_max=2**20)
    key: Any = [2 ** (8 * 600_000)]
    for _ in range(250):
        key = [key]
    data = b"\x83t\0\0\0\1" + bridge.etf.encode_bare(key, limits=wide) + b"j"
    found = bridge.etf.decode(data, limits=wide)
    assert isinstance(found, Map)
    assert key in found
    assert found[key] == []
    assert found == Map([(key, [])])

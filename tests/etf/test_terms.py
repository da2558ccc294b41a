"""The term types: what is equal to what, what is refused, what is shown (docs/terms.md)."""

import copy
import dataclasses
import gc
import pickle
import sys
from enum import StrEnum
from typing import Any

import pytest
from etf_support import fun_raw, terms, unhurried
from hypothesis import given

from bridge.etf import (
    DEFAULT_LIMITS,
    Atom,
    BitString,
    EncodeError,
    Export,
    Fun,
    ImproperList,
    Limits,
    Map,
    Pid,
    Port,
    Record,
    Reference,
    brief,
    canonical,
    charlist,
    decode,
    encode,
)

AB = Atom("a@b")
PID = Pid(AB, 1, 2, 3)


# ---- atoms


def test_an_atom_is_equal_to_atoms_of_its_text_only() -> None:
    assert Atom("ok") == Atom("ok")
    assert Atom("ok") != Atom("error")
    for other in ("ok", b"ok", ["ok"], None, 0, Atom):
        assert Atom("ok") != other
    assert not isinstance(Atom("ok"), str)
    true: object = Atom("true")
    assert true is not True
    assert Atom("true") != True  # noqa: E712 - that is the question
    assert {Atom("ok"): 1, "ok": 2} == {"ok": 2, Atom("ok"): 1}
    assert len({Atom("ok"), "ok", Atom("ok")}) == 2


def test_atoms_driven_out_of_the_table_are_still_equal() -> None:
    kept = [Atom(f"kept {number}") for number in range(4000)]
    assert kept == [Atom(f"kept {number}") for number in range(4000)]
    assert list(map(hash, kept)) == [hash(Atom(f"kept {number}")) for number in range(4000)]
    assert {atom: number for number, atom in enumerate(kept)}[Atom("kept 7")] == 7


def test_atoms_are_forgotten() -> None:
    for number in range(20_000):
        Atom(f"some atom {number}")
    gc.collect()
    before = sys.getallocatedblocks()
    for number in range(20_000, 200_000):
        Atom(f"some atom {number}")
    assert sys.getallocatedblocks() - before < 1000


def test_atoms_are_ordered_by_their_text() -> None:
    names = ["b", "a", "", "ab", "é", "\U0001f30d", "\uffff", "Z"]
    assert [atom.name for atom in sorted(map(Atom, names))] == sorted(names)
    assert Atom("a") <= Atom("a") < Atom("b") > Atom("a") >= Atom("a")
    with pytest.raises(TypeError):
        Atom("a") < "b"  # type: ignore[operator]  # noqa: B015


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ok", ":ok"),
        ("valid?", ":valid?"),
        ("nonode@nohost", ":nonode@nohost"),
        ("Elixir.Ringbridge.JobDispatcher", "Ringbridge.JobDispatcher"),
        ("Elixir", ':"Elixir"'),
        ("Elixir.lower", ':"Elixir.lower"'),
        ("with blank", ':"with blank"'),
        ("", ':""'),
        ("quote\"s'", ':"quote\\"s\'"'),
        ("line\nbreak\x00", ':"line\\nbreak\\x00"'),
        ("ok\n", ':"ok\\n"'),
        ("ünïcode", ':"ünïcode"'),
    ],
)
def test_an_atom_is_shown_as_elixir_shows_it(text: str, shown: str) -> None:
    assert repr(Atom(text)) == shown
    assert str(Atom(text)) == f"{Atom(text)}" == Atom(text).name == text


def test_what_is_no_atom_is_refused() -> None:
    assert Atom("é" * 255).name == "é" * 255
    with pytest.raises(ValueError, match="255"):
        Atom("a" * 256)
    with pytest.raises(ValueError, match="surrogates"):
        Atom("\ud800")
    for arguments in ((), (b"ok",), (1,), ("a", "b"), (Atom("a"),)):
        with pytest.raises(TypeError):
            Atom(*arguments)
    with pytest.raises(TypeError):
        Atom(name="ok")  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        type("Sub", (Atom,), {})
    for change in (setattr, lambda atom, name, _: delattr(atom, name)):
        with pytest.raises(AttributeError):
            change(Atom("ok"), "name", "other")


def test_a_member_of_a_str_enum_gives_a_plain_atom() -> None:
    class Word(StrEnum):
        HELLO = "hello from an enum"

    atom = Atom(Word.HELLO)
    assert type(atom.name) is str
    assert encode(atom) == encode(Atom("hello from an enum"))


def test_atoms_match_by_their_text() -> None:
    match (Atom("submit"), b"role"):
        case (Atom("submit"), bytes() as role):
            assert role == b"role"
        case _:
            pytest.fail("no match")


# ---- pids and the others


def test_identifiers_are_compared_by_all_their_parts() -> None:
    for one in (PID, Port(AB, 1, 2), Reference(AB, 1, (1, 2, 3)), Export(AB, AB, 1)):
        for field in dataclasses.fields(one):
            old = getattr(one, field.name)
            new: Any = (*old, 1) if type(old) is tuple else Atom("x") if old is AB else old + 1
            other = dataclasses.replace(one, **{field.name: new})
            assert one != other
            assert hash(one) != hash(other)
            assert dataclasses.replace(other, **{field.name: old}) == one
    assert Port(AB, 1, 2) != Pid(AB, 1, 0, 2)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Pid("a@b", 1, 2, 3),  # type: ignore[arg-type]
        lambda: Pid(AB, -1, 2, 3),
        lambda: Pid(AB, 2**32, 2, 3),
        lambda: Pid(AB, 1, 2, True),
        lambda: Pid(AB, 1, 2, 10**5000),
        lambda: Port(AB, 2**64, 0),
        lambda: Reference(AB, 0, ()),
        lambda: Reference(AB, 0, (1,) * 6),
        lambda: Reference(AB, 0, [1]),  # type: ignore[arg-type]
        lambda: Reference(AB, 0, (2**32,)),
        lambda: Export(AB, AB, 256),
        lambda: ImproperList((), 1),
        lambda: ImproperList((1,), []),
        lambda: ImproperList((1,), ImproperList((2,), 3)),
        lambda: ImproperList([1], 2),  # type: ignore[arg-type]
        lambda: BitString(b"", 1),
        lambda: BitString(b"\xff", 8),
        lambda: BitString(b"\xff", 0),
        lambda: BitString(b"\xff", 7),
        lambda: Record(AB, AB, 0, (AB,), ()),
        lambda: Record(AB, AB, 0, ("a",), (1,)),  # type: ignore[arg-type]
        lambda: Record(AB, AB, 256, (), ()),
        lambda: Limits(depth_max=0),
        lambda: Limits(terms_max=2**32),
    ],
)
def test_a_term_that_cannot_be_is_refused_when_it_is_made(make: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        make()


def test_terms_are_immutable() -> None:
    for term in (PID, ImproperList((1,), 2), Map({1: 2}), BitString(b"\x80", 1)):
        slots: Any = type(term).__slots__  # type: ignore[union-attr]
        for name in (slots[0], "other"):
            # TypeError: of dataclasses with slots in CPython 3.11, for names that are no field
            with pytest.raises((AttributeError, TypeError)):
                setattr(term, name, 1)
            with pytest.raises((AttributeError, TypeError)):
                delattr(term, name)


def test_terms_are_shown_in_a_line() -> None:
    assert repr(PID) == "#PID<a@b.1.2 creation 3>"
    assert repr(Port(AB, 7, 3)) == "#Port<a@b.7 creation 3>"
    assert repr(Reference(AB, 9, (1, 2, 3))) == "#Reference<a@b.1.2.3 creation 9>"
    assert repr(ImproperList((1, 2), 3)) == "[1, 2 | 3]"
    assert repr(BitString(b"\xff\xa0", 3)) == "<<255, 5::3>>"
    assert repr(BitString(bytes(40) + b"\x80", 1)).endswith("... 24 bytes ..., 1::1>>")
    assert repr(Export(Atom("lists"), Atom("map"), 2)) == "&:lists.map/2"
    assert repr(Map([(1, 2), (1.0, [])])) == "%{1 => 2, 1.0 => []}"
    assert repr(decode(b"\x83" + fun_raw())) == "#Function<7.66051/2 in m>"
    assert repr(Record(Atom("m"), Atom("r"), 1, (Atom("a"),), (1,))) == "#m:r{a: 1}"


def test_what_is_shown_of_a_large_term_is_short() -> None:
    huge = [10**5000, b"x" * 10**6, "y" * 10**6, *range(1000)]
    shapes: list[Any] = [huge, tuple(huge), dict.fromkeys(range(100), huge), Map({1: huge})]
    shapes += [ImproperList(tuple(huge), 10**5000), Map({(key, ""): 10**5000 for key in range(99)})]
    shapes += [Record(AB, AB, 0, (AB,) * 100, (huge,) * 100)]
    tree: Any = b"x" * 64
    for _ in range(4):
        tree = [tree] * 8
    shapes.append(tree)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for shape in (*shapes, deep, EncodeError("type", huge), Map({1: deep})):
        assert len(brief(shape)) < 5000
        if not isinstance(shape, list | tuple | dict):
            assert len(str(shape)) < 5000
    while deep:  # CPython's own trashcan takes care of this too; be quick
        deep = deep[0]


@unhurried
@given(term=terms)
def test_terms_can_be_copied_and_pickled(term: Any) -> None:
    assert canonical(copy.deepcopy(term)) == canonical(term)
    copied = pickle.loads(pickle.dumps(term))  # noqa: S301 - our own bytes
    assert canonical(copied) == canonical(term)


def test_a_charlist_is_a_list_of_code_points() -> None:
    assert charlist("ab\u20ac") == [97, 98, 0x20AC]
    assert encode(charlist("ab")) == b"\x83k\x00\x02ab"


def test_the_limits_of_c_are_those_of_python() -> None:
    at_most = b"\x83" + b"h\x01" * DEFAULT_LIMITS.depth_max
    assert encode(decode(at_most + b"j", limits=DEFAULT_LIMITS)) == at_most + b"j"
    for limits in (None, DEFAULT_LIMITS):
        for wire, rule in (
            (at_most + b"h\x01j", "depth"),
            (b"\x83l" + (10**7).to_bytes(4) + b"j" * (10**7 + 1), "terms"),
            (b"\x83o" + (524_281).to_bytes(4) + bytes(524_282), "integer_size"),
        ):
            with pytest.raises(ValueError, match=f"rule {rule}"):
                decode(wire, limits=limits)
    wrong_ones: list[Any] = [1, {}, Limits]
    for wrong in wrong_ones:
        with pytest.raises(TypeError):
            decode(b"\x83j", limits=wrong)


# ---- maps


def test_a_map_tells_apart_what_erlang_tells_apart() -> None:
    map_ = Map([(1, "one"), (1.0, "float"), (True, "true"), (0.0, "zero"), (-0.0, "minus zero")])
    assert len(map_) == 5
    assert [map_[key] for key in (1, 1.0, True, 0.0, -0.0)] == [
        "one", "float", "true", "zero", "minus zero",
    ]  # fmt: skip
    assert (1,) not in map_
    assert 0 not in map_
    nested: Any = Map([((1,), 1), ((1.0,), 2), ([1], 3), ([1.0], 4), ({1: 1}, 5), ({1: True}, 6)])
    assert [nested[key] for key in ((1,), (1.0,), [1], [1.0], {1: 1}, {1: True})] == [
        1,
        2,
        3,
        4,
        5,
        6,
    ]


def test_a_map_finds_the_same_term_in_another_form() -> None:
    map_: Any = Map({"text": 1, Atom("true"): 2, (b"a", "b"): 3, (): 4})
    assert map_[b"text"] == map_["text"] == map_[bytearray(b"text")] == 1
    assert map_[True] == map_[Atom("true")] == 2
    assert map_["a", b"b"] == 3
    assert Map([([97], 1)])[[97]] == 1
    assert Map([(Map([(1, 2), (3, 4)]), 1)])[{3: 4, 1: 2}] == 1


def test_a_map_behaves_as_a_mapping() -> None:
    map_ = Map([([], 1), (2, [3])])
    assert list(map_) == list(map_.keys()) == [[], 2]
    assert list(map_.values()) == [1, [3]]
    assert list(map_.items()) == [([], 1), (2, [3])]
    assert len(map_) == 2
    assert map_.get([]) == 1
    assert map_.get(7) is None
    assert map_.get(7, "none") == "none"
    assert [] in map_
    assert set not in map_
    assert object() not in map_
    with pytest.raises(KeyError):
        map_[7]
    assert not Map()
    assert Map([(1, 2), (1, 3)]) == {1: 3}
    assert Map(map_) == map_


def test_maps_are_equal_when_their_terms_are() -> None:
    assert Map([(1, [2]), ([], 3)]) == Map([([], 3), (1, [2])])
    assert hash(Map([(1, [2]), ([], 3)])) == hash(Map([([], 3), (1, [2])]))
    assert Map({1: 2}) == {1: 2} == Map({1: 2})
    for other in ({1: 2.0}, {1.0: 2}, {True: 2}, {1: 2, 2: 2}, {}, [(1, 2)], None):
        assert Map({1: 2}) != other
    assert {Map({1: 2}): "found"}[Map([(1, 2)])] == "found"
    assert Map({1: b"a"}) == Map({1: "a"})


def test_a_key_that_is_no_term_is_refused() -> None:
    for key in (set, object(), float("nan"), "\ud800"):
        with pytest.raises(EncodeError):
            Map([(key, 1)])


def test_a_dict_is_what_a_map_decodes_to_wherever_it_will_do() -> None:
    def decoded(pairs: list[tuple[Any, Any]]) -> type:
        return type(decode(encode(Map(pairs))))

    assert decoded([(1, 1), (2.0, 1), (False, 1), (None, 1), (Atom("a"), 1), (b"a", 1)]) is dict
    assert decoded([((1, (2.0, b"")), 1), (PID, 1), (BitString(b"\x80", 1), 1)]) is dict
    assert decoded([(decode(b"\x83" + fun_raw()), 1), (Export(AB, AB, 1), 1)]) is dict
    assert decoded([(1, 1), (1.0, 1)]) is Map
    assert decoded([(0, 1), (False, 1)]) is Map
    assert decoded([(0.0, 1), (-0.0, 1)]) is Map
    assert decoded([((1,), 1), ((True,), 1)]) is Map
    assert decoded([([], 1)]) is Map
    assert decoded([({}, 1)]) is Map
    assert decoded([((1, ([],)), 1)]) is Map
    assert decoded([(ImproperList((1,), 2), 1)]) is Map
    assert type(decode(encode(Map([(Record(AB, AB, 0, (), ()), 1)]), record_ok=True))) is Map


def test_a_fun_is_known_by_its_bytes() -> None:
    one, other = (decode(b"\x83" + fun_raw(free, 1)) for free in (b"a\x01", b"a\x02"))
    assert isinstance(one, Fun)
    assert one != other
    assert one == decode(encode(one))

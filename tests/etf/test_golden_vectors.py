"""Every tag of the external term format: bytes, what they decode to, and what that is sent as.

The bytes were written by hand from the OTP documentation, "External Term Format"; OTP 29's records
after what such a node sends. test_against_beam.py shows to a BEAM the ones that it knows.
"""

import math
from typing import Any, NamedTuple

import pytest
from etf_support import both_codecs, exact, fun_raw

from bridge.etf import (
    Atom,
    BitString,
    Export,
    ImproperList,
    Map,
    Pid,
    Port,
    Record,
    Reference,
    Term,
    decode,
)

NODE = b"w\x03a@b"
AB = Atom("a@b")


class Vector(NamedTuple):
    name: str
    wire: bytes
    term: Any
    sent: bytes | None = None  # when it is not sent as it came


VECTORS = [
    Vector("SMALL_INTEGER_EXT", b"a\xff", 255),
    Vector("SMALL_INTEGER_EXT zero", b"a\x00", 0),
    Vector("INTEGER_EXT", b"b\x00\x00\x01\x00", 256),
    Vector("INTEGER_EXT negative", b"b\xff\xff\xff\xff", -1),
    Vector("INTEGER_EXT least", b"b\x80\x00\x00\x00", -(2**31)),
    Vector("INTEGER_EXT not minimal", b"b\x00\x00\x00\x07", 7, b"a\x07"),
    Vector("SMALL_BIG_EXT", b"n\x04\x00\x00\x00\x00\x80", 2**31),
    Vector("SMALL_BIG_EXT negative", b"n\x04\x01\x01\x00\x00\x80", -(2**31) - 1),
    Vector("SMALL_BIG_EXT 64 bits", b"n\x08\x01" + b"\x00" * 7 + b"\x80", -(2**63)),
    Vector("SMALL_BIG_EXT -2**64+1", b"n\x08\x01" + b"\xff" * 8, 1 - 2**64),
    Vector("SMALL_BIG_EXT 65 bits", b"n\x09\x00" + b"\x00" * 8 + b"\x01", 2**64),
    Vector("SMALL_BIG_EXT -2**64", b"n\x09\x01" + b"\x00" * 8 + b"\x01", -(2**64)),
    Vector("SMALL_BIG_EXT empty", b"n\x00\x00", 0, b"a\x00"),
    Vector(
        "SMALL_BIG_EXT leading zeros", b"n\x05\x07\x01\x02\x00\x00\x00", -513, b"b\xff\xff\xfd\xff"
    ),
    Vector("SMALL_BIG_EXT longest", b"n\xff\x00" + b"\x01" * 255, int.from_bytes(b"\x01" * 255)),
    Vector("LARGE_BIG_EXT", b"o\x00\x00\x01\x00\x01" + b"\xff" * 256, 1 - 2**2048),
    Vector("LARGE_BIG_EXT short", b"o\x00\x00\x00\x01\x00\x05", 5, b"a\x05"),
    Vector("NEW_FLOAT_EXT", b"F\x3f\xf8\x00\x00\x00\x00\x00\x00", 1.5),
    Vector("NEW_FLOAT_EXT -0.0", b"F\x80\x00\x00\x00\x00\x00\x00\x00", -0.0),
    Vector("NEW_FLOAT_EXT least", b"F\x00\x00\x00\x00\x00\x00\x00\x01", 5e-324),
    Vector(
        "FLOAT_EXT",
        b"c1.50000000000000000000e+00\0\0\0\0\0",
        1.5,
        b"F\x3f\xf8\x00\x00\x00\x00\x00\x00",
    ),
    Vector(
        "FLOAT_EXT negative",
        b"c-2.50000000000000000000e-01\0\0\0\0",
        -0.25,
        b"F\xbf\xd0\x00\x00\x00\x00\x00\x00",
    ),
    Vector("SMALL_ATOM_UTF8_EXT", b"w\x02ok", Atom("ok")),
    Vector("SMALL_ATOM_UTF8_EXT empty", b"w\x00", Atom("")),
    Vector("SMALL_ATOM_UTF8_EXT not ASCII", b"w\x05gr\xc3\xbcn", Atom("grün")),
    Vector("SMALL_ATOM_UTF8_EXT true", b"w\x04true", True),
    Vector("SMALL_ATOM_UTF8_EXT false", b"w\x05false", False),
    Vector("SMALL_ATOM_UTF8_EXT nil", b"w\x03nil", None),
    Vector("SMALL_ATOM_UTF8_EXT undefined", b"w\x09undefined", Atom("undefined")),
    Vector("ATOM_UTF8_EXT", b"v\x01\x00" + "é".encode() * 128, Atom("é" * 128)),
    Vector("ATOM_UTF8_EXT longest", b"v\x03\xfc" + "🌍".encode() * 255, Atom("🌍" * 255)),
    Vector("ATOM_UTF8_EXT short", b"v\x00\x02ok", Atom("ok"), b"w\x02ok"),
    Vector("ATOM_EXT", b"d\x00\x02ok", Atom("ok"), b"w\x02ok"),
    Vector("ATOM_EXT Latin-1", b"d\x00\x01\xfc", Atom("ü"), b"w\x02\xc3\xbc"),
    Vector("SMALL_ATOM_EXT", b"s\x02ok", Atom("ok"), b"w\x02ok"),
    Vector("SMALL_ATOM_EXT Latin-1", b"s\x01\xfc", Atom("ü"), b"w\x02\xc3\xbc"),
    Vector("SMALL_ATOM_EXT nil", b"s\x03nil", None, b"w\x03nil"),
    Vector("BINARY_EXT", b"m\x00\x00\x00\x03abc", b"abc"),
    Vector("BINARY_EXT empty", b"m\x00\x00\x00\x00", b""),
    Vector("BIT_BINARY_EXT", b"M\x00\x00\x00\x02\x03\xff\xa0", BitString(b"\xff\xa0", 3)),
    Vector(
        "BIT_BINARY_EXT with noise below its bits",
        b"M\x00\x00\x00\x01\x03\xbf",
        BitString(b"\xa0", 3),
        b"M\x00\x00\x00\x01\x03\xa0",
    ),
    Vector("BIT_BINARY_EXT whole", b"M\x00\x00\x00\x01\x08\xff", b"\xff", b"m\x00\x00\x00\x01\xff"),
    Vector("SMALL_TUPLE_EXT", b"h\x02a\x01a\x02", (1, 2)),
    Vector("SMALL_TUPLE_EXT empty", b"h\x00", ()),
    Vector("LARGE_TUPLE_EXT", b"i\x00\x00\x01\x00" + b"j" * 256, ([],) * 256),
    Vector("LARGE_TUPLE_EXT short", b"i\x00\x00\x00\x01j", ([],), b"h\x01j"),
    Vector("NIL_EXT", b"j", []),
    Vector("STRING_EXT", b"k\x00\x03abc", [97, 98, 99]),
    Vector("STRING_EXT empty", b"k\x00\x00", [], b"j"),
    Vector("LIST_EXT", b"l\x00\x00\x00\x02a\x01jj", [1, []]),
    Vector("LIST_EXT above bytes", b"l\x00\x00\x00\x01b\x00\x00\x01\x00j", [256]),
    Vector("LIST_EXT of bytes", b"l\x00\x00\x00\x02a\x01a\x02j", [1, 2], b"k\x00\x02\x01\x02"),
    Vector("LIST_EXT improper", b"l\x00\x00\x00\x01a\x01a\x02", ImproperList((1,), 2)),
    Vector("LIST_EXT of nothing with a tail", b"l\x00\x00\x00\x00a\x07", 7, b"a\x07"),
    Vector("LIST_EXT of nothing", b"l\x00\x00\x00\x00j", [], b"j"),
    Vector(
        "LIST_EXT header by header, as ei writes",
        b"l\x00\x00\x00\x01a\x01l\x00\x00\x00\x01a\x02j",
        [1, 2],
        b"k\x00\x02\x01\x02",
    ),
    Vector(
        "LIST_EXT that goes on as a string",
        b"l\x00\x00\x00\x01jk\x00\x02\x05\x06",
        [[], 5, 6],
        b"l\x00\x00\x00\x03ja\x05a\x06j",
    ),
    Vector(
        "LIST_EXT that goes on and ends improper",
        b"l\x00\x00\x00\x01jl\x00\x00\x00\x00l\x00\x00\x00\x01ja\x07",
        ImproperList(([], []), 7),
        b"l\x00\x00\x00\x02jja\x07",
    ),
    Vector("MAP_EXT", b"t\x00\x00\x00\x01w\x01aa\x01", {Atom("a"): 1}),
    Vector("MAP_EXT empty", b"t\x00\x00\x00\x00", {}),
    Vector(
        "MAP_EXT with keys that Python takes for one",
        b"t\x00\x00\x00\x03a\x01jF\x3f\xf0\x00\x00\x00\x00\x00\x00jw\x04truej",
        Map([(1, []), (1.0, []), (True, [])]),
    ),
    Vector("MAP_EXT with a list as a key", b"t\x00\x00\x00\x01jj", Map([([], [])])),
    Vector("NEW_PID_EXT", b"X" + NODE + b"\0\0\0\x01\0\0\0\x02\0\0\0\x03", Pid(AB, 1, 2, 3)),
    Vector(
        "PID_EXT",
        b"gd\x00\x03a@b\0\0\0\x01\0\0\0\x02\x03",
        Pid(AB, 1, 2, 3),
        b"X" + NODE + b"\0\0\0\x01\0\0\0\x02\0\0\0\x03",
    ),
    Vector("NEW_PORT_EXT", b"Y" + NODE + b"\x0f\xff\xff\xff\0\0\0\x03", Port(AB, 2**28 - 1, 3)),
    Vector("V4_PORT_EXT", b"x" + NODE + b"\0\0\0\0\x10\0\0\0\0\0\0\x03", Port(AB, 2**28, 3)),
    Vector(
        "V4_PORT_EXT small",
        b"x" + NODE + b"\0\0\0\0\0\0\0\x01\0\0\0\x03",
        Port(AB, 1, 3),
        b"Y" + NODE + b"\0\0\0\x01\0\0\0\x03",
    ),
    Vector(
        "PORT_EXT",
        b"f" + NODE + b"\0\0\0\x01\x02",
        Port(AB, 1, 2),
        b"Y" + NODE + b"\0\0\0\x01\0\0\0\x02",
    ),
    Vector(
        "NEWER_REFERENCE_EXT",
        b"Z\x00\x03" + NODE + b"\0\0\0\x07\0\0\0\x01\0\0\0\x02\0\0\0\x03",
        Reference(AB, 7, (1, 2, 3)),
    ),
    Vector(
        "NEWER_REFERENCE_EXT of five",
        b"Z\x00\x05" + NODE + b"\0\0\0\x07" + b"\xff" * 20,
        Reference(AB, 7, (2**32 - 1,) * 5),
    ),
    Vector(
        "NEW_REFERENCE_EXT",
        b"r\x00\x02" + NODE + b"\x03\0\0\0\x01\0\0\0\x02",
        Reference(AB, 3, (1, 2)),
        b"Z\x00\x02" + NODE + b"\0\0\0\x03\0\0\0\x01\0\0\0\x02",
    ),
    Vector(
        "REFERENCE_EXT",
        b"e" + NODE + b"\0\0\0\x09\x01",
        Reference(AB, 1, (9,)),
        b"Z\x00\x01" + NODE + b"\0\0\0\x01\0\0\0\x09",
    ),
    Vector("EXPORT_EXT", b"qw\x05listsw\x03mapa\x02", Export(Atom("lists"), Atom("map"), 2)),
    Vector(
        "EXPORT_EXT nil:true/0", b"qw\x03nilw\x04truea\x00", Export(Atom("nil"), Atom("true"), 0)
    ),
    Vector(
        "RECORD_EXT",
        b"C\0\0\0\x02\x01w\x01mw\x01rw\x01aw\x03nila\x01h\x01j",
        Record(Atom("m"), Atom("r"), 1, (Atom("a"), Atom("nil")), (1, ([],))),
    ),
    Vector("RECORD_EXT empty", b"C\0\0\0\0\0w\x01mw\x01r", Record(Atom("m"), Atom("r"), 0, (), ())),
]

every_vector = pytest.mark.parametrize("vector", VECTORS, ids=[vector.name for vector in VECTORS])


@both_codecs
@every_vector
def test_a_tag_decodes_to_its_term(codec: Any, vector: Vector) -> None:
    term = codec.decode(b"\x83" + vector.wire)
    assert exact(term) == exact(vector.term)
    if isinstance(term, float):
        assert math.copysign(1, term) == math.copysign(1, vector.term)


@both_codecs
@every_vector
def test_a_term_is_sent_in_its_form(codec: Any, vector: Vector) -> None:
    sent = vector.wire if vector.sent is None else vector.sent
    assert codec.encode(vector.term, record_ok=True) == b"\x83" + sent


@both_codecs
@every_vector
def test_a_bare_term_ends_where_its_bytes_end(codec: Any, vector: Vector) -> None:
    term, end = codec.decode_bare(b"..." + vector.wire + b"a\x01", 3)
    assert exact(term) == exact(vector.term)
    assert end == 3 + len(vector.wire)


@both_codecs
@every_vector
def test_a_tag_decodes_the_same_among_others(codec: Any, vector: Vector) -> None:
    wire = b"\x83h\x03" + vector.wire + b"l\0\0\0\x02" + vector.wire * 2 + b"jt\0\0\0\x01j"
    term = codec.decode(wire + vector.wire)
    value: Term = vector.term
    assert exact(term) == exact((value, [value, value], Map([([], value)])))


@both_codecs
@pytest.mark.parametrize(
    ("wire", "free"),
    [
        (fun_raw(), 0),
        (fun_raw(b"a\x01l\0\0\0\x02a\x02jj", 2), 2),
        (fun_raw(b"h\x02" + fun_raw(b"a\x01", 1) + b"j", 1), 1),
    ],
    ids=["no free variables", "two", "a fun inside"],
)
def test_new_fun_ext_is_echoed_byte_for_byte(codec: Any, wire: bytes, free: int) -> None:
    fun, end = codec.decode_bare(wire + b"j")
    assert end == len(wire)
    assert (fun.module, fun.arity, fun.uniq) == (Atom("m"), 2, bytes(range(16)))
    assert (fun.index, fun.old_index, fun.old_uniq) == (7, 7, 0x010203)
    assert fun.pid == Pid(AB, 1, 2, 3)
    assert codec.encode_bare(fun) == wire
    assert codec.encode_bare([fun, fun]) == b"l\0\0\0\x02" + wire * 2 + b"j"


@both_codecs
def test_the_size_of_a_fun_is_echoed_but_not_believed(codec: Any) -> None:
    wire = b"p" + b"\xff\xff\xff\xff" + fun_raw(b"a\x01", 1)[5:]
    fun, end = codec.decode_bare(wire)
    assert end == len(wire)
    assert codec.encode_bare(fun) == wire


@both_codecs
def test_atom_cache_refs_count_into_the_table(codec: Any) -> None:
    table = [Atom("ok"), Atom("true"), Atom("a@b")]
    wire = b"h\x04R\x00R\x01XR\x02\0\0\0\x01\0\0\0\x02\0\0\0\x03qR\x01R\x00a\x01"
    expected = (Atom("ok"), True, Pid(AB, 1, 2, 3), Export(Atom("true"), Atom("ok"), 1))
    assert exact(codec.decode(b"\x83" + wire, atoms=table)) == exact(expected)
    term, end = codec.decode_bare(wire, atoms=tuple(table))
    assert exact(term) == exact(expected)
    assert end == len(wire)


@both_codecs
def test_a_fun_behind_an_atom_table_is_written_anew_without_references(codec: Any) -> None:
    table = [Atom("m"), Atom("x")]
    inner = fun_raw(b"R\x01", 1)
    wire = fun_raw(b"R\x01" + inner + b"t\0\0\0\x01R\x00j", 3, module=b"R\x00")
    fun, end = codec.decode_bare(wire, atoms=table)
    assert end == len(wire)
    sent = fun_raw(b"w\x01x" + fun_raw(b"w\x01x", 1) + b"t\0\0\0\x01w\x01mj", 3)
    assert codec.encode_bare(fun) == sent
    assert decode(b"\x83" + sent) == fun


@both_codecs
def test_a_fun_without_references_keeps_its_bytes_behind_an_atom_table(codec: Any) -> None:
    wire = b"h\x02R\x00" + b"p" + b"\xff\xff\xff\xff" + fun_raw()[5:]
    (_, fun), _ = codec.decode_bare(wire, atoms=[Atom("m")])
    assert codec.encode_bare(fun) == wire[4:]

"""What is refused when it is received: each rule of docs/terms.md, with its offset and value."""

import re
import zlib
from pathlib import Path
from typing import Any

import pytest
from etf_support import both_codecs, exact, fun_raw, outcome

import bridge.etf
from bridge.etf import Atom, DecodeError, Limits, Map

PID = b"Xw\x03a@b\0\0\0\x01\0\0\0\x02\0\0\0\x03"
BIG_COUNT = b"\xff\xff\xff\xff"


def refused(codec: Any, wire: bytes, **options: Any) -> tuple[str, int, object]:
    with pytest.raises(DecodeError) as caught:
        codec.decode(b"\x83" + wire, **options)
    error = caught.value
    assert error.args == (error.rule, error.offset, error.value)
    assert error.rule in str(error)
    return error.rule, error.offset, error.value


# Offsets count from the 131 in front of what is shown here.
BROKEN: dict[str, tuple[bytes, tuple[Any, ...]]] = {
    "nothing after 131": (b"", ("truncated", 1, None)),
    "a tag that is not in the table": (b"\x00", ("tag", 1, 0)),
    "LOCAL_EXT": (b"y\0\0\0\0\0\0\0\0j", ("tag", 1, 121)),
    "FUN_EXT": (b"u\0\0\0\0", ("tag", 1, 117)),
    "an internal tag": (b"I\0\0\0\0\0\0\0\0", ("tag", 1, 73)),
    "a tag inside": (b"h\x02a\x01\xff", ("tag", 5, 255)),
    "131 again": (b"\x83j", ("tag", 1, 131)),
    "more than one term": (b"jjj", ("trailing_bytes", 2, 2)),
    "COMPRESSED not asked for": (b"P\0\0\0\x01x", ("compressed", 1, 80)),
    "a name that is no atom": (b"Xj", ("atom_expected", 2, 106)),
    "a name that is not there": (b"X", ("truncated", 2, None)),
    "a cache reference without a table": (b"R\x00", ("atom_cache", 1, 0)),
    "atoms in overlong UTF-8": (b"w\x02\xc0\x80", ("atom_utf8", 1, 2)),
    "atoms with surrogates": (b"w\x03\xed\xa0\x80", ("atom_utf8", 1, 3)),
    "atoms cut inside a character": (b"h\x01w\x01\xc3", ("atom_utf8", 3, 1)),
    "atoms above 255 characters": (b"v\x01\x00" + b"a" * 256, ("atom_length", 1, 256)),
    "long atoms, counted in characters": (
        b"v\x02\x00" + "é".encode() * 256,
        ("atom_length", 1, 256),
    ),
    "Latin-1 atoms above 255": (b"d\x01\x00" + b"\xfc" * 256, ("atom_length", 1, 256)),
    "a bad name in a pid": (b"h\x01Xw\x01\xff" + b"\0" * 12, ("atom_utf8", 4, 1)),
    "NaN": (b"F\x7f\xf8\0\0\0\0\0\0", ("float", 1, b"\x7f\xf8\0\0\0\0\0\0")),
    "infinity": (b"F\xff\xf0\0\0\0\0\0\0", ("float", 1, b"\xff\xf0\0\0\0\0\0\0")),
    "FLOAT_EXT that is no number": (b"c" + b"x" * 31, ("float", 1, b"x" * 31)),
    "FLOAT_EXT nan": (b"cnan".ljust(32, b"\0"), ("float", 1, b"nan".ljust(31, b"\0"))),
    "FLOAT_EXT too large": (
        b"c1.0e999".ljust(32, b"\0"),
        ("float", 1, b"1.0e999".ljust(31, b"\0")),
    ),
    "a bitstring of no bits": (b"M\0\0\0\x01\0\xff", ("bits", 1, 0)),
    "a bitstring of nine bits": (b"M\0\0\0\x01\x09\xff", ("bits", 1, 9)),
    "an empty bitstring": (b"M\0\0\0\0\0", ("bits", 1, 0)),
    "an empty bitstring of eight bits": (b"M\0\0\0\0\x08", ("bits", 1, 8)),
    "tuples that cannot be": (b"h\x03a\x01", ("count", 1, 3)),
    "large tuples above ERTS' limit": (b"i\x01\0\0\0", ("arity", 1, 2**24)),
    "large tuples of lies": (b"i\x00\xff\xff\xff" + b"j" * 9, ("count", 1, 2**24 - 1)),
    "lists of lies": (b"l" + BIG_COUNT + b"j" * 9, ("count", 1, 2**32 - 1)),
    "lists without room for their tail": (b"l\0\0\0\x01j", ("count", 1, 1)),
    "lists that go on in lies": (b"l\0\0\0\x01jl" + BIG_COUNT + b"j", ("count", 7, 2**32 - 1)),
    "maps of lies": (b"t" + BIG_COUNT + b"j" * 9, ("count", 1, 2**32 - 1)),
    "maps without room for their values": (b"t\0\0\0\x02jjj", ("count", 1, 2)),
    "records of lies": (b"C" + BIG_COUNT + b"\0w\x01mw\x01r", ("count", 1, 2**32 - 1)),
    "funs of lies": (fun_raw(b"", 200), ("count", 1, 200)),
    "funs of more than 255 free variables": (fun_raw(b"j" * 256, 256), ("free_variables", 1, 256)),
    "references of no words": (b"Z\0\0w\x03a@b\0\0\0\x01", ("reference_words", 1, 0)),
    "references of six words": (b"Z\0\x06w\x03a@b" + b"\0" * 28, ("reference_words", 1, 6)),
    "old pids with a wide creation": (b"gw\x03a@b" + b"\0" * 8 + b"\x04", ("creation", 1, 4)),
    "old ports with a wide creation": (b"fw\x03a@b\0\0\0\0\x04", ("creation", 1, 4)),
    "old references with a wide creation": (b"r\0\x01w\x03a@b\x05\0\0\0\0", ("creation", 1, 5)),
    "the oldest references with one": (b"ew\x03a@b\0\0\0\0\x06", ("creation", 1, 6)),
    "exports of an arity that is none": (b"qw\x01mw\x01fb\0\0\0\x01", ("integer_expected", 8, 98)),
    "funs of a pid that is none": (
        fun_raw()[: -len(PID)] + b"j" + PID[1:],
        ("pid_expected", len(fun_raw()) - len(PID) + 1, 106),
    ),
    "the same key twice": (b"t\0\0\0\x02a\x01ja\x01j", ("duplicate_key", 1, 1)),
    "the same key twice in two forms": (b"t\0\0\0\x02a\x01jb\0\0\0\x01j", ("duplicate_key", 1, 1)),
    "the same list twice as a key": (
        b"t\0\0\0\x02k\0\x01\x01jl\0\0\0\x01a\x01jj",
        ("duplicate_key", 1, [1]),
    ),
    "the same key twice among keys that no dict holds": (
        b"t\0\0\0\x03a\x01jw\x04trueja\x01j",
        ("duplicate_key", 1, 1),
    ),
    "the same map twice as a key, entries turned round": (
        b"t\0\0\0\x02" + b"t\0\0\0\x02a\x01ja\x02jj" + b"t\0\0\0\x02a\x02ja\x01jj",
        ("duplicate_key", 1, {2: [], 1: []}),
    ),
}


@both_codecs
@pytest.mark.parametrize(("wire", "expected"), BROKEN.values(), ids=BROKEN.keys())
def test_refused(codec: Any, wire: bytes, expected: tuple[str, int, object]) -> None:
    assert exact(refused(codec, wire)) == exact(expected)


@both_codecs
def test_a_first_byte_that_is_not_131_is_refused(codec: Any) -> None:
    assert outcome(codec.decode, b"\x82j") == ("DecodeError", *map(exact, ("version", 0, 130)))
    assert outcome(codec.decode, b"") == ("DecodeError", *map(exact, ("truncated", 0, None)))


@both_codecs
def test_offsets_of_bare_terms_count_from_the_start_of_the_data(codec: Any) -> None:
    with pytest.raises(DecodeError) as caught:
        codec.decode_bare(b"jjh\x01", 2)
    assert caught.value.args == ("count", 2, 1)
    for offset in (-1, 5, 2**70):
        with pytest.raises(ValueError, match=r"offset|index"):
            codec.decode_bare(b"jjj", offset)
    assert outcome(codec.decode_bare, b"jjj", 3)[1:] == (  # type: ignore[index]
        ("str", "truncated"),
        ("int", 3),
        ("NoneType", None),
    )


@both_codecs
def test_a_cache_reference_outside_of_the_table_is_refused(codec: Any) -> None:
    assert refused(codec, b"R\x02", atoms=[Atom("a"), Atom("b")]) == ("atom_cache", 1, 2)


# ---- limits


def nested(opening: bytes, depth: int, innermost: bytes, closing: bytes = b"") -> bytes:
    return opening * depth + innermost + closing * depth


NESTS = {
    "tuples": (b"h\x01", b""),
    "lists": (b"l\0\0\0\x01", b"j"),
    "maps": (b"t\0\0\0\x01a\x01", b""),
    "map keys": (b"t\0\0\0\x01", b"a\x01"),
    "records": (b"C\0\0\0\x01\0w\x01mw\x01rw\x01f", b""),
    "funs": (fun_raw(b"", 1), b""),
}


@both_codecs
@pytest.mark.parametrize(("opening", "closing"), NESTS.values(), ids=NESTS.keys())
def test_depth_is_bounded_at_the_limit_and_not_below(
    codec: Any, opening: bytes, closing: bytes
) -> None:
    limits = Limits(depth_max=50)
    codec.decode(b"\x83" + nested(opening, 50, b"a\x01", closing), limits=limits)
    codec.decode(b"\x83" + nested(opening, 50, b"h\x00", closing), limits=limits)
    rule = refused(codec, nested(opening, 51, b"a\x01", closing), limits=limits)
    assert rule == ("depth", 1 + 50 * len(opening), 50)


@both_codecs
@pytest.mark.parametrize("kind", ["tuples", "lists", "maps", "funs"])
def test_ten_thousand_deep_by_default_and_not_one_more(codec: Any, kind: str) -> None:
    opening, closing = NESTS[kind]
    term = codec.decode(b"\x83" + nested(opening, 10_000, b"j", closing))
    if kind != "funs":  # whose bytes would be copied 10 000 times
        assert codec.encode(term) == b"\x83" + nested(opening, 10_000, b"j", closing)
    del term  # destroyed without recursion too
    assert refused(codec, nested(opening, 10_001, b"j", closing))[0] == "depth"


def test_a_million_deep_where_asked_for() -> None:

    limits = Limits(depth_max=2**20)
    wire = b"\x83" + nested(b"l\0\0\0\x01", 2**20, b"j", b"j")
    term = bridge.etf.decode(wire, limits=limits)
    assert bridge.etf.encode(term, limits=limits) == wire


@both_codecs
def test_a_list_of_one_header_per_element_is_not_deep(codec: Any) -> None:
    limits = Limits(depth_max=1)
    wire = b"\x83" + b"l\0\0\0\x01a\x07" * 30_000 + b"j"
    assert codec.decode(wire, limits=limits) == [7] * 30_000


@both_codecs
def test_terms_are_counted_all_together(codec: Any) -> None:
    limits = Limits(terms_max=10)
    for good in (
        b"h\x09" + b"j" * 9,
        b"k\0\x09" + b"x" * 9,
        b"t\0\0\0\x04" + b"".join(b"a" + bytes([key]) + b"j" for key in range(4)),
    ):
        codec.decode(b"\x83" + good, limits=limits)
    assert refused(codec, b"h\x0a" + b"j" * 10, limits=limits) == ("terms", 1, 10)
    assert refused(codec, b"h\x08jjjjjjjh\x02jj", limits=limits) == ("terms", 10, 10)
    assert refused(codec, b"k\0\x0a" + b"x" * 10, limits=limits) == ("terms", 1, 10)
    assert refused(codec, b"l\0\0\0\x09" + b"j" * 9 + b"k\0\x01x", limits=limits)[0] == "terms"
    assert refused(codec, b"t\0\0\0\x05" + b"j" * 10, limits=limits) == ("terms", 1, 10)


@both_codecs
def test_claims_inside_claims_are_bounded_by_the_terms_limit(codec: Any) -> None:
    # Each claims all bytes that remain, 8 bytes of memory for each: believed, this takes 16 GB.
    size = 200_000
    wire = b"".join(b"l" + (left - 6).to_bytes(4) for left in range(size, 5, -5))
    wire += b"jjjjj"
    assert refused(codec, wire)[0] == "terms"


@both_codecs
def test_integers_are_bounded(codec: Any) -> None:
    wire = b"o" + (524_280).to_bytes(4) + b"\0" + b"\xff" * 524_280
    assert codec.decode(b"\x83" + wire) == 2 ** (8 * 524_280) - 1
    wire = b"o" + (524_281).to_bytes(4) + b"\0" + b"\x01" * 524_281
    assert refused(codec, wire) == ("integer_size", 1, 524_281)
    assert refused(codec, b"n\x03\0abc", limits=Limits(integer_bytes_max=2))[0] == "integer_size"


@both_codecs
def test_keys_that_no_dict_holds_are_bounded_in_depth(codec: Any) -> None:
    def as_key(depth: int, opening: bytes, closing: bytes) -> bytes:
        return b"\x83t\0\0\0\x01" + nested(opening, depth, b"a\x01", closing) + b"a\x02"

    assert len(codec.decode(as_key(100, b"l\0\0\0\x01", b"j"))) == 1
    assert type(codec.decode(as_key(8, b"h\x01", b""))) is dict
    assert type(codec.decode(as_key(9, b"h\x01", b""))) is Map
    assert refused(codec, as_key(102, b"l\0\0\0\x01", b"j")[1:]) == ("key_depth", 1, 100)
    assert refused(codec, as_key(101, b"h\x01", b"")[1:]) == ("key_depth", 1, 100)


# ---- COMPRESSED


def compressed(inflated: bytes, size: int | None = None) -> bytes:
    declared = len(inflated) if size is None else size
    return b"P" + declared.to_bytes(4) + zlib.compress(inflated)


@both_codecs
def test_compressed_terms_are_read_where_asked_for(codec: Any) -> None:
    wire = b"\x83" + compressed(b"k\xff\xff" + b"x" * 65535)
    assert codec.decode(wire, allow_compressed=True) == [120] * 65535
    assert codec.decode(b"\x83j", allow_compressed=True) == []


COMPRESSED = {
    "a stream longer than declared": (compressed(b"h\x01j", 2), ("inflate", 1, 2)),
    "a stream shorter than declared": (compressed(b"h\x01j", 4), ("inflate", 1, 4)),
    "a stream cut short": (compressed(b"h\x01j" * 9)[:-5], ("inflate", 1, 27)),
    "no stream": (b"P\0\0\0\x01", ("inflate", 1, 1)),
    "no size": (b"P\0\0", ("truncated", 1, 80)),
    "a stream that is none": (b"P\0\0\0\x01xyz", ("inflate", 1, 1)),
    "bytes behind the stream": (compressed(b"j") + b"zz", ("trailing_bytes", 15, 2)),
    "two terms in the stream": (compressed(b"jj"), ("trailing_bytes", 1, 1)),
    "a broken term in the stream": (compressed(b"h\x01\xff"), ("tag", 2, 255)),
    "nothing in the stream": (compressed(b""), ("truncated", 0, None)),
    "131 in the stream": (compressed(b"\x83j"), ("tag", 0, 131)),
    "COMPRESSED in the stream": (compressed(compressed(b"j")), ("compressed", 0, 80)),
    "COMPRESSED inside a term": (b"h\x01" + compressed(b"j"), ("compressed", 3, 80)),
    "more than the limit": (compressed(b"j", 64 * 2**20 + 1), ("inflated_size", 1, 64 * 2**20 + 1)),
}


@both_codecs
@pytest.mark.parametrize(("wire", "expected"), COMPRESSED.values(), ids=COMPRESSED.keys())
def test_compressed_refused(codec: Any, wire: bytes, expected: tuple[str, int, object]) -> None:
    assert refused(codec, wire, allow_compressed=True) == expected


@both_codecs
def test_a_bomb_is_not_inflated(codec: Any) -> None:
    bomb = compressed(b"m" + (50_000_000).to_bytes(4) + bytes(50_000_000))
    limits = Limits(inflated_bytes_max=10_000_000)
    assert refused(codec, bomb, allow_compressed=True, limits=limits)[0] == "inflated_size"
    lying = b"P\0\0\0\x0a" + bomb[5:]
    assert refused(codec, lying, allow_compressed=True, limits=limits) == ("inflate", 1, 10)


# ---- the table in the documentation


def test_every_rule_is_in_the_documentation() -> None:
    root = Path(__file__).parents[2]
    section = (root / "docs/terms.md").read_text().partition("## Errors")[2]
    documented = set(re.findall(r"`([a-z0-9_]+)`", section))
    raised: set[str] = set()
    for source in [*(root / "csrc/etf").glob("*.c")]:
        raised |= set(
            re.findall(
                r"(?:rb_broken\([^,]+,|broken_bytes\([^,]+,|_error\(|rb_refused\()\s*\"(\w+)\"",
                source.read_text(),
            )
        )
    for source in (root / "bridge/etf").glob("*.py"):
        raised |= set(
            re.findall(
                r"(?:broken\(|_refuse\(|(?:De|En)codeError\()\s*\"(\w+)\"", source.read_text()
            )
        )
    assert {"truncated", "count", "record", "field", "inflate"} <= raised
    assert raised <= documented

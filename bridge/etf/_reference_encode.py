"""Encoding in Python, to be read: the specification of csrc/etf/encode.c and write.c.

A container is a generator that has written its head and yields its elements to be written;
`write` keeps the open ones on a list, so nothing recurses.
"""

import struct
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any, NoReturn

from bridge.etf import _tags as tag
from bridge.etf.errors import EncodeError
from bridge.etf.limits import DEFAULT_LIMITS, Limits
from bridge.etf.terms import (
    Atom,
    BitString,
    Encodable,
    Export,
    Fun,
    ImproperList,
    Map,
    Pid,
    Port,
    Record,
    Reference,
)

TUPLE_ARITY_MAX = 2**24 - 1
STRING_LENGTH_MAX = 65535
NEW_PORT_ID_BITS = 28
LENGTH_MAX = 2**32 - 1


class DoubleKey(Exception):
    """Two keys of a map are one term: rule `duplicate_key`, when the term is there to be shown."""

    def __init__(self, canonical: bytes) -> None:
        super().__init__(canonical)
        self.canonical = canonical


def encode(term: Encodable, /, *, record_ok: bool = False, limits: Limits | None = None) -> bytes:
    """The term's bytes, 131 first. Raises EncodeError, DoubleKey."""
    return bytes([tag.VERSION_MAGIC]) + encode_bare(term, record_ok=record_ok, limits=limits)


def encode_bare(
    term: Encodable, /, *, record_ok: bool = False, limits: Limits | None = None
) -> bytes:
    """The term's bytes without 131. Raises EncodeError, DoubleKey."""
    return _Writer(limits or DEFAULT_LIMITS, record_ok=record_ok).write(term)


def canonical(term: object, /, *, limits: Limits | None = None) -> bytes:
    """Bytes that are the same for two terms exactly when the terms are =:= (docs/terms.md).

    Raises EncodeError, DoubleKey.
    """
    bounds = limits or DEFAULT_LIMITS
    return _Writer(replace(bounds, depth_max=bounds.key_depth_max), canonical=True).write(term)


def _refuse(rule: str, value: object) -> NoReturn:
    raise EncodeError(rule, value)


class _Writer:
    def __init__(self, limits: Limits, *, record_ok: bool = False, canonical: bool = False) -> None:
        self.limits = limits
        self.record_ok = record_ok or canonical
        self.canonical = canonical
        self.terms = 1
        self.out = bytearray()

    # ---- the walk

    def write(self, term: object) -> bytes:
        stack: list[Iterator[object]] = []
        if inner := self.begin(term):
            self.push(stack, inner)
        while stack:
            for element in stack[-1]:
                if inner := self.begin(element):
                    self.push(stack, inner)
                    break
            else:
                stack.pop()
        return bytes(self.out)

    def push(self, stack: list[Iterator[object]], inner: Iterator[object]) -> None:
        if len(stack) >= self.limits.depth_max:
            _refuse("key_depth" if self.canonical else "depth", self.limits.depth_max)
        stack.append(inner)

    def begin(self, term: Any) -> Iterator[object] | None:
        """Write a leaf, or a container's head; the elements that are still to be written."""
        match term:
            case None | True | False:
                self.name(Atom("nil" if term is None else str(term).lower()))
            case Atom():
                self.name(term)
            case int():
                self.integer(int.__pos__(term))
            case float():
                self.write_float(term)
            case str():
                self.text(term)
            case bytes() | bytearray():
                self.binary(bytes(memoryview(term)))
            case memoryview():
                if not term.c_contiguous:
                    _refuse("buffer", "memoryview")
                self.binary(term.tobytes())
            case tuple():
                return self.write_tuple(term)
            case list():
                return self.write_list(term)
            case dict():
                return self.write_dict(term)
            case Pid() | Port() | Reference() | Fun() | Export() | BitString():
                _checked(self.opaque, term)
            case ImproperList():
                _checked(self.improper_head, term)
                return iter((*term.elements, term.tail))
            case Map():
                return self.entries(_checked(_index, term))
            case Record():
                if not self.record_ok:
                    _refuse("record", "Record")
                _checked(self.record_head, term)
                return iter(term.values) if term.values else None
            case _:
                _refuse("type", type(term).__name__)
        return None

    def claim(self, terms: int, size: int, size_max: int) -> None:
        if size > size_max:
            _refuse("size", size)
        self.terms += terms
        if self.terms > self.limits.terms_max:
            _refuse("terms", self.limits.terms_max)

    def pack(self, layout: str, *values: Any) -> None:
        self.out += struct.pack(layout, *values)

    # ---- leaves

    def name(self, atom: Atom) -> None:
        if type(atom) is not Atom:
            raise TypeError
        text = atom.name.encode()
        if len(text) <= 255:
            self.pack(">BB", tag.SMALL_ATOM_UTF8_EXT, len(text))
        else:
            self.pack(">BH", tag.ATOM_UTF8_EXT, len(text))
        self.out += text

    def integer(self, number: int) -> None:
        if 0 <= number <= 255:
            self.pack(">BB", tag.SMALL_INTEGER_EXT, number)
        elif -(2**31) <= number < 2**31:
            self.pack(">Bi", tag.INTEGER_EXT, number)
        else:
            size = (number.bit_length() + 7) // 8
            if size > self.limits.integer_bytes_max:
                _refuse("integer_size", size)
            if size < 256:
                self.pack(">BBB", tag.SMALL_BIG_EXT, size, number < 0)
            else:
                self.pack(">BIB", tag.LARGE_BIG_EXT, size, number < 0)
            self.out += abs(number).to_bytes(size, "little")

    def write_float(self, number: float) -> None:
        if number != number or abs(number) == float("inf"):
            _refuse("float", float.__pos__(number))
        self.pack(">Bd", tag.NEW_FLOAT_EXT, number)

    def text(self, text: str) -> None:
        try:
            data = str.encode(text)
        except UnicodeEncodeError:
            _refuse("text", text)
        self.binary(data)

    def binary(self, data: bytes) -> None:
        if len(data) > LENGTH_MAX:
            _refuse("size", len(data))
        self.pack(">BI", tag.BINARY_EXT, len(data))
        self.out += data

    def opaque(self, term: Pid | Port | Reference | Fun | Export | BitString) -> None:
        match term:
            case Pid(node, number, serial, creation):
                self.pack(">B", tag.NEW_PID_EXT)
                self.name(node)
                self.pack(">III", number, serial, creation)
            case Port(node, number, creation):
                wide = self.canonical or number >> NEW_PORT_ID_BITS
                self.pack(">B", tag.V4_PORT_EXT if wide else tag.NEW_PORT_EXT)
                self.name(node)
                self.pack(">QI" if wide else ">II", number, creation)
            case Reference(node, creation, words):
                if type(words) is not tuple or not 1 <= len(words) <= 5:
                    raise ValueError
                self.pack(">BH", tag.NEWER_REFERENCE_EXT, len(words))
                self.name(node)
                self.pack(f">I{len(words)}I", creation, *words)
            case Fun(raw):
                if raw[0] != tag.NEW_FUN_EXT:
                    raise ValueError
                self.out += raw
            case Export(module, function, arity):
                self.pack(">B", tag.EXPORT_EXT)
                self.name(module)
                self.name(function)
                self.pack(">BB", tag.SMALL_INTEGER_EXT, arity)
            case BitString(data, bits):
                if not data or not 1 <= bits <= 7:
                    raise ValueError
                if len(data) > LENGTH_MAX:
                    _refuse("size", len(data))
                self.pack(">BIB", tag.BIT_BINARY_EXT, len(data), bits)
                self.out += data
            case _:  # a slot is empty
                raise ValueError

    # ---- containers

    def write_tuple(self, term: tuple[object, ...]) -> Iterator[object] | None:
        count = tuple.__len__(term)
        self.claim(count, count, TUPLE_ARITY_MAX)
        if count < 256:
            self.pack(">BB", tag.SMALL_TUPLE_EXT, count)
        else:
            self.pack(">BI", tag.LARGE_TUPLE_EXT, count)
        return tuple.__iter__(term) if count else None

    def write_list(self, term: list[object]) -> Iterator[object] | None:
        count = list.__len__(term)
        self.claim(count, count, LENGTH_MAX)
        if count == 0:
            self.pack(">B", tag.NIL_EXT)
            return None
        if count <= STRING_LENGTH_MAX and all(map(_is_byte, list.__iter__(term))):
            self.pack(">BH", tag.STRING_EXT, count)
            self.out += bytes([int.__pos__(byte) for byte in list.__iter__(term)])  # type: ignore[arg-type]
            return None
        self.pack(">BI", tag.LIST_EXT, count)
        return self.list_elements(term, count)

    def list_elements(self, term: list[object], count: int) -> Iterator[object]:
        yield from list.__iter__(term)
        if list.__len__(term) != count:
            _refuse("changed", type(term).__name__)
        self.pack(">B", tag.NIL_EXT)

    def improper_head(self, term: ImproperList) -> None:
        count = len(term.elements)
        if count == 0 or type(term.elements) is not tuple:
            raise ValueError
        _ = term.tail
        self.claim(count, count, LENGTH_MAX)
        self.pack(">BI", tag.LIST_EXT, count)

    def record_head(self, term: Record) -> None:
        count = len(term.values)
        if len(term.fields) != count or type(term.values) is not tuple:
            raise ValueError
        self.claim(2 * count, count, LENGTH_MAX)
        self.pack(">BIB", tag.RECORD_EXT, count, term.flags)
        for name in (term.module, term.name, *term.fields):
            self.name(name)

    def write_dict(self, term: dict[object, object]) -> Iterator[object] | None:
        entries = list(dict.items(term))
        following = self.entries(entries)
        return self.distinct(following, term) if following and not self.canonical else following

    def entries(self, entries: list[tuple[object, object]]) -> Iterator[object] | None:
        self.claim(2 * len(entries), len(entries), LENGTH_MAX)
        self.pack(">BI", tag.MAP_EXT, len(entries))
        if not entries:
            return None
        return self.sorted(entries) if self.canonical else _flat(entries)

    def distinct(self, following: Iterator[object], term: dict[object, object]) -> Iterator[object]:
        """The entries of a dict; at the end, see that no two of its keys are one term.

        The C codec leaves this out where the kinds of the keys make it impossible.
        """
        yield from following
        if dict.__len__(term) > 1 and _may_coincide(dict.keys(term)):
            seen = set()
            for key in dict.keys(term):
                same = canonical(key, limits=self.limits)
                if same in seen:
                    raise DoubleKey(same)
                seen.add(same)

    def sorted(self, entries: list[tuple[object, object]]) -> Iterator[object]:
        """The entries, and then their bytes put into the order of the keys' bytes."""
        begin = len(self.out)
        written: list[tuple[bytes, bytes]] = []
        for key, value in entries:
            key_at = len(self.out)
            yield key
            value_at = len(self.out)
            yield value
            written.append((bytes(self.out[key_at:value_at]), bytes(self.out[value_at:])))
        written.sort()
        for (earlier, _), (later, _) in pairwise(written):
            if earlier == later:
                raise DoubleKey(later)
        self.out[begin:] = b"".join(key + value for key, value in written)


def _checked(action: Any, term: object) -> Any:
    """Constructors have checked the fields of a term, but a slot can be empty or forged."""
    try:
        return action(term)
    except EncodeError:
        raise
    except (AttributeError, TypeError, ValueError, IndexError, struct.error):
        _refuse("field", type(term).__name__)


def _index(term: Map) -> list[tuple[object, object]]:
    return list(term._index.values())


def _flat(entries: list[tuple[object, object]]) -> Iterator[object]:
    for entry in entries:
        yield from entry


def _is_byte(element: object) -> bool:
    return isinstance(element, int) and type(element) is not bool and 0 <= int(element) <= 255


_ONE_OF_A_KIND = {int, float, Pid, Port, Reference}


def _may_coincide(keys: Any) -> bool:
    """Can two of a dict's keys, different for Python, be one term? (A str and its bytes can.)"""
    kinds = set()
    for key in keys:
        if type(key) is Atom:
            kinds.add("named" if key.name in ("true", "false", "nil") else "atom")
        elif key is None or type(key) is bool:
            kinds.add("constant")
        elif type(key) in (str, bytes):
            kinds.add(type(key).__name__)
        elif type(key) not in _ONE_OF_A_KIND:
            return True
    return kinds >= {"str", "bytes"} or kinds >= {"named", "constant"}

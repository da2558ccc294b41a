"""Decoding in Python, to be read: the specification of csrc/etf/decode.c, leaves.c and map.c.

A container is a generator that asks for its elements by `yield` and returns the finished term;
`term` keeps the open ones on a list, so nothing recurses. Both codecs check in the same order,
because errors are compared too: fixed fields are there, then what they say, then names (which
report their own place), then the rest is there, then what it says.
"""

import struct
from collections.abc import Callable, Generator, Sequence
from math import inf
from types import GeneratorType
from typing import Any, Final, NoReturn

from bridge.etf import _tags as tag
from bridge.etf._rare import fun_bytes, inflate, text_float
from bridge.etf._reference_encode import canonical
from bridge.etf.errors import DecodeError, EncodeError
from bridge.etf.limits import DEFAULT_LIMITS, Limits
from bridge.etf.terms import (
    Atom,
    BitString,
    Export,
    Fun,
    ImproperList,
    Map,
    Pid,
    Port,
    Record,
    Reference,
    Term,
)

ATOM_CHARACTERS_MAX: Final = 255
TUPLE_ARITY_MAX: Final = 2**24 - 1
REFERENCE_WORDS_MAX: Final = 5
FREE_VARIABLES_MAX: Final = 255
SHORT_CREATION_MAX: Final = 3
PLAIN_KEY_DEPTH_MAX: Final = 8
SAME_HASH_MAX: Final = 16
SAME_HASH_FROM: Final = 64
TRIES_FROM: Final = 512
TRIES_A_KEY_MAX: Final = 32
TRIES_MORE: Final = 2048

_ATOM_TAGS = {
    tag.ATOM_EXT,
    tag.SMALL_ATOM_EXT,
    tag.ATOM_UTF8_EXT,
    tag.SMALL_ATOM_UTF8_EXT,
    tag.ATOM_CACHE_REF,
}
_CONSTANTS: dict[str, Term] = {"true": True, "false": False, "nil": None}
_PLAIN_KEYS = {bool, int, float, bytes, type(None), Atom, Pid, Port, Reference}
_PLAIN_KEYS |= {BitString, Export, Fun}
_SECRET_HASHES = {bool, bytes, type(None), Atom}

_Container = Generator[None, Term, Term]


def decode(
    data: bytes | bytearray | memoryview,
    /,
    *,
    limits: Limits | None = None,
    allow_compressed: bool = False,
    atoms: Sequence[Atom] | None = None,
) -> Term:
    """The one term that data holds, 131 first. Raises DecodeError."""
    reader = _Reader(data, 0, limits, atoms)
    if not reader.data:
        reader.truncated(0)
    if reader.data[0] != tag.VERSION_MAGIC:
        reader.broken("version", 0, reader.data[0])
    reader.position = 1
    if allow_compressed and reader.data[1:2] == bytes([tag.COMPRESSED]):
        if len(reader.data) < 6:
            reader.truncated(1)
        (size,) = struct.unpack_from(">I", reader.data, 2)
        inflated = inflate(reader.data, 1, size, reader.limits.inflated_bytes_max)
        reader = _Reader(inflated, 0, limits, atoms)
    term = reader.term()
    if left := len(reader.data) - reader.position:
        reader.broken("trailing_bytes", reader.position, left)
    return term


def decode_bare(
    data: bytes | bytearray | memoryview,
    /,
    offset: int = 0,
    *,
    limits: Limits | None = None,
    atoms: Sequence[Atom] | None = None,
) -> tuple[Term, int]:
    """The term without 131 at offset, and the offset behind it. Raises DecodeError, ValueError."""
    reader = _Reader(data, offset, limits, atoms)
    if not 0 <= offset <= len(reader.data):
        raise ValueError(f"offset {offset} is outside of {len(reader.data)} bytes")
    return reader.term(), reader.position


class _Reader:
    def __init__(
        self,
        data: bytes | bytearray | memoryview,
        offset: int,
        limits: Limits | None,
        atoms: Sequence[Atom] | None,
    ) -> None:
        self.data = bytes(data)
        self.position = offset
        self.limits = limits or DEFAULT_LIMITS
        self.atoms = atoms
        self.terms = 1
        self.cache_refs = 0

    # ---- the walk

    def term(self) -> Term:
        """The term at the position, which moves past it."""
        stack: list[_Container] = []
        while True:
            at = self.position
            value: Any = self.begin(at)
            if isinstance(value, GeneratorType):
                if len(stack) >= self.limits.depth_max:
                    self.broken("depth", at, self.limits.depth_max)
                stack.append(value)
                try:
                    next(value)
                    continue
                except StopIteration as complete:
                    stack.pop()
                    value = complete.value
            while stack:
                try:
                    stack[-1].send(value)
                    break
                except StopIteration as complete:
                    stack.pop()
                    value = complete.value
            else:
                return value  # type: ignore[no-any-return]

    def begin(self, at: int) -> Term | _Container:
        """The leaf at the position, or the generator of the container that begins there."""
        if at >= len(self.data):
            self.truncated(at)
        self.position += 1
        method = _METHODS.get(self.data[at])
        if method is None:
            self.broken("tag", at, self.data[at])
        begun: Term | _Container = method(self, at)
        return begun

    # ---- bytes and checks

    def broken(self, rule: str, at: int, value: object) -> NoReturn:
        raise DecodeError(rule, at, value)

    def truncated(self, at: int) -> NoReturn:
        raise DecodeError("truncated", at, self.data[at] if at < len(self.data) else None)

    def take(self, size: int, at: int) -> bytes:
        if len(self.data) - self.position < size:
            self.truncated(at)
        self.position += size
        return self.data[self.position - size : self.position]

    def unpack(self, layout: str, at: int) -> tuple[Any, ...]:
        return struct.unpack(layout, self.take(struct.calcsize(layout), at))

    def claim(self, terms: int, needed: int, claimed: int, at: int) -> None:
        """Believe a count: are there bytes for it, and is it within the limit?"""
        if needed > len(self.data) - self.position:
            self.broken("count", at, claimed)
        self.terms += terms
        if self.terms > self.limits.terms_max:
            self.broken("terms", at, self.limits.terms_max)

    # ---- atoms

    def name(self) -> Atom:
        """An atom where only an atom may stand."""
        at = self.position
        (found,) = self.take(1, at)
        if found not in _ATOM_TAGS:
            self.broken("atom_expected", at, found)
        return self.atom(at)

    def atom(self, at: int) -> Atom:
        found = self.data[at]
        (size,) = self.unpack(">H" if found in (tag.ATOM_EXT, tag.ATOM_UTF8_EXT) else ">B", at)
        if found == tag.ATOM_CACHE_REF:
            if self.atoms is None or size >= len(self.atoms):
                self.broken("atom_cache", at, size)
            self.cache_refs += 1
            cached: Atom = self.atoms[size]
            return cached
        text = self.take(size, at)
        try:
            utf8 = found in (tag.ATOM_UTF8_EXT, tag.SMALL_ATOM_UTF8_EXT)
            name = text.decode("utf-8" if utf8 else "latin-1")
        except UnicodeDecodeError:
            self.broken("atom_utf8", at, size)
        if len(name) > ATOM_CHARACTERS_MAX:
            self.broken("atom_length", at, len(name))
        return Atom(name)

    def atom_value(self, at: int) -> Term:
        atom = self.atom(at)
        return _CONSTANTS.get(atom.name, atom)

    # ---- numbers

    def small_integer(self, at: int) -> int:
        return self.take(1, at)[0]

    def integer(self, at: int) -> int:
        return int(self.unpack(">i", at)[0])

    def bignum(self, at: int) -> int:
        (size,) = self.unpack(">B" if self.data[at] == tag.SMALL_BIG_EXT else ">I", at)
        sign, *_ = digits = self.take(size + 1, at)
        if size > self.limits.integer_bytes_max:
            self.broken("integer_size", at, size)
        magnitude = int.from_bytes(digits[1:], "little")
        return -magnitude if sign else magnitude

    def read_float(self, at: int) -> float:
        text = self.take(8, at)
        (value,) = struct.unpack(">d", text)
        if value != value or abs(value) == float("inf"):
            self.broken("float", at, text)
        return float(value)

    def old_float(self, at: int) -> float:
        text = self.take(31, at)
        value = text_float(text)
        if value is None:
            self.broken("float", at, text)
        return value

    def small_part(self, *tags: int) -> int:
        """A small integer that is part of an export or a fun."""
        at = self.position
        (found,) = self.take(1, at)
        if found not in tags:
            self.broken("integer_expected", at, found)
        return self.small_integer(at) if found == tag.SMALL_INTEGER_EXT else self.integer(at)

    # ---- binaries, pids, ports, references, exports

    def binary(self, at: int) -> bytes:
        return self.take(self.unpack(">I", at)[0], at)

    def bits(self, at: int) -> bytes | BitString:
        size, bits = self.unpack(">IB", at)
        data = self.take(size, at)
        if size == 0 or not 1 <= bits <= 8:
            self.broken("bits", at, bits)
        if bits == 8:
            return data
        return BitString(data[:-1] + bytes([data[-1] & 0xFF << (8 - bits) & 0xFF]), bits)

    def short_creation(self, creation: int, at: int) -> int:
        if creation > SHORT_CREATION_MAX:
            self.broken("creation", at, creation)
        return creation

    def pid(self, at: int) -> Pid:
        return Pid(self.name(), *self.unpack(">III", at))

    def old_pid(self, at: int) -> Pid:
        node = self.name()
        number, serial, creation = self.unpack(">IIB", at)
        return Pid(node, number, serial, self.short_creation(creation, at))

    def port(self, at: int) -> Port:
        return Port(self.name(), *self.unpack(">II", at))

    def v4_port(self, at: int) -> Port:
        return Port(self.name(), *self.unpack(">QI", at))

    def old_port(self, at: int) -> Port:
        node = self.name()
        number, creation = self.unpack(">IB", at)
        return Port(node, number, self.short_creation(creation, at))

    def words(self, at: int) -> int:
        (count,) = self.unpack(">H", at)
        if not 1 <= count <= REFERENCE_WORDS_MAX:
            self.broken("reference_words", at, count)
        return int(count)

    def newer_reference(self, at: int) -> Reference:
        count = self.words(at)
        node = self.name()
        creation, *words = self.unpack(f">I{count}I", at)
        return Reference(node, creation, tuple(words))

    def new_reference(self, at: int) -> Reference:
        count = self.words(at)
        node = self.name()
        creation, *words = self.unpack(f">B{count}I", at)
        return Reference(node, self.short_creation(creation, at), tuple(words))

    def old_reference(self, at: int) -> Reference:
        node = self.name()
        word, creation = self.unpack(">IB", at)
        return Reference(node, self.short_creation(creation, at), (word,))

    def export(self, at: int) -> Export:
        return Export(self.name(), self.name(), self.small_part(tag.SMALL_INTEGER_EXT))

    def compressed(self, at: int) -> NoReturn:
        self.broken("compressed", at, tag.COMPRESSED)

    # ---- containers

    def small_tuple(self, at: int) -> Term | _Container:
        return self.read_tuple(at, *self.unpack(">B", at))

    def large_tuple(self, at: int) -> Term | _Container:
        (count,) = self.unpack(">I", at)
        if count > TUPLE_ARITY_MAX:
            self.broken("arity", at, count)
        return self.read_tuple(at, count)

    def read_tuple(self, at: int, count: int) -> Term | _Container:
        self.claim(count, count, count, at)
        return self.elements(count) if count else ()

    def elements(self, count: int) -> Generator[None, Term, tuple[Term, ...]]:
        elements = []
        for _ in range(count):
            elements.append((yield))  # noqa: PERF401 - a comprehension cannot ask for its elements
        return tuple(elements)

    def nil(self, at: int) -> list[Term]:
        return []

    def string(self, at: int) -> list[Term]:
        data = self.take(self.unpack(">H", at)[0], at)
        self.claim(len(data), 0, 0, at)
        return list(data)

    def list_count(self, at: int) -> int:
        (count,) = self.unpack(">I", at)
        self.claim(count, count + 1, count, at)
        return int(count)

    def read_list(self, at: int) -> _Container:
        return self.list_elements(self.list_count(at))

    def list_elements(self, count: int) -> _Container:
        elements: list[Term] = []
        while True:
            for _ in range(count):
                elements.append((yield))  # noqa: PERF401
            at = self.position
            (found,) = self.take(1, at)
            if found == tag.NIL_EXT:
                return elements
            if found == tag.STRING_EXT:
                elements += self.string(at)
                return elements
            if found != tag.LIST_EXT:
                self.position = at
                tail = yield
                return ImproperList(tuple(elements), tail) if elements else tail
            count = self.list_count(at)  # a list as the tail of a list: the same list goes on

    def read_map(self, at: int) -> Term | _Container:
        (count,) = self.unpack(">I", at)
        self.claim(2 * count, 2 * count, count, at)
        return self.map_entries(at, count) if count else {}

    def map_entries(self, at: int, count: int) -> _Container:
        entries: dict[Term, Term] = {}
        index: dict[bytes, tuple[Term, Term]] | None = None
        probes = _Probes()
        for _ in range(count):
            key = yield
            value = yield
            if index is None:
                before = len(entries)
                if _is_plain(key, PLAIN_KEY_DEPTH_MAX):
                    entries.setdefault(key, value)
                taken = len(entries) > before
                if taken and not probes.too_many(entries, key):
                    continue
                index = {}
                for earlier in entries.items():
                    self.index_put(index, *earlier, at)
                if taken:
                    continue
            self.index_put(index, key, value, at)
        return entries if index is None else Map.from_index(index)

    def index_put(
        self, index: dict[bytes, tuple[Term, Term]], key: Term, value: Term, at: int
    ) -> None:
        try:
            same = canonical(key, limits=self.limits)
        except EncodeError:  # it was just decoded, so it can only be too deep
            self.broken("key_depth", at, self.limits.key_depth_max)
        if same in index:
            self.broken("duplicate_key", at, key)
        index[same] = (key, value)

    def fun(self, at: int) -> Term | _Container:
        cache_refs = self.cache_refs
        _size, arity, uniq, index, count = self.unpack(">IB16sII", at)
        if count > FREE_VARIABLES_MAX:
            self.broken("free_variables", at, count)
        module = self.name()
        small = (tag.SMALL_INTEGER_EXT, tag.INTEGER_EXT)
        old_index, old_uniq = self.small_part(*small), self.small_part(*small)
        pid_at = self.position
        (found,) = self.take(1, pid_at)
        if found not in (tag.NEW_PID_EXT, tag.PID_EXT):
            self.broken("pid_expected", pid_at, found)
        pid = self.pid(pid_at) if found == tag.NEW_PID_EXT else self.old_pid(pid_at)
        self.claim(count, count, count, at)
        head = Fun(b"", module, arity, uniq, index, old_index, old_uniq, pid)
        if count == 0:
            return self.whole_fun(at, head, (), cache_refs)
        return self.free_variables(at, head, count, cache_refs)

    def free_variables(self, at: int, head: Fun, count: int, cache_refs: int) -> _Container:
        free = yield from self.elements(count)
        return self.whole_fun(at, head, free, cache_refs)

    def whole_fun(self, at: int, head: Fun, free: tuple[Term, ...], cache_refs_before: int) -> Fun:
        if self.cache_refs != cache_refs_before:
            raw = fun_bytes(head, free)
        else:
            raw = self.data[at : self.position]
        rest = (head.arity, head.uniq, head.index, head.old_index, head.old_uniq, head.pid)
        return Fun(raw, head.module, *rest)

    def record(self, at: int) -> Term | _Container:
        count, flags = self.unpack(">IB", at)
        self.claim(2 * count, 2 * count, count, at)
        module, name = self.name(), self.name()
        fields = [self.name() for _ in range(count)]
        if count == 0:
            return Record(module, name, flags, (), ())
        return self.record_values(module, name, flags, fields)

    def record_values(
        self, module: Atom, name: Atom, flags: int, fields: Sequence[Atom]
    ) -> _Container:
        values = yield from self.elements(len(fields))
        return Record(module, name, flags, (*fields,), values)


def _is_plain(key: Term, depth: int) -> bool:
    """Can a dict find this key again as Erlang would, and hash it without going deep?"""
    if type(key) is tuple:
        return depth > 0 and all(_is_plain(element, depth - 1) for element in key)
    return type(key) in _PLAIN_KEYS


def _looked_at_from(key: Term) -> float:
    """Keys before a dict is looked at because of this one. Integers below 2^60 are many maps' keys,
    and only probed; keys that can have one hash are compared with each other, which takes longer.
    """
    if type(key) in _SECRET_HASHES:
        return inf
    return TRIES_FROM if type(key) is int and key.bit_length() <= 60 else SAME_HASH_FROM


class _Probes:
    """How far a dict looks for its keys (csrc/etf/probe.c says why): the order in which it tries
    its places is that of Objects/dictobject.c.
    """

    def __init__(self) -> None:
        self.places: list[int | None] = []
        self.keys = self.tries = 0

    def too_many(self, entries: dict[Term, Term], key: Term) -> bool:
        """The dict has just taken the key: were its keys chosen to be slow to find?"""
        if not self.places and len(entries) <= _looked_at_from(key):
            return False
        if len(entries) <= 2 * len(self.places) // 3:
            return self.take_place(hash(key))
        size = 8
        while 2 * size // 3 < len(entries):
            size *= 2
        self.places = [None] * size
        self.keys = self.tries = 0
        return any(self.take_place(hash(earlier)) for earlier in entries)

    def take_place(self, number: int) -> bool:
        mask = len(self.places) - 1
        rest = number % 2**64
        at = rest & mask
        tries, same = 1, 1
        while (there := self.places[at]) is not None:
            same += there == number
            if same > SAME_HASH_MAX:
                return True
            rest >>= 5
            at = (at * 5 + rest + 1) & mask
            tries += 1
        self.places[at] = number
        self.tries += tries
        self.keys += 1
        return self.tries > TRIES_A_KEY_MAX * self.keys + TRIES_MORE


_METHODS: dict[int, Callable[[_Reader, int], Any]] = {
    tag.RECORD_EXT: _Reader.record,
    tag.NEW_FLOAT_EXT: _Reader.read_float,
    tag.BIT_BINARY_EXT: _Reader.bits,
    tag.COMPRESSED: _Reader.compressed,
    tag.ATOM_CACHE_REF: _Reader.atom_value,
    tag.NEW_PID_EXT: _Reader.pid,
    tag.NEW_PORT_EXT: _Reader.port,
    tag.NEWER_REFERENCE_EXT: _Reader.newer_reference,
    tag.SMALL_INTEGER_EXT: _Reader.small_integer,
    tag.INTEGER_EXT: _Reader.integer,
    tag.FLOAT_EXT: _Reader.old_float,
    tag.ATOM_EXT: _Reader.atom_value,
    tag.REFERENCE_EXT: _Reader.old_reference,
    tag.PORT_EXT: _Reader.old_port,
    tag.PID_EXT: _Reader.old_pid,
    tag.SMALL_TUPLE_EXT: _Reader.small_tuple,
    tag.LARGE_TUPLE_EXT: _Reader.large_tuple,
    tag.NIL_EXT: _Reader.nil,
    tag.STRING_EXT: _Reader.string,
    tag.LIST_EXT: _Reader.read_list,
    tag.BINARY_EXT: _Reader.binary,
    tag.SMALL_BIG_EXT: _Reader.bignum,
    tag.LARGE_BIG_EXT: _Reader.bignum,
    tag.NEW_FUN_EXT: _Reader.fun,
    tag.EXPORT_EXT: _Reader.export,
    tag.NEW_REFERENCE_EXT: _Reader.new_reference,
    tag.SMALL_ATOM_EXT: _Reader.atom_value,
    tag.MAP_EXT: _Reader.read_map,
    tag.ATOM_UTF8_EXT: _Reader.atom_value,
    tag.SMALL_ATOM_UTF8_EXT: _Reader.atom_value,
    tag.V4_PORT_EXT: _Reader.v4_port,
}

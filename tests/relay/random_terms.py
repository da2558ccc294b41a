"""External terms at random: as a BEAM writes them, in all other forms that it reads, and broken."""

import struct
from collections.abc import Callable
from random import Random

NODES = ("a@b", "näher@10.0.0.1")
ATOMS = ("ok", "error", "alpha", "beta", "", "é", "über", "€", "ok" * 127, "ü" * 200)


def atom(text: str, form: int = 0) -> bytes:
    """Form 0: UTF-8 as distribution writes it; 1: ATOM_UTF8_EXT; 2: ATOM_EXT; 3: SMALL_ATOM_EXT."""
    data = text.encode()
    try:
        latin = text.encode("latin-1")
    except UnicodeEncodeError:
        form &= 1
    if form == 2:
        return b"d" + len(latin).to_bytes(2) + latin
    if form == 3:
        return b"s" + len(latin).to_bytes(1) + latin
    if form == 1 or len(data) > 255:
        return b"v" + len(data).to_bytes(2) + data
    return b"w" + len(data).to_bytes(1) + data


def big(value: int, pad: int = 0, *, large: bool = False) -> bytes:
    digits = abs(value).to_bytes((abs(value).bit_length() + 7) // 8 + pad, "little")
    if large or len(digits) > 255:
        return b"o" + len(digits).to_bytes(4) + bytes([value < 0]) + digits
    return b"n" + len(digits).to_bytes(1) + bytes([value < 0]) + digits


def integer(value: int) -> bytes:
    if 0 <= value <= 255:
        return b"a" + bytes([value])
    if -(2**31) <= value < 2**31:
        return b"b" + value.to_bytes(4, signed=True)
    return big(value)


def sequence(items: list[bytes], tail: bytes = b"j") -> bytes:
    return b"l" + len(items).to_bytes(4) + b"".join(items) + tail


def pairs(items: list[tuple[bytes, bytes]]) -> bytes:
    return b"t" + len(items).to_bytes(4) + b"".join(key + value for key, value in items)


class Terms:
    """`plain`: only what term_to_binary of a BEAM would write, apart from atoms; else any form."""

    def __init__(self, random: Random, *, plain: bool) -> None:
        self.random = random
        self.plain = plain

    def any_form(self) -> bool:
        return not self.plain and self.random.random() < 0.3

    def term(self, depth: int = 3) -> bytes:
        leaves: list[Callable[[], bytes]] = [
            self.atom, self.integer, self.float, self.binary, self.bits, self.string, self.identity
        ]  # fmt: skip
        if depth == 0:
            return self.random.choice(leaves)()
        inner: list[Callable[[int], bytes]] = [
            self.tuple, self.list, self.map, self.colliding_map, self.fun
        ]  # fmt: skip
        if self.random.random() < 0.5:
            return self.random.choice(leaves)()
        return self.random.choice(inner)(depth - 1)

    def several(self, depth: int) -> list[bytes]:
        return [self.term(depth) for _ in range(self.random.randrange(5))]

    def atom(self) -> bytes:
        return atom(self.random.choice(ATOMS), 0 if self.plain else self.random.randrange(4))

    def integer(self) -> bytes:
        bits = self.random.choice((1, 8, 9, 31, 32, 33, 64, 2040, 2048))
        value = self.random.choice((1, -1)) * (2**bits + self.random.choice((-1, 0, 1)))
        if self.any_form():
            return big(value, self.random.randrange(3), large=self.random.random() < 0.3)
        return integer(value)

    def float(self) -> bytes:
        return b"F" + struct.pack(">d", self.random.choice((0.0, 1.0, -1.5, 1e300, 5e-324)))

    def binary(self) -> bytes:
        data = self.random.randbytes(self.random.randrange(20))
        return b"m" + len(data).to_bytes(4) + data

    def bits(self) -> bytes:
        bits, data = self.random.randrange(1, 8), bytearray(b"\xff" * self.random.randrange(1, 4))
        if not self.any_form():
            data[-1] &= 0xFF00 >> bits
        return b"M" + len(data).to_bytes(4) + bytes([bits]) + data

    def string(self) -> bytes:
        data = self.random.randbytes(self.random.randrange(1, 20))
        if self.any_form():
            return sequence([integer(byte) for byte in data])
        return b"k" + len(data).to_bytes(2) + data

    def identity(self) -> bytes:
        node = atom(self.random.choice(NODES), self.random.randrange(4) if self.any_form() else 0)
        small = [self.random.choice((1, 2, 77)) for _ in range(5)]
        u32s = struct.pack(">5I", *small)
        kind = self.random.randrange(8 if self.any_form() else 4)
        match kind:
            case 0:
                return b"X" + node + u32s[:12]
            case 1:
                return b"Y" + node + u32s[:8]
            case 2:
                count = self.random.choice((3, 5))
                return b"Z" + count.to_bytes(2) + node + u32s[:4] + u32s[: 4 * count]
            case 3:
                return b"q" + atom("mod") + atom("function") + integer(small[0])
            case 4:
                return b"x" + node + bytes(4) + u32s[:8]
            case 5:
                return b"g" + node + u32s[:8] + b"\x01"
            case 6:
                count = self.random.randrange(1, 6)
                words = u32s[: 4 * (count - 1)] + self.random.choice((bytes(4), u32s[:4]))
                return b"Z" + count.to_bytes(2) + node + u32s[:4] + words
            case _:
                return b"r\0\2" + node + b"\x01" + u32s[:8]

    def fun(self, depth: int) -> bytes:
        free = self.several(depth)
        rest = bytes([1]) + bytes(range(16)) + (3).to_bytes(4) + len(free).to_bytes(4)
        rest += atom("mod") + integer(3) + integer(123456)
        rest += b"X" + atom("a@b") + struct.pack(">3I", 1, 2, 3) + b"".join(free)
        return b"p" + (len(rest) + 4).to_bytes(4) + rest

    def tuple(self, depth: int) -> bytes:
        items = self.several(depth)
        head = b"i" + len(items).to_bytes(4) if self.any_form() else b"h" + bytes([len(items)])
        return head + b"".join(items)

    def list(self, depth: int) -> bytes:
        items = self.several(depth)
        if not items and self.plain:
            return b"j"
        if self.any_form():
            return sequence(items, self.term(depth))
        # A marker that is no byte keeps it from being a string for a BEAM.
        return sequence([*items, atom("ok")])

    def map(self, depth: int) -> bytes:
        if self.plain:
            keys = {self.plain_key() for _ in range(self.random.choice((1, 2, 5, 40)))}
            return pairs([(key, self.term(depth)) for key in sorted(keys)])
        return pairs([(self.term(depth), self.term(0)) for _ in range(self.random.randrange(4))])

    def plain_key(self) -> bytes:
        return self.random.choice((self.integer, self.atom, self.binary, self.string))()

    def colliding_map(self, depth: int) -> bytes:
        """Keys out of a small stock in which each term has several forms."""
        if self.plain:
            return self.map(depth)
        wrap = self.random.choice(
            (lambda key: key, lambda key: b"h\2" + key + b"j", _in_a_list, _in_a_map)
        )
        keys = [wrap(self.random.choice(STOCK)) for _ in range(self.random.choice((2, 2, 3, 20)))]
        return pairs([(key, b"j") for key in keys])


def _in_a_list(key: bytes) -> bytes:
    return sequence([key, atom("ok")])


def _in_a_map(key: bytes) -> bytes:
    return pairs([(key, key)])


def _stock() -> list[bytes]:
    """Families of encodings that a BEAM reads as one term, and their neighbours."""
    node = atom("a@b")
    stock = [atom(text, form) for text in ("a", "é", "€") for form in range(4)]
    for value in (0, 1, 255, 256, -1, 2**31 - 1, 2**31, -(2**31), -(2**31) - 1, 2**64, 2**2040):
        stock += [integer(value), big(value), big(value, 1), big(value, large=True)]
    stock += [
        b"b\0\0\0\0",
        b"b\0\0\0\1",
        b"n\1\1\0",
        b"n\0\0",
        b"F" + bytes(8),
        b"F\x80" + bytes(7),
    ]
    stock += [b"j", b"k\0\0", sequence([]), b"h\0", b"i" + bytes(4), pairs([]), b"m" + bytes(4)]
    text = [integer(byte) for byte in b"hi"]
    stock += [
        b"k\0\2hi",
        sequence(text),
        sequence(text[:1], b"k\0\1i"),
        sequence(text[:1], sequence(text[1:])),
    ]
    stock += [sequence([], b"k\0\2hi"), sequence(text, b"k\0\0"), sequence(text[:1], text[1])]
    stock += [b"h\1j", b"i\0\0\0\1j", b"M\0\0\0\1\1\x80", b"M\0\0\0\1\1\xff", b"M\0\0\0\1\2\x80"]
    one, two = (integer(1), b"j"), (integer(2), b"j")
    stock += [pairs([one, two]), pairs([two, one]), pairs([one]), pairs([(big(1), b"j")])]
    stock += [b"X" + n + struct.pack(">3I", 1, 2, 3) for n in (node, atom("a@b", 2))]
    stock += [b"g" + node + struct.pack(">2IB", 1, 2, 3)]
    stock += [b"Y" + node + struct.pack(">2I", 1, 3), b"x" + node + struct.pack(">QI", 1, 3)]
    for words in (
        [1],
        [1, 0],
        [1, 0, 0],
        [1, 2, 3],
        [1, 2, 3, 0],
        [1, 2, 3, 0, 0],
        [1, 2, 3, 4, 0],
    ):
        numbers = struct.pack(f">{len(words) + 1}I", 3, *words)
        stock += [b"Z" + len(words).to_bytes(2) + node + numbers]
    stock += [b"q" + atom("m", form) + atom("f") + integer(2) for form in (0, 2)]
    for pid in (1, 2):
        rest = bytes(17) + bytes(8) + atom("m") + integer(0) + integer(0)
        rest += b"X" + node + struct.pack(">3I", pid, 0, 3)
        stock.append(b"p" + (len(rest) + 4).to_bytes(4) + rest)
    return stock


STOCK = _stock()


def mutated(term: bytes, random: Random) -> bytes:
    """Changed in 1 to 3 places: a bit, a byte, a tag, a piece cut or doubled."""
    data = bytearray(term)
    for _ in range(random.randrange(1, 4)):
        if not data:
            break
        at = random.randrange(len(data))
        match random.randrange(6):
            case 0:
                data[at] ^= 1 << random.randrange(8)
            case 1:
                data[at] = random.randrange(256)
            case 2:
                data[at] = random.choice(b"CFMPRXYZabcdefghijklmnopqrstuvwxy\0\1\2\x7f\x80\xff")
            case 3:
                del data[at : at + random.randrange(1, 5)]
            case 4:
                data[at:at] = data[at : at + random.randrange(1, 20)]
            case _:
                data[at:at] = random.choice(STOCK)
    return bytes(data)

"""[roles.<name>.ops.<op>]: what an operation takes, and its compilation to what the relay walks.

A payload is declared in TOML and compiled to the flat nodes of struct rb_ops_config
(csrc/include/ringbridge/dispatch.h): the children of a node stand one behind the other, behind it.
docs/ops.md has the language.
"""

from __future__ import annotations

import math
import struct
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from msgspec import Meta

from bridge.config.section import Section
from bridge.fabric.limits import OpLimits, OpsLimits, SchemaKind, SchemaNode

OPS_MAX = 64  # dispatch.h, RB_SCHEMA_OPS_MAX, and so on
NODES_MAX = 512
TEXT_MAX = 8192
DEPTH_MAX = 16
KEYS_MAX = 64
NAME_MAX_BYTES = 27
ATOM_MAX_BYTES = 1020  # of 255 characters
_OPEN, _OPTIONAL = 1, 2
_WORDS = ("any", "integer", "float", "number", "binary", "atom", "boolean", "list", "map")
_KINDS = ("integer", "float", "number", "binary", "atom", "list", "tuple", "map", "one_of")


class OpSettings(Section, frozen=True):
    """[roles.<name>.ops.<op>]: its number, and what it takes."""

    opcode: Annotated[int, Meta(ge=0, le=65_535)]
    payload: Any = "any"
    # Of the meaning, where the types stay the same; callers that declare one compare it.
    version: Annotated[int, Meta(ge=0, le=2**32 - 1)] | None = None


class SchemaError(ValueError):
    """A declaration breaks a rule. `at`: where in it, like payload.q.list."""

    def __init__(self, at: str, value: Any, rule: str) -> None:
        super().__init__(f"{at}: {rule}")
        self.at, self.value, self.rule = at, value, rule


def compile_ops(ops: Mapping[str, OpSettings]) -> OpsLimits:
    """The program for a role's operations. Raises SchemaError."""
    program = _Program()
    table: list[OpLimits] = []
    for name, op in ops.items():
        if not 1 <= len(name.encode()) <= NAME_MAX_BYTES or not name.isprintable():
            rule = f"an operation's name has 1 to {NAME_MAX_BYTES} bytes, all printable"
            raise SchemaError(name, name, rule)
        if op.opcode in {other.opcode for other in table}:
            raise SchemaError(f"{name}.opcode", op.opcode, "another operation has this opcode")
        root = program.add(op.payload, f"{name}.payload")
        table.append(OpLimits(name=name, opcode=op.opcode, schema=root))
    if len(table) > OPS_MAX:
        raise SchemaError("(all)", None, f"a role has at most {OPS_MAX} operations")
    return OpsLimits(tuple(table), tuple(program.nodes), tuple(program.text))


class _Program:
    """Nodes and texts of all schemas of one role."""

    def __init__(self) -> None:
        self.nodes: list[SchemaNode] = []
        self.text = b""

    def add(self, declared: Any, at: str) -> int:
        """Compile one declaration, breadth first. Returns its root."""
        if _depth(declared, at) > DEPTH_MAX:
            raise SchemaError(at, None, f"at most {DEPTH_MAX} lists, tuples and maps in another")
        root = len(self.nodes)
        self.nodes.append(SchemaNode())
        waiting = deque([(root, declared, at, "", False)])
        while waiting:
            index, declared, at, key, optional = waiting.popleft()
            kind, fields, children = _read(declared, at)
            first = len(self.nodes)
            self.nodes += [SchemaNode() for _ in children]
            if len(self.nodes) > NODES_MAX:
                rule = f"the schemas of a role have at most {NODES_MAX} values, keys and atoms"
                raise SchemaError(at, None, rule)
            flags = (_OPTIONAL if optional else 0) | fields.pop("flags", 0)
            self.nodes[index] = SchemaNode(
                SchemaKind[kind.upper()],
                flags,
                first,
                len(children),
                *self._put(key, at),
                **fields,
            )
            for i, (child, where, child_key, child_optional) in enumerate(children):
                waiting.append((first + i, child, where, child_key, child_optional))
        return root

    def _put(self, text: str, at: str) -> tuple[int, int]:
        data = text.encode()
        if (place := self.text.find(data)) < 0:
            place = len(self.text)
            self.text += data
        if len(self.text) > TEXT_MAX:
            raise SchemaError(at, None, f"keys and atoms of a role have at most {TEXT_MAX} bytes")
        return place, len(data)


_Child = tuple[Any, str, str, bool]  # what is declared, where, its key or text, may be missing
_TEXT = object()  # in place of a declaration: an atom's text


def _read(declared: Any, at: str) -> tuple[str, dict[str, Any], list[_Child]]:
    """One level of a declaration: kind, fields of the node, children."""
    if declared is _TEXT:
        return "text", {}, []
    if isinstance(declared, str):
        return _word(declared, at)
    kind = _kind(declared, at)
    value, inner = declared[kind], f"{at}.{kind}"
    match kind:
        case "integer" | "binary":
            least = 0 if kind == "binary" else -(2**63)
            low, high = _bounds(value, inner, least)
            return kind, {"low": low, "high": high}, []
        case "float" | "number":
            low, high = _bounds(value, inner, -math.inf)
            return kind, {"low": _bits(low), "high": _bits(high)}, []
        case "atom":
            return kind, {}, [(_TEXT, inner, text, False) for text in _texts(value, inner)]
        case "list":
            low, high = _bounds(declared.get("size", [0]), f"{at}.size", 0)
            return kind, {"low": low, "high": high}, [(value, inner, "", False)]
        case "tuple":
            children = _sequence(value, inner)
            return kind, {}, [(v, f"{inner}[{i}]", "", False) for i, v in enumerate(children)]
        case "map":
            return kind, {"flags": _OPEN if declared.get("open") else 0}, list(_keys(value, inner))
        case _:
            children = _sequence(value, inner)
            _tell_apart(children, inner)
            return kind, {}, [(v, f"{inner}[{i}]", "", False) for i, v in enumerate(children)]


def _word(word: str, at: str) -> tuple[str, dict[str, Any], list[_Child]]:
    match word:
        case "any" | "atom":
            return word, {}, []
        case "integer":
            return word, {"low": -(2**63), "high": 2**63 - 1}, []
        case "float" | "number":
            return word, {"low": _bits(-math.inf), "high": _bits(math.inf)}, []
        case "binary":
            return word, {"low": 0, "high": 2**63 - 1}, []
        case "boolean":
            return "atom", {}, [(_TEXT, at, text, False) for text in ("true", "false")]
        case "list":
            return word, {"low": 0, "high": 2**63 - 1}, [("any", at, "", False)]
        case "map":
            return word, {"flags": _OPEN}, []
    raise SchemaError(at, word, f"it must be one of {', '.join(_WORDS)}, or a table")


_BESIDE = {"list": {"size"}, "map": {"open"}}


def _kind(declared: Any, at: str) -> str:
    """The one key of a table that says what it declares."""
    if not isinstance(declared, Mapping):
        rule = f"a value is declared by one of {', '.join(_WORDS)}, or by a table"
        raise SchemaError(at, declared, rule)
    kinds = [kind for kind in _KINDS if kind in declared]
    if len(kinds) != 1:
        raise SchemaError(at, None, f"a table has one of the keys {', '.join(_KINDS)}")
    kind = kinds[0]
    if others := set(declared) - {kind} - _BESIDE.get(kind, set()):
        raise SchemaError(f"{at}.{min(others)}", None, f"there is no such key beside {kind}")
    if not isinstance(declared.get("open", False), bool):
        raise SchemaError(f"{at}.open", declared["open"], "it must be true or false")
    return kind


def _bounds(value: Any, at: str, least: float) -> tuple[Any, Any]:
    """[low] or [low, high]."""
    whole = least != -math.inf
    most = 2**63 - 1 if whole else math.inf
    types = (int,) if whole else (int, float)
    if (
        not isinstance(value, list)
        or len(value) not in (1, 2)
        or any(type(bound) not in types for bound in value)
    ):
        what = "integers" if whole else "numbers"
        raise SchemaError(at, value, f"bounds are [low] or [low, high], {what}")
    low, high = (value[0], value[1] if len(value) == 2 else most)
    if not least <= low <= high <= most:
        raise SchemaError(at, value, "low is at most high, and both are in range")
    return low, high


def _bits(number: float) -> int:
    return int(struct.unpack("<q", struct.pack("<d", number))[0])


def _texts(value: Any, at: str) -> list[str]:
    if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
        raise SchemaError(at, value, "the atoms are a list of texts, one at least")
    for text in value:
        if len(text) > 255 or "\0" in text:
            raise SchemaError(at, text, "an atom has at most 255 characters, none of them NUL")
    return value


def _sequence(value: Any, at: str) -> Sequence[Any]:
    if not isinstance(value, list) or not value:
        raise SchemaError(at, value, "it must be a list of declarations, one at least")
    return value


def _keys(value: Any, at: str) -> Iterator[_Child]:
    """`key = ...`; `"key?" = ...` may be missing."""
    if not isinstance(value, Mapping):
        raise SchemaError(at, value, "it must be a table from keys to declarations")
    if len(value) > KEYS_MAX:
        raise SchemaError(at, None, f"a map has at most {KEYS_MAX} keys")
    seen = set()
    for name, declared in value.items():
        key = name.removesuffix("?")
        _texts([key], f"{at}.{name}")
        if key in seen:
            raise SchemaError(f"{at}.{name}", None, "this key is there twice")
        seen.add(key)
        yield declared, f"{at}.{key}", key, name.endswith("?")


def _depth(declared: Any, at: str) -> int:
    """How many lists, tuples and maps are open at once; this also checks each level."""
    if at.count(".") + at.count("[") > 4 * DEPTH_MAX:
        return DEPTH_MAX + 1
    kind, _, children = _read(declared, at)
    inner = max((_depth(child, where) for child, where, _, _ in children), default=0)
    return inner + (kind in ("list", "tuple", "map"))


def _tell_apart(alternatives: Sequence[Any], at: str) -> None:
    """The relay takes the first alternative that has the form of the value, and looks at no
    other: so no two may have the same form.
    """
    taken: set[str] = set()
    for i, declared in enumerate(alternatives):
        where = f"{at}[{i}]"
        for form in _forms(declared, where):
            every = form.rsplit(":", 1)[0] + ":*"
            clash = form in taken or every in taken
            if form.endswith(":*"):
                clash = clash or any(other.startswith(form[:-1]) for other in taken)
            if clash:
                rule = "alternatives differ in kind; tuples in size or first atom, atoms in text"
                raise SchemaError(where, declared, rule)
        taken |= set(_forms(declared, where))


def _forms(declared: Any, at: str) -> list[str]:
    kind, _, children = _read(declared, at)
    match kind:
        case "any" | "one_of":
            raise SchemaError(at, declared, f"{kind} is no alternative among others")
        case "number":
            return ["integer:", "float:"]
        case "atom":
            return [f"atom:{text}" for _, _, text, _ in children] or ["atom:*"]
        case "tuple":
            size = len(children)
            first = children[0][0] if children else None
            head = _read(first, at) if first is not None else ("any", {}, [])
            if head[0] == "atom" and head[2]:
                return [f"tuple.{size}:{text}" for _, _, text, _ in head[2]]
            return [f"tuple.{size}:*"]
    return [f"{kind}:"]

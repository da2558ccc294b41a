#!/usr/bin/env python3
"""Writes the bindings of csrc/layout.toml in five languages, of lane.toml in C and Elixir.

    generate_layout.py              writes every binding
    generate_layout.py --check      writes nothing; ends with 1 and names each file that is stale

Each binding is stamped with the layout's digest: the SHA-256 of the parsed tables as canonical JSON
(keys sorted, no blanks), so that a comment does not change it and everything else does. Standard
library only: it must run before anything of the project is installed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from layout_bindings import emit_c, emit_elixir, emit_python, emit_rust, emit_zig
from layout_model import TYPE_BYTES, Constant, Field, Layout, Record

NAME = re.compile(r"[a-z][a-z0-9_]*\Z")
TYPE = re.compile(r"(u8|u16|u32|u64)(?:\[([1-9][0-9]*)\])?\Z")

# Where each binding goes, from the root of the project.
OUTPUTS: Mapping[str, Callable[[Layout], str]] = {
    "csrc/include/ringbridge/layout.h": emit_c,
    "bridge/fabric/layout.py": emit_python,
    "elixir_client/lib/ringbridge/layout.ex": emit_elixir,
    "workers/rust/src/layout.rs": emit_rust,
    "workers/zig/src/layout.zig": emit_zig,
}


# Of lane.toml, whose other end is C too, in a BEAM; its telemetry is read by Elixir.
LANE_OUTPUTS: Mapping[str, Callable[[Layout], str]] = {
    "csrc/include/ringbridge/lane_layout.h": emit_c,
    "elixir_client/lib/ringbridge/lane/layout.ex": emit_elixir,
}


class LayoutError(ValueError):
    """layout.toml breaks a rule; the message names the table, the field and the rule."""


def digest_of(tables: Mapping[str, Any]) -> bytes:
    """SHA-256 of the tables' canonical JSON."""
    canonical = json.dumps(tables, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode("ascii")).digest()


def _whole(value: object, where: str, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise LayoutError(f"{where}: {value!r} is not a whole number from 0 to {most}")
    return value


def _name(value: object, where: str) -> str:
    if not isinstance(value, str) or not NAME.match(value):
        raise LayoutError(f"{where}: {value!r} is not a name (a-z, 0-9, _)")
    return value


def _only_keys(table: Mapping[str, Any], allowed: set[str], where: str) -> None:
    for key in table:
        if key not in allowed:
            raise LayoutError(f"{where}: unknown key {key!r} (known: {', '.join(sorted(allowed))})")


def _field(entry: Mapping[str, Any], where: str) -> Field:
    _only_keys(entry, {"name", "type", "at"}, where)
    name = _name(entry.get("name"), where)
    where = f"{where}.{name}"
    match = TYPE.match(str(entry.get("type")))
    if not match:
        wrong = entry.get("type")
        raise LayoutError(f"{where}: type {wrong!r} is not u8, u16, u32 or u64, alone or [count]")
    at = _whole(entry.get("at"), f"{where}: at", 2**32)
    item_bytes = TYPE_BYTES[match[1]]
    if at % item_bytes:
        raise LayoutError(f"{where}: a {match[1]} at {at} is not aligned to {item_bytes}")
    return Field(name=name, item=match[1], count=int(match[2]) if match[2] else None, at=at)


def _record(name: str, table: Mapping[str, Any]) -> Record:
    where = f"struct.{_name(name, 'struct')}"
    _only_keys(table, {"size", "fields"}, where)
    size = _whole(table.get("size"), f"{where}: size", 2**32)
    fields: list[Field] = []
    end = 0
    for entry in table.get("fields", []):
        field = _field(entry, where)
        if any(field.name == other.name for other in fields):
            raise LayoutError(f"{where}.{field.name}: declared twice")
        if field.at < end:
            before = f"{fields[-1].name}, which ends at {end}"
            raise LayoutError(f"{where}.{field.name}: begins at {field.at}, inside {before}")
        end = field.at + field.bytes
        fields.append(field)
    if not fields:
        raise LayoutError(f"{where}: has no fields")
    if end > size:
        raise LayoutError(f"{where}.{fields[-1].name}: ends at {end}, past the size {size}")
    widest = max(TYPE_BYTES[field.item] for field in fields)
    if size % widest:
        raise LayoutError(f"{where}: size {size} is not a multiple of {widest}, its alignment")
    return Record(name=name, size=size, fields=tuple(fields))


def _constants(tables: Mapping[str, Any]) -> list[Constant]:
    found: list[Constant] = []

    def add(group: str, table: Mapping[str, Any]) -> None:
        for name, value in table.items():
            _name(name, group or "constants")
            number = _whole(value, f"{group}.{name}", 2**64 - 1)
            found.append(Constant(group=group, name=name, value=number))

    layout = dict(tables["layout"])
    _only_keys(layout, {"version", "page_bytes", "line_bytes"}, "layout")
    add("layout", {"version": layout.pop("version", None)})
    add("", layout)
    constants = tables["constants"]
    add("", {name: value for name, value in constants.items() if not isinstance(value, dict)})
    for group, table in constants.items():
        if isinstance(table, dict):
            add(_name(group, "constants"), table)
    add("fd", tables.get("descriptors", {}))
    for name, value in tables.get("environment", {}).items():
        if not isinstance(value, str) or not re.match(r"[A-Z][A-Z0-9_]*\Z", value):
            raise LayoutError(f"environment.{name}: {value!r} is no name of a variable")
        found.append(Constant(group="env", name=_name(name, "environment"), value=value))
    return found


def parse(text: str, prefix: str = "") -> Layout:
    """Reads and checks the text of layout.toml; with `prefix`, of lane.toml. Raises LayoutError."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise LayoutError(f"not TOML: {error}") from error
    parts = {"layout", "struct", "constants"}
    if not prefix:  # a lane is inherited by nobody
        parts |= {"descriptors", "environment"}
    _only_keys(tables, parts, "layout.toml")
    for part in sorted(parts - tables.keys()):
        raise LayoutError(f"layout.toml: the table [{part}] is missing")
    records = tuple(_record(name, table) for name, table in tables["struct"].items())
    constants = tuple(_constants(tables))
    seen: set[str] = set()
    for constant in constants:
        if constant.full_name in seen:
            raise LayoutError(f"constant {constant.full_name}: declared twice")
        seen.add(constant.full_name)
    return Layout(digest=digest_of(tables), constants=constants, records=records, prefix=prefix)


def main(arguments: list[str] | None = None) -> int:
    root = Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description="Writes the bindings of csrc/layout.toml.")
    parser.add_argument("--check", action="store_true", help="fail when a binding is stale")
    parser.add_argument("--source", type=Path, default=root / "csrc" / "layout.toml")
    parser.add_argument("--lane", type=Path, default=root / "csrc" / "lane.toml")
    parser.add_argument("--root", type=Path, default=root, help="where the bindings are written")
    options = parser.parse_args(arguments)
    try:
        layout = parse(options.source.read_text(encoding="utf-8"))
        lane = parse(options.lane.read_text(encoding="utf-8"), "lane_")
    except LayoutError as error:
        print(f"{options.source}: {error}", file=sys.stderr)
        return 2
    wanted = {name: emit(layout) for name, emit in OUTPUTS.items()}
    wanted |= {name: emit(lane) for name, emit in LANE_OUTPUTS.items()}
    stale = 0
    for name, text in wanted.items():
        path = options.root / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        if options.check:
            print(f"{name} is stale: run csrc/generate_layout.py", file=sys.stderr)
            stale += 1
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(f"wrote {name}")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())

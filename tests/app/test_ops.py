"""Operations of a role, from ringbridge.toml to a caller's answer (docs/ops.md)."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from serve_support import BIN, ask, serving

from bridge.config import ConfigError
from bridge.config.ops import DEPTH_MAX, NODES_MAX, OpSettings, SchemaError, compile_ops
from bridge.config.reading import parse
from bridge.fabric import structs
from bridge.fabric._core import ffi, lib
from bridge.fabric.limits import RoleLimits, SchemaKind
from bridge.limits import role_limits
from bridge.testing import Beam, EpmdDaemon

ROLE = '[roles.stats]\ncommand = ["stats"]\n'
QUANTILE = """
[roles.stats.ops.quantile]
opcode = 3
payload.map.column.binary = [1, 64]
payload.map.q = { list = { float = [0.0, 1.0] }, size = [1, 100] }
payload.map."how?".atom = ["linear", "nearest"]
"""


def compiled(payload: Any) -> Any:
    return compile_ops({"op": OpSettings(opcode=0, payload=payload)})


def deep(levels: int) -> Any:
    return {"list": deep(levels - 1)} if levels else "any"


def test_kinds_have_the_numbers_of_the_core() -> None:
    for kind in SchemaKind:
        assert getattr(lib, f"RB_SCHEMA_{kind.name}") == kind.value
    assert len(SchemaKind) == lib.RB_SCHEMA_KINDS


def test_children_stand_behind_their_parents_and_in_one_row() -> None:
    limits = role_limits(parse(ROLE + QUANTILE, Path("x.toml")), "stats")
    nodes = limits.ops.nodes
    taken = [index for node in nodes for index in range(node.first, node.first + node.count)]
    assert sorted(taken) == list(range(1, len(nodes)))  # each but the root is the child of one
    assert all(node.count == 0 or node.first > index for index, node in enumerate(nodes))
    root = nodes[limits.ops.table[0].schema]
    text = bytes(limits.ops.text)
    keys = [text[n.text_at : n.text_at + n.text_bytes] for n in nodes[root.first : root.first + 3]]
    assert keys == [b"column", b"q", b"how"]


@pytest.mark.parametrize(
    "payload",
    [
        *("any", "integer", "float", "number", "binary", "atom", "boolean", "list", "map"),
        {"integer": [-5]},
        {"number": [0, 1.5]},
        {"binary": [0, 64]},
        {"tuple": ["integer", {"atom": ["ok"]}]},
        {"map": {}, "open": True},
        {"one_of": ["integer", "float", {"atom": ["a"]}, {"atom": ["b"]}, "map"]},
        {"one_of": [{"tuple": [{"atom": ["a"]}, "any"]}, {"tuple": [{"atom": ["b"]}, "any"]}]},
        deep(DEPTH_MAX),
    ],
)
def test_what_compiles_is_sound_for_the_relay(payload: Any) -> None:
    limits = RoleLimits("stats", ops=compiled(payload))
    made = structs.filled("struct rb_role_config", limits)
    relay = ffi.new("struct rb_relay **")
    config = structs.filled("struct rb_relay_config", _still())
    assert lib.rb_lab_open(relay, config.pointer, 1) == 0
    assert lib.rb_relay_add_role(relay[0], 0, made.pointer) == 0
    lib.rb_relay_close(relay[0])


def _still() -> Any:
    from dataclasses import make_dataclass

    fields = {"node": "a@b", "creation": 1, "tick_ms": 1_000, "silence_ms": 5_000}
    return make_dataclass("Still", fields)(**fields)


@pytest.mark.parametrize(
    ("payload", "at"),
    [
        ("inte", "op.payload"),
        (3, "op.payload"),
        ({}, "op.payload"),
        ({"integer": [2, 1]}, "op.payload.integer"),
        ({"integer": [0.5]}, "op.payload.integer"),
        ({"integer": [2**63]}, "op.payload.integer"),
        ({"binary": [-1]}, "op.payload.binary"),
        ({"binary": [1, 2], "size": [1]}, "op.payload.size"),
        ({"list": 3}, "op.payload.list"),
        ({"tuple": []}, "op.payload.tuple"),
        ({"atom": ["a" * 256]}, "op.payload.atom"),
        ({"map": {"a": "any", "a?": "any"}}, "op.payload.map.a?"),
        ({"map": {}, "open": 1}, "op.payload.open"),
        ({"one_of": ["integer", "number"]}, "op.payload.one_of[1]"),
        ({"one_of": ["any", "integer"]}, "op.payload.one_of[0]"),
        ({"one_of": [{"tuple": ["any"]}, {"tuple": [{"atom": ["a"]}]}]}, "op.payload.one_of[1]"),
        ({"one_of": [{"atom": ["a"]}, "atom"]}, "op.payload.one_of[1]"),
        (deep(DEPTH_MAX + 1), "op.payload"),
        ({"tuple": ["any"] * NODES_MAX}, "op.payload"),
    ],
)
def test_a_declaration_that_breaks_a_rule_is_told_with_its_place(payload: Any, at: str) -> None:
    with pytest.raises(SchemaError) as told:
        compiled(payload)
    assert told.value.at == at


def test_a_configuration_names_the_key_of_a_broken_schema() -> None:
    with pytest.raises(ConfigError) as told:
        parse(f'{ROLE}[roles.stats.ops.mean]\nopcode = 1\npayload = "inte"', Path("x.toml"))
    assert told.value.key == "roles.stats.ops.mean.payload"


@pytest.mark.beam
@pytest.mark.skipif(shutil.which("elixir") is None, reason="no Elixir here")
async def test_a_caller_hears_what_is_wrong_before_any_worker_does(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path
) -> None:
    settings = f"""
[roles.work]
command = ["{BIN}/rb-conformance"]
[roles.work.ops.echo]
opcode = 0
payload.map.n.integer = [0, 10]
[roles.work.ops.about]
opcode = 15
"""
    async with serving(epmd, tmp_path, alive="ops", settings=settings) as bridge:
        await bridge.wait_workers(1)

        async def submit(payload: str, options: str, verb: str = "submit") -> str:
            call = f"{{:{verb}, :work, {payload}, {options}}}"
            return await ask(beam, f"GenServer.call({bridge.target()}, {call}, 20_000)")

        assert await submit("%{n: 7}", "[op: :echo]") == "{:ok, %{n: 7}}"
        wrong = await submit("%{n: 11}", "[op: :echo]")
        assert wrong == (
            '{:error, {:bad_request, "submit: op echo: payload.n must be an integer of 0 to 10, '
            'got 11"}}'
        )
        assert "has no operation of opcode 7" in await submit('"x"', "[opcode: 7]")
        many = await submit("[%{n: 1}, %{n: -1}, %{n: 2}]", "[op: :echo]", "submit_many")
        assert many.startswith("{:ok, [ok: %{n: 1}, error: {:bad_request, ")
        assert many.endswith("ok: %{n: 2}]}")
        large = await submit(':binary.copy("x", 200_000)', "[op: :echo]")
        assert "payload must be a map, got a binary of 200000 bytes" in large
        stats = await ask(beam, f"elem(GenServer.call({bridge.target()}, :stats), 1).accepted")
        assert stats == "3"
        registry = bridge.target("Ringbridge.WorkerRegistry")
        listed = await ask(beam, f"hd(elem(GenServer.call({registry}, :list), 1)).operations")
        assert '%{name: "emit", opcode: 3, takes: [:raw, :parts]}' in listed

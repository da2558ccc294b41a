"""rpc, erpc and spawn towards us, and the very same towards a BEAM: the answers are equal."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from exported import ELIXIR, demo
from node_support import OpenNode, needs_erlang

from bridge.testing import Beam, BeamError, EpmdDaemon

pytestmark = [needs_erlang, pytest.mark.beam]

# What spawned processes tell is received with a deadline.
PRELUDE = """
Process.flag(:trap_exit, true)
told = fn ->
  receive do
    message when not is_tuple(message) or elem(message, 0) not in [:EXIT, :DOWN] -> message
  after
    3000 -> :nothing
  end
end
down = fn ref -> receive do {:DOWN, ^ref, :process, _, why} -> why after 3000 -> :nothing end end
gone = fn pid -> receive do {:EXIT, ^pid, why} -> why after 3000 -> :nothing end end
failure = fn run ->
  try do
    {:returned, run.()}
  catch
    kind, reason -> {kind, reason}
  end
end
gone_fun = fn ->
  Code.compile_string("defmodule Passing do def fun, do: (x = node(); fn -> x end) end")
  fun = apply(Passing, :fun, [])
  :code.purge(Passing); :code.delete(Passing); :code.purge(Passing)
  fun
end
fun = gone_fun.()
:ok
"""


def sections() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in Path(__file__).with_name("remote_calls.txt").read_text().splitlines():
        if line.startswith("# -- "):
            name = line.removeprefix("# -- ")
            found[name] = []
        elif line and not line.startswith("#"):
            found[name].append(line)
    return found


SECTIONS = sections()


def same(text: str, node: str) -> str:
    """Without what differs from node to node: names, pids, references, lines of OTP's sources."""
    text = text.replace(node, "NODE")
    text = re.sub(r"#PID<[^>]*>", "PID", text)
    text = re.sub(r"#Reference<[^>]*>", "REF", text)
    return re.sub(r"\[file: ~?[c'\"]+[a-z_]+\.erl['\"], line: \d+\]", "[]", text)


async def transcript(beam: Beam, node: str, expressions: list[str]) -> list[tuple[str, str]]:
    await beam.evaluate(f"n = :'{node}'")
    lines = []
    for expression in expressions:
        try:
            value = await beam.evaluate(expression)
        except BeamError as error:
            value = str(error)
        lines.append((expression, same(value, node)))
    return lines


class Pair:
    """A BEAM that calls, one that is called, and what that answered."""

    def __init__(self, epmd: EpmdDaemon) -> None:
        self.caller = Beam("rpccaller", epmd.port)
        self.called = Beam("rpccalled", epmd.port)
        self._started = False
        self._answers: dict[str, list[tuple[str, str]]] = {}

    async def start(self) -> None:
        if not self._started:
            await self.caller.ready()
            await self.called.ready()
            assert await self.called.evaluate(ELIXIR) == ":ok"
            assert await self.caller.evaluate(PRELUDE) == ":ok"
            self._started = True

    async def answers_of_the_beam(self, section: str) -> list[tuple[str, str]]:
        if section not in self._answers:
            answers = await transcript(self.caller, self.called.name, SECTIONS[section])
            self._answers[section] = answers
        return self._answers[section]


@pytest.fixture(scope="module")
def pair(epmd: EpmdDaemon) -> Iterator[Pair]:
    both = Pair(epmd)
    yield both
    both.caller.close()
    both.called.close()


@pytest.mark.parametrize("section", SECTIONS)
async def test_a_caller_cannot_tell_us_from_a_beam(
    pair: Pair, open_test_node: OpenNode, section: str
) -> None:
    await pair.start()
    expected = await pair.answers_of_the_beam(section)
    async with open_test_node(exports=demo()) as node:
        answers = await transcript(pair.caller, node.name, SECTIONS[section])
        with trio.fail_after(60):  # what was given up is still being cancelled
            await node.executions.wait_none()
    assert [both for both in zip(answers, expected, strict=True) if both[0] != both[1]] == []

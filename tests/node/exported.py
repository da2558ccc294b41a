"""Functions that the tests publish, and the Elixir module that is their equal on a BEAM."""

from __future__ import annotations

from typing import Any

import trio

from bridge.etf import Atom
from bridge.node.exports import Exports, Raise

# The same functions for a BEAM: what it answers for them is what we have to answer.
ELIXIR = """
defmodule Demo do
  def add(a, b), do: a + b
  def echo(term), do: term
  def now(), do: :now
  def error(reason), do: :erlang.raise(:error, reason, [])
  def exits(reason), do: exit(reason)
  def throws(value), do: throw(value)
  def slow(value), do: (Process.sleep(20); value)
  def print(text), do: IO.write(text)
  def forward(to, message), do: send(to, message)
  def for_ever(), do: Process.sleep(:infinity)
end
:ok
"""


def demo() -> Exports:
    exports = Exports()

    @exports.function("Demo")
    def add(a: int, b: int) -> int:
        return a + b

    @exports.function("Demo")
    def echo(term: Any) -> Any:
        return term

    @exports.function("Demo")
    def now() -> Any:
        return Atom("now")

    @exports.function("Demo")
    def error(reason: Any) -> Any:
        raise Raise("error", reason)

    @exports.function("Demo")
    async def exits(reason: Any) -> Any:
        raise Raise("exit", reason)

    @exports.function("Demo")
    def throws(value: Any) -> Any:
        raise Raise("throw", value)

    @exports.function("Demo")
    async def slow(value: Any) -> Any:
        await trio.sleep(0.02)
        return value

    @exports.function("Demo", "print")
    async def print_it(text: bytes, *, caller: Any) -> Any:
        await caller.print(text.decode())
        return Atom("ok")

    @exports.process("Demo")
    async def forward(me: Any, to: Any, message: Any) -> Any:
        me.send(to, message)
        return message

    @exports.process("Demo")
    async def for_ever(me: Any) -> None:
        await trio.sleep_forever()

    return exports

"""The table of what other nodes may run."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.etf import Atom
from bridge.node.exports import Exports, Raise


def spelt(exports: Exports) -> list[tuple[str, str, int]]:
    return sorted((module.name, name.name, arity) for module, name, arity in exports)


def test_the_arity_is_that_of_the_signature() -> None:
    exports = Exports()

    @exports.function("math", "add")
    def add(a: int, b: int) -> int:
        return a + b

    @exports.function("math", "round")
    async def rounded(number: float, digits: int = 0) -> float:
        return round(number, digits)

    @exports.function("math")
    def now(*, caller: Any) -> Any:
        return caller

    assert spelt(exports) == [
        ("math", "add", 2),
        ("math", "now", 0),
        ("math", "round", 1),
        ("math", "round", 2),
    ]
    found = exports.find(Atom("math"), Atom("add"), 2)
    assert found is not None
    assert (found.run, found.kind, found.is_async, found.takes_caller) == (
        add,
        "function",
        False,
        False,
    )
    found = exports.find(Atom("math"), Atom("now"), 0)
    assert found is not None
    assert found.takes_caller
    assert exports.find(Atom("math"), Atom("add"), 1) is None
    assert exports.find(Atom("math"), Atom("sub"), 2) is None


def test_any_number_of_arguments() -> None:
    exports = Exports()

    @exports.function("io", "all")
    def every(first: Any, *rest: Any) -> Any:
        return [first, *rest]

    assert exports.find(Atom("io"), Atom("all"), 0) is None
    assert exports.find(Atom("io"), Atom("all"), 1) is not None
    assert exports.find(Atom("io"), Atom("all"), 255) is not None
    assert len(exports) == 255


@pytest.mark.parametrize(
    ("module", "atom"),
    [
        ("MyApp.Math", "Elixir.MyApp.Math"),
        ("Elixir.MyApp.Math", "Elixir.MyApp.Math"),
        ("my_app", "my_app"),
        (Atom("OTP-PUB-KEY"), "OTP-PUB-KEY"),
    ],
)
def test_a_capital_makes_an_elixir_alias(module: Any, atom: str) -> None:
    exports = Exports()
    exports.function(module, "f")(lambda: 1)
    assert exports.has_module(Atom(atom))
    assert exports.modules() == [Atom(atom)]
    assert not exports.has_module(Atom("other"))


def test_a_process_does_not_count_its_handle() -> None:
    exports = Exports()

    @exports.process("observer_backend", "procs_info")
    async def procs_info(me: Any, collector: Any) -> None:
        pass

    found = exports.find(Atom("observer_backend"), Atom("procs_info"), 1)
    assert found is not None
    assert found.kind == "process"
    assert len(exports) == 1


def test_signatures_that_no_erlang_call_fits() -> None:
    exports = Exports()
    with pytest.raises(TypeError, match="gives no timeout="):

        @exports.function("m", "f")
        def f(a: Any, *, timeout: float) -> None:
            pass

    with pytest.raises(TypeError, match="is an async function"):
        exports.process("m", "g")(lambda me: None)
    with pytest.raises(TypeError, match="takes its handle first"):

        @exports.process("m", "h")
        async def h() -> None:
            pass

    assert len(exports) == 0


def test_nothing_is_published_twice() -> None:
    exports, other = Exports(), Exports()
    exports.function("m", "f")(lambda a: a)
    with pytest.raises(ValueError, match="published already: m:f/1"):
        exports.function("m", "f")(lambda a, b=1: a)
    assert spelt(exports) == [("m", "f", 1)]
    other.function("m", "f")(lambda a: a)
    other.function("m", "g")(lambda: 1)
    with pytest.raises(ValueError, match="published already: m:f/1"):
        exports.merge(other)
    assert spelt(exports) == [("m", "f", 1)]


def test_merging_joins_tables() -> None:
    exports, other = Exports(), Exports()
    exports.function("m", "f")(lambda: 1)
    other.function("m", "g", admin=True)(lambda: 2)
    exports.merge(other)
    assert spelt(exports) == [("m", "f", 0), ("m", "g", 0)]
    found = exports.find(Atom("m"), Atom("g"), 0)
    assert found is not None
    assert found.admin


@pytest.mark.parametrize("module", [None, True, 1, b"m", "m", [109], ("m",)])
def test_what_is_no_atom_finds_nothing(module: Any) -> None:
    exports = Exports()
    exports.function("m", "f")(lambda: 1)
    assert exports.find(module, Atom("f"), 0) is None
    assert exports.find(Atom("m"), module, 0) is None
    assert not exports.has_module(module)


def test_raise_knows_three_classes() -> None:
    raised = Raise("throw", (Atom("a"), 1))
    assert (raised.kind, raised.reason, raised.stack) == ("throw", (Atom("a"), 1), None)
    with pytest.raises(ValueError, match="an error, an exit or a throw"):
        Raise("crash", 1)  # type: ignore[arg-type]

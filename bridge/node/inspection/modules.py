"""Which modules the node has, to whom it asks `code`, `erlang:function_exported` or
`M:module_info`: those with something published, and those that its processes name as theirs.

Nothing is ever loaded. LiveDashboard sends its own `SystemInfo` module to each node that it shows;
it is told that this went well, since the functions that it will call of it are published here.
"""

from __future__ import annotations

import hashlib
from typing import Any

from bridge.etf import Atom, charlist
from bridge.node.exports import Exports
from bridge.node.inspection.process_info import badarg

Term = Any
SYSTEM_INFO = Atom("Elixir.Phoenix.LiveDashboard.SystemInfo")
_PRELOADED = Atom("preloaded")


class Modules:
    """`exports`: the whole table of the node, those of the program included."""

    def __init__(self, exports: Exports) -> None:
        self._exports = exports
        self._named: set[Atom] = set()

    def name(self, module: Atom) -> None:
        """A process says that it runs `module`: from now on there is such a module."""
        if module in self._named:
            return
        self._named.add(module)

        def module_info(item: Term = None) -> Term:
            return self._module_info(module, item)

        if self._exports.find(module, Atom("module_info"), 0) is None:
            self._exports.function(module, "module_info")(module_info)

    def all(self) -> list[Atom]:
        return sorted({*self._exports.modules(), *self._named}, key=lambda module: module.name)

    def has(self, module: Term) -> bool:
        return self._exports.has_module(module) or module in self._named

    def publish(self, exports: Exports) -> None:
        @exports.function("code", "is_loaded")
        def is_loaded(module: Term) -> Term:
            if module == SYSTEM_INFO or not self.has(module):
                return False
            return (Atom("file"), _PRELOADED)

        @exports.function("code", "load_binary")
        def load_binary(module: Term, filename: Term, binary: Term) -> Term:
            if module == SYSTEM_INFO:
                return (Atom("module"), module)
            return (Atom("error"), Atom("badfile"))

        @exports.function("code", "ensure_loaded")
        def ensure_loaded(module: Term) -> Term:
            if self.has(module):
                return (Atom("module"), module)
            return (Atom("error"), Atom("nofile"))

        @exports.function("code", "which")
        def which(module: Term) -> Term:
            return _PRELOADED if self.has(module) else Atom("non_existing")

        @exports.function("code", "all_loaded")
        def all_loaded() -> Term:
            return [(module, _PRELOADED) for module in self.all()]

        @exports.function("code", "get_object_code")
        def get_object_code(module: Term) -> Term:
            return Atom("error")

        @exports.function("erlang", "loaded")
        def loaded() -> Term:
            return self.all()

        @exports.function("erlang", "module_loaded")
        def module_loaded(module: Term) -> Term:
            return self.has(module)

        @exports.function("erlang", "function_exported")
        def function_exported(module: Term, function: Term, arity: Term) -> Term:
            if type(arity) is not int:
                raise badarg()
            return self._exports.find(module, function, arity) is not None

        @exports.function("Code", "ensure_loaded?")
        def code_ensure_loaded(module: Term) -> Term:
            return self.has(module)

        @exports.function("Code", "loaded?")
        def code_loaded(module: Term) -> Term:
            return self.has(module)

    def _module_info(self, module: Atom, item: Term) -> Term:
        functions = [(name, arity) for owner, name, arity in self._exports if owner == module]
        everything = {
            "module": module,
            "exports": sorted(functions, key=lambda pair: (pair[0].name, pair[1])),
            "attributes": [(Atom("behaviour"), [Atom("gen_server")])],
            "compile": [(Atom("source"), charlist("python"))],
            "md5": hashlib.md5(module.name.encode(), usedforsecurity=False).digest(),
        }
        if item is None:
            return [(Atom(name), value) for name, value in everything.items()]
        if isinstance(item, Atom) and item.name == "functions":
            return everything["exports"]
        if isinstance(item, Atom) and item.name in everything:
            return everything[item.name]
        raise badarg()

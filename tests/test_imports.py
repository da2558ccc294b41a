"""Imports point one way. Nothing is run for it: the import statements are read, those for types and
those within functions too.
"""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parent.parent

# A process knows its node and the node starts processes, so their types name each other. When the
# program runs, only the node imports processes.
NODE_AND_PROCESSES = {
    ("bridge.node.process.handle", "bridge.node.node"),
    ("bridge.node.process.plain", "bridge.node.node"),
    ("bridge.node.process.server", "bridge.node.node"),
    ("bridge.node.process.service", "bridge.node.node"),
}

# What serves alone, and what of the bridge each may use besides itself.
FLOORS: dict[str, set[str]] = {
    "etf": set(),
    "dist": {"etf", "log"},
    "fabric": {"dist", "log"},
    "node": {"etf", "dist", "fabric", "log"},
}


def modules() -> dict[str, Path]:
    found = {}
    for path in (ROOT / "bridge").rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()
TREES = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}


def imports(tree: ast.AST, *, types: bool = True) -> Iterator[str]:
    """The modules of the bridge that `tree` imports; without `types` not those for types alone."""
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.If(test=ast.Name(id="TYPE_CHECKING")) if not types:
                continue
            case ast.Import(names=names):
                yield from (name.name for name in names if name.name in MODULES)
            case ast.ImportFrom(module=str(module), names=names, level=0):
                for name in names:
                    inner = f"{module}.{name.name}"
                    is_module = (
                        inner in MODULES or (ROOT / f"{inner.replace('.', '/')}.pyi").exists()
                    )
                    if (named := inner if is_module else module) in MODULES:
                        yield named
        yield from imports(node, types=types)


def graph(*, types: bool = True) -> dict[str, set[str]]:
    return {name: {*imports(tree, types=types)} - {name} for name, tree in TREES.items()}


def circle(of: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(of).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


def test_no_module_imports_itself_by_way_of_others() -> None:
    assert circle(graph(types=False)) == []


def test_nor_for_types_but_a_process_its_node() -> None:
    everything = graph()
    for process, node in NODE_AND_PROCESSES:
        everything[process].remove(node)  # KeyError: the exception is not needed any more
    assert circle(everything) == []


def test_what_serves_alone_knows_nothing_of_what_is_above_it() -> None:
    for name, used in graph().items():
        floor = name.split(".")[1:2]
        if floor and floor[0] in FLOORS:
            rooms = {each.split(".")[1] for each in used if "." in each}
            assert rooms <= {*floor} | FLOORS[floor[0]], name


def test_relative_imports_are_not_used_for_they_are_not_read_here() -> None:
    for name, tree in TREES.items():
        levels = [node.level for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        assert not any(levels), name

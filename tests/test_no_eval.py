"""Nothing that runs in the bridge turns data into code: no eval, no exec, no pickle.

The linter's S rules say the same of calls; this test reads the syntax trees, so it sees imports and
names that are only passed on, too.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = frozenset(
    {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "code"}
)
NAMES = frozenset({"eval", "exec", "compile", "__import__"})
SOURCES = [path for part in ("bridge", "workers") for path in sorted((ROOT / part).rglob("*.py"))]


def findings(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (n.name for n in names if n.name.partition(".")[0] in MODULES)
            case ast.ImportFrom(module=str(module)) if module.partition(".")[0] in MODULES:
                yield module
            case ast.Name(id=name) if name in NAMES:
                yield name
            case ast.Attribute(value=ast.Name(id="builtins"), attr=name) if name in NAMES:
                yield name


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_data_becomes_code(path: Path) -> None:
    assert list(findings(path.read_text("utf-8"))) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import marshal as m",
        "from pickle import loads",
        "eval('1')",
        "run = exec",
        "map(eval, [])",
        "import builtins\nbuiltins.eval('1')",
    ],
)
def test_the_look_finds_what_it_is_for(source: str) -> None:
    assert list(findings(source)) != []

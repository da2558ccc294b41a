"""The worker that README and docs begin with is the one that runs."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

from workers.conformance.jobs import OK

from .conftest import ROOT, Start

PAGE = (ROOT / "docs" / "workers-python.md").read_text()
KIT = ROOT / "workers" / "python" / "ringbridge_worker"


def test_the_page_s_first_worker_runs(start: Start) -> None:
    match = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert match is not None
    peer = start(match[1])
    peer.expect(peer.submit(0, b"hello"), OK, b"HELLO")
    shown = ast.get_docstring(ast.parse((KIT / "__init__.py").read_text())) or ""
    assert inspect.cleandoc(match[1]) in inspect.cleandoc(shown.replace("\n    ", "\n"))


@pytest.mark.parametrize("path", sorted(KIT.glob("*.py*")), ids=lambda path: path.name)
def test_everything_of_the_kit_is_imported_from_the_standard_library(path: Path) -> None:
    """But for the codec, inside functions, and what only a type checker reads."""
    if path.suffix == ".pyi":
        return
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom):
            assert node.module is not None
            root = node.module.split(".")[0]
            assert root in (
                *("__future__", "ringbridge_worker", "collections", "typing"),
                *("os", "sys", "functools", "inspect", "traceback"),
            )


def test_the_page_names_every_member_of_a_job_and_every_name_of_the_package() -> None:
    stub = ast.parse((KIT / "_kit.pyi").read_text())
    job = next(n for n in stub.body if isinstance(n, ast.ClassDef))
    members = {n.name for n in job.body if isinstance(n, ast.FunctionDef)}
    python = ast.parse((KIT / "_job.py").read_text())
    job = next(n for n in python.body if isinstance(n, ast.ClassDef) and n.name == "Job")
    members |= {n.name for n in job.body if isinstance(n, ast.FunctionDef)}
    for name in members:
        assert name.startswith("_") or f"job.{name}" in PAGE, name
    exported = re.search(r"__all__ = \[(.*?)\]", (KIT / "__init__.py").read_text(), re.DOTALL)
    assert exported is not None
    for name in re.findall(r'"(\w+)"', exported[1]):
        assert name in PAGE or name in ("Answer", "Handler"), name

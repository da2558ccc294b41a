"""Every program of examples/ runs, and answers an iex as its first lines say."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
import trio

from bridge.node import EpmdClient
from bridge.testing import COOKIE, HOST, Beam, EpmdDaemon
from bridge.testing.plugin import StartBeam

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))

pytestmark = pytest.mark.beam


def environment(epmd: EpmdDaemon) -> dict[str, str]:
    return {
        **os.environ,
        "RINGBRIDGE_COOKIE": COOKIE,
        "ERL_EPMD_PORT": str(epmd.port),
        "PYTHONPATH": str(ROOT),
    }


@contextmanager
def running(program: Path, epmd: EpmdDaemon) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, program], env=environment(epmd), cwd=ROOT) as process:
        try:
            yield process
        finally:
            process.kill()  # leaving the block waits for its end


def session_of(program: Path) -> list[tuple[str, str, str]]:
    """What the first lines of `program` type: into iex or a shell, what, and what is printed."""
    text = ast.get_docstring(ast.parse(program.read_text())) or ""
    return [
        (prompt, typed, printed.strip())
        for prompt, typed, printed in re.findall(
            r"^(iex>|\$) (.*)\n((?:(?!iex> |\$ ).+(?:\n|$))+)", text, re.MULTILINE
        )
    ]


async def run_in_shell(command: str, beam: Beam, epmd: EpmdDaemon) -> str:
    """`python examples/NAME.py me@127.0.0.1` in a shell, beside the BEAM that is `me`."""
    _, program, *arguments = command.replace("me@127.0.0.1", beam.name).split()
    ran = await trio.run_process(
        [sys.executable, program, *arguments], env=environment(epmd), cwd=ROOT, capture_stdout=True
    )
    return ran.stdout.decode().strip()


def names_of(program: Path) -> list[str]:
    """The nodes that `program` opens."""
    return re.findall(r'open_node\("(\w+)@', program.read_text())


async def wait_until_it_answers(
    names: list[str], epmd: EpmdDaemon, process: subprocess.Popen[bytes]
) -> None:
    client = EpmdClient(port=epmd.port)
    for alive in names:
        while await client.lookup(alive, HOST) is None:
            assert process.poll() is None, "the program ended"
            await trio.sleep(0.01)


@pytest.mark.parametrize("program", EXAMPLES, ids=lambda path: path.stem)
async def test_an_example_answers_as_it_says(
    program: Path, epmd: EpmdDaemon, start_beam: StartBeam
) -> None:
    session = session_of(program)
    assert session, "its first lines show what to type"
    beam = await start_beam().ready()
    is_server = all(prompt == "iex>" for prompt, _, _ in session)
    with running(program, epmd) if is_server else nullcontext() as process:
        if process is not None:
            await wait_until_it_answers(names_of(program), epmd, process)
        for prompt, typed, printed in session:
            if prompt == "iex>":
                assert await beam.evaluate(typed) == printed
            else:
                assert await run_in_shell(typed, beam, epmd) == printed


def test_the_table_names_every_example() -> None:
    listed = re.findall(
        r"^\| `(\w+)\.py` \|", (ROOT / "examples/README.md").read_text(), re.MULTILINE
    )
    assert sorted(listed) == [path.stem for path in EXAMPLES]

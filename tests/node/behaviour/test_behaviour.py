"""One battery of cases against a process on a BEAM and against ours: a BEAM sees the same of both.

battery.exs runs the cases of the files beside it; subject.exs and subject.py are the processes.
The same driver, a node of its own, tells of both, so what differs is the subject's.
"""

from __future__ import annotations

import json
import re
from contextlib import ExitStack
from fnmatch import filter as matching
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import trio
from node_support import needs_erlang
from subject import EXPORTS, Server

from bridge.node import EpmdClient, open_node
from bridge.testing import COOKIE, HOST, Beam, EpmdDaemon

pytestmark = [needs_erlang, pytest.mark.beam, pytest.mark.smoke, pytest.mark.timeout(240)]

FOLDER = Path(__file__).parent
GROUPS = [
    "calls",
    "casts and sends",
    "monitors",
    "links and exits",
    "aliases",
    "names",
    "sys",
    "rpc and erpc",
    "spawns",
    "the node",
]

# Cases (shell patterns) in which a BEAM sees something else of a Python node, and why that is so.
# One that comes to be equal fails too, so that the list never says more than the truth.
DIFFERENT: dict[str, str] = {
    "sys: replace_state": "it sends a function, and a Python process runs nobody's functions",
}

Transcript = dict[str, dict[str, str]]


async def transcript(driver: Beam, subject: str) -> Transcript:
    """What the driver sees of the processes on the node `subject`: group, case, text."""
    # In base 16 the text of a list of strings is JSON too, whatever is in them.
    lines = await driver.evaluate(
        f"Behaviour.Battery.run(:'{subject}') |> Enum.map(fn {{group, name, text}} -> "
        "Enum.map([group, name, text], &Base.encode16/1) end)"
    )
    found: Transcript = {}
    for line in json.loads(lines):
        group, name, text = (bytes.fromhex(field).decode() for field in line)
        found.setdefault(group, {})[name] = text
    return found


@pytest.fixture(scope="module")
def transcripts(epmd: EpmdDaemon) -> tuple[Transcript, Transcript]:
    """Of a process on a BEAM, and of ours."""

    client = EpmdClient(port=epmd.port, if_absent="fail")
    seen: dict[str, Transcript] = {}

    async def start(stack: ExitStack, alive: str, file: str) -> Beam:
        beam = Beam(alive, epmd.port, arguments="-hidden")
        stack.callback(beam.close)
        await beam.ready()
        await beam.evaluate("Logger.configure(level: :none)")
        await beam.evaluate(f"Code.require_file({json.dumps(str(FOLDER / file))})")
        return beam

    async def of_a_beam() -> None:
        with ExitStack() as stack:
            subject = await start(stack, "behaviour_beam", "subject.exs")
            driver = await start(stack, "behaviour_driver1", "battery.exs")
            await subject.evaluate("{:ok, _} = Behaviour.Server.start_root()")
            seen["a BEAM"] = await transcript(driver, subject.name)

    async def of_ours() -> None:
        name = f"behaviour_python@{HOST}"
        services = {"behaviour": Server()}
        with ExitStack() as stack:
            driver = await start(stack, "behaviour_driver2", "battery.exs")
            async with open_node(
                name, cookie=COOKIE, epmd=client, services=services, exports=EXPORTS
            ):
                seen["ours"] = await transcript(driver, name)

    async def both() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(of_a_beam)
            nursery.start_soon(of_ours)

    trio.run(both)
    return seen["a BEAM"], seen["ours"]


@pytest.mark.parametrize("group", GROUPS)
def test_a_beam_sees_the_same_of_both(
    transcripts: tuple[Transcript, Transcript], group: str
) -> None:
    theirs, ours = (transcript[group] for transcript in transcripts)
    unequal = [name for name in theirs if theirs[name] != ours[name]]
    shown = "\n".join(
        f"{name}\n    a BEAM: {theirs[name]}\n    ours:   {ours[name]}"
        for name in unequal
        if not any(fnmatchcase(name, pattern) for pattern in DIFFERENT)
    )
    assert not shown, f"a BEAM sees something else of our node:\n{shown}"


def test_what_is_said_to_differ_does(transcripts: tuple[Transcript, Transcript]) -> None:
    theirs, ours = (
        {name: text for cases in transcript.values() for name, text in cases.items()}
        for transcript in transcripts
    )
    unequal = [name for name in theirs if theirs[name] != ours[name]]
    mended = [pattern for pattern in DIFFERENT if not matching(unequal, pattern)]
    assert not mended, "equal now, or no case at all: take them off DIFFERENT"


def test_each_case_says_something_of_a_beam(transcripts: tuple[Transcript, Transcript]) -> None:
    theirs, _ = transcripts
    assert sorted(theirs) == sorted(GROUPS)
    texts = {name: text for cases in theirs.values() for name, text in cases.items()}
    silent = re.compile("no end within|case_died|:nothing|:no_down")
    assert not [name for name, text in texts.items() if silent.search(text)]

"""Lanes of a running bridge: who gets one, what goes over it, how it ends (docs/nif-lane.md)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
from lane_support import LaneEnd, Refused, grant, granted
from serve_support import ROOT, SETTINGS, Serving, ask, memfds, serving

from bridge.etf import Atom
from bridge.testing import Beam, EpmdDaemon

pytestmark = [
    pytest.mark.beam,
    pytest.mark.skipif(shutil.which("elixir") is None, reason="no Elixir here"),
]


@contextmanager
def opened(socket: bytes, token: bytes) -> Iterator[LaneEnd]:
    lane = LaneEnd(socket, token)
    try:
        yield lane
    finally:
        lane.close()


@pytest.fixture
async def bridge(epmd: EpmdDaemon, tmp_path: Path) -> AsyncIterator[Serving]:
    async with serving(epmd, tmp_path, alive="nifr_lanes") as running:
        await running.wait_workers(3)
        yield running


async def lanes_of(beam: Beam, bridge: Serving) -> str:
    target = bridge.target("Ringbridge.Lanes")
    return await ask(
        beam,
        f"{{:ok, l}} = GenServer.call({target}, :list); "
        "Enum.map(l, &Map.take(&1, [:state, :os_pid, :answered, :open]))",
    )


# --- What goes over it ----------------------------------------------------------------------------


async def test_a_call_over_a_lane_is_answered_by_a_worker(beam: Beam, bridge: Serving) -> None:
    with opened(*await granted(beam, bridge)) as lane:
        for payload in (b"", b"sixteen bytes of", b"x" * 5_000, os.urandom(1 << 20)):
            assert await lane.answer(lane.send(b"echo", payload)) == payload
        refused = await lane.answer(lane.send(b"nobody", b""))
        assert (refused[0], refused[1][0]) == (Atom("error"), Atom("bad_request"))
        late = await lane.answer(lane.send(b"sleep", b"60000", timeout_ms=50))
        assert late == (Atom("error"), Atom("deadline_exceeded"))
        shown = await lanes_of(beam, bridge)
        for figure in (f"os_pid: {os.getpid()}", 'state: "open"', "answered: 6"):
            assert figure in shown
        status = f"GenServer.call({bridge.target('Ringbridge.Diagnostics')}, :status)"
        shown = await ask(beam, f"{{:ok, s}} = {status}; [l] = s.lanes; {{l.open, l.requests}}")
        assert shown == "{0, 6}"
    await bridge.wait_log("lane ended")
    assert await lanes_of(beam, bridge) == "[]"


# --- Who gets one ---------------------------------------------------------------------------------


async def test_a_token_is_good_once_and_for_its_own_process(beam: Beam, bridge: Serving) -> None:
    socket, token = await granted(beam, bridge)
    with pytest.raises(Refused, match="no lane is granted for this token"):
        LaneEnd(socket, bytes(32))
    with opened(socket, token), pytest.raises(Refused, match="good once"):
        LaneEnd(socket, token)
    stolen = await granted(beam, bridge)  # by a process of the same user
    code = (
        "import sys; sys.path[:0] = ['tests/app', 'tests/node', 'tests/workers', '.']\n"
        "from lane_support import LaneEnd, Refused\n"
        f"try: LaneEnd({stolen[0]!r}, {stolen[1]!r})\n"
        "except Refused as e: print(e)"
    )
    done = await trio.run_process([sys.executable, "-c", code], capture_stdout=True, cwd=ROOT)
    assert f"process {os.getpid()} asked for the lane, and process" in done.stdout.decode()
    with pytest.raises(Refused, match="good once"):  # it was used up
        LaneEnd(*stolen)


async def test_what_a_beam_says_of_itself_is_checked(beam: Beam, bridge: Serving) -> None:
    other = await grant(beam, bridge, version="0x20000")
    assert other.startswith("{:error, {:refused,")
    assert "the client's of 2.0" in other
    edited = await grant(beam, bridge, digest="<<0::256>>")
    assert "edited layout" in edited
    for key, value in [
        ("os_pid", "0"),
        ("os_pid", ":me"),
        ("schedulers", "0"),
        ("schedulers", "100_000"),
        ("version", "-1"),
        ("digest", '"short"'),
        ("more", "1"),
    ]:
        answer = await grant(beam, bridge, **{key: value})
        assert (answer.startswith("{:error, {:bad_request,") and key in answer) or key == "more"
    target = bridge.target("Ringbridge.Lanes")
    answer = await ask(beam, f"GenServer.call({target}, :tea)")
    assert answer.startswith("{:error, {:bad_request,")


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ("lanes_max = 0", "[lanes] lanes_max is 0"),
        ('allow = ["web@127.0.0.1"]', "[lanes] allow does not name"),
    ],
)
async def test_the_settings_say_who_gets_one(
    beam: Beam, epmd: EpmdDaemon, tmp_path: Path, settings: str, why: str
) -> None:
    whole = f"[lanes]\n{settings}\n{SETTINGS}"
    async with serving(epmd, tmp_path, alive="nifr_policy", settings=whole) as bridge:
        assert why in await grant(beam, bridge)


async def test_no_more_lanes_than_the_settings_say(
    beam: Beam, epmd: EpmdDaemon, tmp_path: Path
) -> None:
    whole = f"[lanes]\nlanes_max = 1\n{SETTINGS}"
    async with serving(epmd, tmp_path, alive="nifr_most", settings=whole) as bridge:
        with opened(*await granted(beam, bridge)):
            assert "all lanes are taken: [lanes] lanes_max is 1" in await grant(beam, bridge)
        await bridge.wait_log("lane ended")
        await granted(beam, bridge)


async def test_none_is_given_beside_a_recording(
    beam: Beam, epmd: EpmdDaemon, tmp_path: Path
) -> None:
    arguments = ("--record", str(tmp_path / "record"))
    async with serving(epmd, tmp_path, alive="nifr_record", arguments=arguments) as bridge:
        assert "a record has no lanes" in await grant(beam, bridge)


# --- How it ends ----------------------------------------------------------------------------------


async def test_a_lane_ends_with_its_connection(beam: Beam, bridge: Serving) -> None:
    with opened(*await granted(beam, bridge)) as lane:
        number = lane.send(b"sleep", b"60000")
        await ask(beam, f"Node.disconnect(:'{bridge.name}')")
        await lane.ended()
        assert lane.lose() == 1
        assert list(lane.answers) == [number]
    assert (await bridge.wait_log("lane ended"))["why"] == "connection_lost"


async def test_settings_that_change_end_lanes_that_they_no_longer_allow(
    beam: Beam, bridge: Serving
) -> None:
    with opened(*await granted(beam, bridge)) as lane:
        assert await lane.answer(lane.send(b"echo", b"x")) == b"x"
        registry = bridge.target("Ringbridge.WorkerRegistry")
        await ask(beam, f'GenServer.call({registry}, {{:configure, "lanes.lanes_max", 0}})')
        await lane.ended()
    assert (await bridge.wait_log("lane ended"))["why"] == "not_allowed"


@pytest.mark.parametrize("how", ["terminate", "kill"])
async def test_a_bridge_that_ends_tells_and_leaves_nothing(
    beam: Beam, epmd: EpmdDaemon, tmp_path: Path, how: str
) -> None:
    before = memfds(os.getpid())
    async with serving(epmd, tmp_path, alive=f"nifr_{how}") as bridge:
        await bridge.wait_workers(3)
        with opened(*await granted(beam, bridge)) as lane:
            lane.send(b"sleep", b"60000")
            bridge.process.kill() if how == "kill" else bridge.process.terminate()
            await lane.ended()
            lane.lose()
            assert len(lane.answers) == 1
    assert memfds(os.getpid()) == before


async def test_a_beam_that_is_killed_ends_its_lane(
    beam: Beam, bridge: Serving, tmp_path: Path
) -> None:
    """The process that holds the lane dies; the connection, another's, lives on."""
    code = (
        "import os, sys; sys.path[:0] = ['tests/app', 'tests/node', 'tests/workers', '.']\n"
        "print(os.getpid(), flush=True)\n"
        "from lane_support import LaneEnd\n"
        "lane = LaneEnd(*(bytes.fromhex(w) for w in sys.stdin.readline().split()))\n"
        "lane.send(b'sleep', b'60000')\n"
        "print('sent', flush=True)\n"
        "sys.stdin.readline()"
    )
    with subprocess.Popen(  # noqa: ASYNC220 - a line or two through its pipes
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    ) as child:
        assert child.stdin
        assert child.stdout
        pid = int(child.stdout.readline())
        both = bytes.fromhex((await grant(beam, bridge, os_pid=str(pid))).strip('"'))
        child.stdin.write(f"{both[:-32].hex()} {both[-32:].hex()}\n".encode())
        child.stdin.flush()
        assert child.stdout.readline() == b"sent\n"
        with trio.fail_after(60):  # until the relay has it: what it has not is nobody's job
            while "open: 1" not in await lanes_of(beam, bridge):  # noqa: ASYNC110
                await trio.sleep(0.01)
        child.kill()
    assert (await bridge.wait_log("lane ended"))["why"] == "closed_by_beam"
    target = bridge.target()
    stats = f"{{:ok, s}} = GenServer.call({target}, :stats); s.answered.cancelled"
    with trio.fail_after(60):
        while await ask(beam, stats) != "1":  # noqa: ASYNC110 - it has to be asked
            await trio.sleep(0.01)
    assert await ask(beam, f'GenServer.call({target}, {{:submit, :echo, "x"}})') == '{:ok, "x"}'

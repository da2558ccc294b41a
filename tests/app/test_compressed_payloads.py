"""Compressed payloads and answers through a running bridge (docs/calling.md): what a caller sends
and gets, what it is told of frames that lie, and a role in which only some workers take them.
"""

from __future__ import annotations

import base64
import os
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
import zstd_support as zstd
from serve_support import BIN, Serving, ask, serving

from bridge.testing import HOST, Beam, EpmdDaemon

ECHO = BIN / "rb-echo"
PLAIN_ECHO = BIN / "rb-echo-rust"  # a kit that has no zstd
TEXT = b"".join(b"row %d of a table that repeats itself\n" % n for n in range(20_000))

pytestmark = [
    pytest.mark.beam,
    pytest.mark.skipif(shutil.which("elixir") is None, reason="no Elixir here"),
    pytest.mark.skipif(not ECHO.exists(), reason="the workers are not built"),
    pytest.mark.skipif(not zstd.HERE, reason=f"no {zstd.NAME} on this machine"),
]


def settings(folder: Path) -> str:
    """`some`: of two workers the first to start takes frames, the other finds no library."""
    (folder / zstd.NAME).write_text("no library")
    first = folder / "first"
    script = folder / "one-of-two"
    script.write_text(
        f"#!/bin/sh\nmkdir {first} 2>/dev/null || export LD_LIBRARY_PATH={folder}\nexec {ECHO}\n"
    )
    script.chmod(0o755)
    return f"""
[node]
admin_nodes = ["*@{HOST}"]

[roles.echo]
command = ["{ECHO}"]
payload_bytes_max = 4_194_304

[roles.some]
command = ["{script}"]
workers = 2
backoff_min_ms = 1

[roles.typed]
command = ["{ECHO}"]

[roles.typed.ops.any]
opcode = 0

[roles.typed.ops.text]
opcode = 1
payload = "binary"
"""


@pytest.fixture
async def bridge(epmd: EpmdDaemon, tmp_path: Path) -> AsyncIterator[Serving]:
    async with serving(epmd, tmp_path, alive="zstd", settings=settings(tmp_path)) as running:
        await running.wait_workers(4)
        yield running


def elixir(frame: bytes) -> str:
    return f'Base.decode64!("{base64.b64encode(frame).decode()}")'


async def submit(beam: Beam, bridge: Serving, role: str, frame: bytes, options: str) -> str:
    """The inspected answer; a result is written as base64."""
    return await ask(
        beam,
        f"""
        request = {{:submit, :{role}, {elixir(frame)}, {options}}}
        case GenServer.call({bridge.target()}, request, 60_000) do
          {{:ok, {{encoding, bytes}}}} when is_binary(bytes) -> {{encoding, Base.encode64(bytes)}}
          {{:ok, bytes}} when is_binary(bytes) -> {{:ok, Base.encode64(bytes)}}
          other -> other
        end
        """,
    )


async def comes_plain(beam: Beam, bridge: Serving, byte: str, size: int) -> bool:
    """A frame of one byte, so often, is answered by that many of it."""
    frame = elixir(zstd.repeated(byte.encode(), size))
    code = f"""
    request = {{:submit, :echo, {frame}, encoding: :zstd}}
    GenServer.call({bridge.target()}, request, 60_000) == {{:ok, :binary.copy("{byte}", {size})}}
    """
    return await ask(beam, code) == "true"


def bytes_of(answer: str, tag: str) -> bytes:
    head = f'{{:{tag}, "'
    assert answer.startswith(head), answer[:400]
    return base64.b64decode(answer[len(head) : -2])


async def a_payload_and_its_answer_go_compressed_both_ways(beam: Beam, bridge: Serving) -> None:
    frame = zstd.compress(TEXT)
    assert len(frame) * 5 < len(TEXT)
    both = await submit(beam, bridge, "echo", frame, "encoding: :zstd, accept: :zstd")
    answer = bytes_of(both, "zstd")
    assert len(answer) * 3 < len(TEXT)
    assert zstd.decompress(answer, len(TEXT)) == TEXT
    there = await submit(beam, bridge, "echo", frame, "encoding: :zstd")
    assert bytes_of(there, "ok") == TEXT
    back = await submit(beam, bridge, "echo", TEXT[:100_000], "%{accept: :zstd}")
    assert zstd.decompress(bytes_of(back, "zstd"), 100_000) == TEXT[:100_000]


async def what_gets_no_smaller_comes_as_it_is(beam: Beam, bridge: Serving) -> None:
    noise = os.urandom(50_000)
    assert bytes_of(await submit(beam, bridge, "echo", noise, "accept: :zstd"), "identity") == noise
    small = b"a" * 1000
    assert bytes_of(await submit(beam, bridge, "echo", small, "accept: :zstd"), "identity") == small
    code = f"GenServer.call({bridge.target()}, {{:submit, :echo, %{{a: 1}}, accept: :zstd}})"
    assert await ask(beam, code) == "{:ok, {:identity, %{a: 1}}}"


async def a_large_payload_comes_in_as_a_frame_too(beam: Beam, bridge: Serving) -> None:
    """Of 2 MB, in blocks that are not compressed: it comes by and by, its options behind it."""
    code = f"""
    bytes = :crypto.strong_rand_bytes(2_000_000)
    block = fn part, last ->
      <<byte_size(part) * 8 + last::24-little, part::binary>>
    end
    <<first::binary-131072, rest::binary>> = bytes
    middle = for <<part::binary-131072 <- rest>>, do: block.(part, 0)
    last = binary_part(rest, length(middle) * 131_072, rem(byte_size(rest), 131_072))
    head = <<0xFD2FB528::32-little, 0xA0, byte_size(bytes)::32-little>>
    frame = IO.iodata_to_binary([head, block.(first, 0), middle, block.(last, 1)])
    request = {{:submit, :echo, frame, encoding: :zstd}}
    {{:ok, ^bytes}} = GenServer.call({bridge.target()}, request, 60_000)
    cut = binary_part(frame, 0, byte_size(frame) - 1)
    request = {{:submit, :echo, cut, encoding: :zstd}}
    {{:error, {{:job_failed, code, _}}}} = GenServer.call({bridge.target()}, request, 60_000)
    code
    """
    assert await ask(beam, code) == "65283"


LIES = {
    "a bomb": (zstd.repeated(b"a", 500 << 20), "{:error, {:too_large, 4194304}}"),
    "a bomb that says it is small": (zstd.repeated(b"a", 500 << 20, 1000), "65283"),
    "one that says more than it holds": (zstd.repeated(b"a", 1000, 4000), "65283"),
    "half of one": (zstd.repeated(b"a", 1 << 20)[:20], "65283"),
    "two": (zstd.repeated(b"a", 1000) * 2, "65283"),
    "no frame": (b"just bytes that are no frame", "does not begin with the magic of a zstd frame"),
    "of unknown size": (bytes.fromhex("28b52ffd00580100006f"), "does not state the size"),
    "for a dictionary": (bytes.fromhex("28b52ffd2107010100006f"), "it wants a dictionary"),
}


async def a_frame_that_lies_is_told_so_and_no_worker_ends(beam: Beam, bridge: Serving) -> None:
    for what, (frame, words) in LIES.items():
        answer = await submit(beam, bridge, "echo", frame, "encoding: :zstd")
        assert answer.startswith("{:error, {"), (what, answer)
        assert words in answer, (what, answer)
    assert await comes_plain(beam, bridge, "b", 4 << 20)  # as large as it may be
    assert not bridge.logs("worker ended")
    assert not any("broke" in str(line) for line in bridge.logs())


async def an_operation_whose_payload_is_checked_takes_no_frame(beam: Beam, bridge: Serving) -> None:
    frame = zstd.compress(TEXT)
    told = await submit(beam, bridge, "typed", frame, "op: :text, encoding: :zstd")
    assert "op text" in told
    assert "send it without encoding" in told
    assert (
        bytes_of(await submit(beam, bridge, "typed", frame, "op: :any, encoding: :zstd"), "ok")
        == TEXT
    )


async def a_limit_that_is_changed_is_the_workers_too(beam: Beam, bridge: Serving) -> None:
    frame = zstd.repeated(b"c", 2 << 20)
    registry = bridge.target("Ringbridge.WorkerRegistry")
    key = "roles.echo.payload_bytes_max"
    code = f'GenServer.call({registry}, {{:configure, "{key}", 1_048_576}}) |> elem(0)'
    assert await ask(beam, code) == ":ok"
    told = await submit(beam, bridge, "echo", frame, "encoding: :zstd")
    assert told == "{:error, {:too_large, 1048576}}"
    code = f'GenServer.call({registry}, {{:configure, "{key}", 8_388_608}}) |> elem(0)'
    assert await ask(beam, code) == ":ok"
    assert await comes_plain(beam, bridge, "c", 6 << 20)


async def of_workers_that_differ_those_that_can_have_the_frames(
    beam: Beam, bridge: Serving
) -> None:
    registry = bridge.target("Ringbridge.WorkerRegistry")
    workers = f"""
    {{:ok, workers}} = GenServer.call({registry}, :list)
    for %{{role: :some}} = w <- workers, do: w
    """
    encodings = "Enum.map(& &1.encodings) |> Enum.sort()"
    assert await ask(beam, f"({workers}) |> {encodings}") == "[[], [:zstd]]"
    jobs = f"""
    frame = {elixir(zstd.compress(TEXT))}
    call = fn request -> GenServer.call({bridge.target()}, request, 60_000) end
    text = fn -> call.({{:submit, :some, frame, encoding: :zstd}}) end
    plain = fn n -> call.({{:submit, :some, "n#{{n}}"}}) end
    frames = for _ <- 1..40, do: Task.async(text)
    others = for n <- 1..400, do: {{n, Task.async(fn -> plain.(n) end)}}
    sizes = for t <- frames, do: Task.await(t, 60_000) |> elem(1) |> byte_size()
    right = Enum.all?(others, fn {{n, t}} -> Task.await(t, 60_000) == {{:ok, "n#{{n}}"}} end)
    {{Enum.uniq(sizes), right}}
    """
    assert await ask(beam, jobs) == f"{{[{len(TEXT)}], true}}"
    # The one that can dies, and comes again without the library: nobody is left for a frame.
    os_pid = await ask(
        beam, f"({workers}) |> Enum.find(& &1.encodings == [:zstd]) |> Map.get(:os_pid)"
    )
    os.kill(int(os_pid), signal.SIGKILL)
    await bridge.wait_workers(5)
    assert await ask(beam, f"({workers}) |> {encodings}") == "[[], []]"
    told = await submit(beam, bridge, "some", zstd.compress(TEXT), "encoding: :zstd")
    assert "none of the 2 ready workers of role some takes compressed payloads" in told
    back = await submit(beam, bridge, "some", TEXT[:5000], "accept: :zstd")
    assert bytes_of(back, "identity") == TEXT[:5000]


async def a_role_that_is_upgraded_to_a_kit_without_it_says_so(beam: Beam, bridge: Serving) -> None:
    registry = bridge.target("Ringbridge.WorkerRegistry")
    frame = zstd.compress(TEXT)
    assert bytes_of(await submit(beam, bridge, "echo", frame, "encoding: :zstd"), "ok") == TEXT
    code = f'GenServer.call({registry}, {{:upgrade, :echo, ["{PLAIN_ECHO}"]}}) |> elem(0)'
    assert await ask(beam, code) == ":ok"
    told = ""
    with trio.fail_after(60):
        while "none of the 1 ready workers of role echo takes compressed payloads" not in told:
            told = await submit(beam, bridge, "echo", frame, "encoding: :zstd")
            # Until then the old program's workers have it, and nothing else happens to it.
            assert told.startswith(("{:ok", "{:error, {:bad_request")), told[:200]


async def test_frames_go_both_ways_and_those_that_lie_are_told_so(
    beam: Beam, bridge: Serving
) -> None:
    for rule in (
        a_payload_and_its_answer_go_compressed_both_ways,
        what_gets_no_smaller_comes_as_it_is,
        a_large_payload_comes_in_as_a_frame_too,
        a_frame_that_lies_is_told_so_and_no_worker_ends,
        an_operation_whose_payload_is_checked_takes_no_frame,
        a_limit_that_is_changed_is_the_workers_too,
    ):
        await rule(beam, bridge)


async def test_only_workers_that_take_frames_get_them(beam: Beam, bridge: Serving) -> None:
    await of_workers_that_differ_those_that_can_have_the_frames(beam, bridge)
    if PLAIN_ECHO.exists():
        await a_role_that_is_upgraded_to_a_kit_without_it_says_so(beam, bridge)

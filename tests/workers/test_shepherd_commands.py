"""Commands to a shepherd besides signal and stop: status, and what a terminal takes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
import trio
from shepherd_support import Bare, program, read_line, started

from bridge.config.sandbox import WorkerLimits
from bridge.workers import _shepherd_protocol as protocol
from bridge.workers._shepherd_protocol import Failed, Report, ReportState, Started, Step
from bridge.workers.shepherd import Shepherd

# ---- status


async def test_the_status_tells_how_the_worker_does() -> None:
    async with started("sh", "-c", "while :; do :; done") as (shepherd, _):
        before = await shepherd.status()
        assert before is not None
        assert (before.state, before.threads) == (ReportState.RUNNING, 1)
        assert before.process in "RSD"  # it runs, but there may be others
        await until(shepherd, lambda report: report.rss_bytes > 1 << 16)  # counted in batches
        await shepherd.signal(signal.SIGSTOP)
        stopped = await until(shepherd, lambda report: report.process == "T")
        assert stopped.age_us > before.age_us
        assert stopped.user_us >= before.user_us


async def until(shepherd: Shepherd, wanted: Callable[[Report], bool]) -> Report:
    while (report := await shepherd.status()) is None or not wanted(report):
        assert report is not None
        await trio.lowlevel.checkpoint()
    return report


async def test_the_status_of_a_worker_that_is_being_stopped_tells_its_grace() -> None:
    async with started(program("ignores_sigterm"), grace_s=60) as (shepherd, _):
        await read_line(out := shepherd.take_stdout())
        os.close(out)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(shepherd.stop)
            await trio.testing.wait_all_tasks_blocked()
            report = await shepherd.status()
            assert report is not None
            assert report.state is ReportState.STOPPING
            assert 0 < report.grace_left_ms <= 60_000
            await shepherd.stop(grace_s=0)
        assert await shepherd.status() is None  # it has ended


async def test_the_status_of_a_worker_with_a_memory_group_tells_what_its_tree_has() -> None:
    async with started("cat", limits=WorkerLimits(memory_bytes=1 << 30)) as (shepherd, _):
        report = await shepherd.status()
        assert report is not None
        assert (report.memory_bytes > 0) == (shepherd.isolation.memory_cap == "group")
    async with started("cat") as (shepherd, _):
        assert (report := await shepherd.status()) is not None
        assert report.memory_bytes == 0


async def test_many_ask_for_the_status_while_others_wait_for_the_end() -> None:
    """One reader at a time, and each packet reaches whom it is for."""
    async with started("cat", hold_stdin=True) as (shepherd, _):
        ends, reports = [], []

        async def wait() -> None:
            ends.append(await shepherd.wait())

        async def ask() -> None:
            reports.append(await shepherd.status())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            async with trio.open_nursery() as asking:
                for _ in range(20):
                    asking.start_soon(ask)
            with trio.move_on_after(0):  # a reader that is cancelled hands over
                await shepherd.wait()
            nursery.start_soon(wait)
            nursery.start_soon(shepherd.close_stdin)
        assert [report.state for report in reports if report] == [ReportState.RUNNING] * 20
        assert [end.status for end in ends] == [0, 0]


# ---- a terminal


async def test_a_terminal_is_the_workers_stdin_and_stdout_and_passes_bytes_as_they_are() -> None:
    script = "test -t 0 && test -t 1 && ! test -t 2 && tty > /dev/null && read x && echo got $x"
    async with started("sh", "-c", script, terminal=True) as (shepherd, _):
        stdin, out = shepherd.take_stdin(), shepherd.take_stdout()
        os.write(stdin, b"hello\n")
        assert await read_line(out) == "got hello"  # neither echoed nor with carriage returns
        assert (await shepherd.wait()).status == 0
        with pytest.raises(OSError, match="Input/output error"):  # how a terminal's end is read
            os.read(out, 1)
        os.close(stdin)
        os.close(out)


async def test_a_new_window_size_is_told_to_the_worker() -> None:
    script = 'trap "stty size; exit" WINCH; stty size; while :; do sleep 0.01; done'
    async with started("sh", "-c", script, terminal=True) as (shepherd, _):
        out = shepherd.take_stdout()
        assert await read_line(out) == "24 80"
        await shepherd.resize_terminal(50, 132)
        assert await read_line(out) == "50 132"
        os.close(out)
        with pytest.raises(ValueError, match="outside 1 to 65535"):
            await shepherd.resize_terminal(0, 80)


async def test_the_end_of_file_is_typed_on_a_terminal() -> None:
    async with started("cat", terminal=True) as (shepherd, _):
        stdin, out = shepherd.take_stdin(), shepherd.take_stdout()
        os.write(stdin, b"hello\n")
        assert await read_line(out) == "hello"
        await shepherd.close_stdin()
        assert (await shepherd.wait()).status == 0
        os.close(stdin)
        os.close(out)


async def test_a_terminal_belongs_to_its_worker_alone() -> None:
    """The controlling one of its session: ^C typed there reaches its foreground group."""
    async with started("sleep", "1000", terminal=True) as (shepherd, _):
        stdin = shepherd.take_stdin()
        os.write(stdin, b"\x03")
        assert (await shepherd.wait()).signal == signal.SIGINT
        os.close(stdin)


# ---- who may command


@pytest.fixture
def bare() -> Iterator[Bare]:
    shepherd = Bare()
    yield shepherd
    shepherd.close()


def say_as_another(bare: Bare, packet: bytes, fds: list[int]) -> None:
    """From a process that has inherited the bridge's end of the socket."""
    script = (
        "import socket, sys; fds = [int(text) for text in sys.argv[3:]]; "
        "sock = socket.socket(fileno=int(sys.argv[1])); "
        "socket.send_fds(sock, [bytes.fromhex(sys.argv[2])], fds)"
    )
    sock = bare.socket.fileno()
    subprocess.run(
        [sys.executable, "-c", script, str(sock), packet.hex(), *map(str, fds)],
        pass_fds=[sock, *fds],
        check=True,
    )


def test_a_window_size_without_a_terminal_is_refused_and_the_worker_goes_on(bare: Bare) -> None:
    bare.say(bare.start_packet("/bin/sleep", "1000"), bare.start_fds())
    assert isinstance(bare.hear(), Started)
    bare.say(protocol.pack_window_size(50, 132))
    refused = bare.hear()
    assert isinstance(refused, Failed)
    assert refused.step is Step.TERMINAL
    bare.say(protocol.pack_status())
    assert isinstance(bare.hear(), Report)


def test_commands_of_another_process_are_refused(bare: Bare) -> None:
    """The socket alone is not enough: a child that inherited it commands nobody."""
    bare.say(bare.start_packet("/bin/sleep", "1000"), bare.start_fds())
    assert isinstance(bare.hear(), Started)
    say_as_another(bare, protocol.pack_stop(0), [])
    refused = bare.hear()
    assert isinstance(refused, Failed)
    assert "not from the process" in refused.text
    bare.say(protocol.pack_status())
    report = bare.hear()
    assert isinstance(report, Report)
    assert report.state is ReportState.RUNNING


def test_a_start_from_another_process_than_its_parent_is_refused(bare: Bare) -> None:
    say_as_another(bare, bare.start_packet("/bin/sleep", "1000"), bare.start_fds())
    refused = bare.hear()
    assert isinstance(refused, Failed)
    assert "not from the process" in refused.text
    assert bare.hear() is None

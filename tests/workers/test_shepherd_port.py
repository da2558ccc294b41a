"""`ringbridge-shepherd port`: the shepherd of a bridge whose owner is a BEAM, here two pipes.

What is said is csrc/include/ringbridge/port_protocol.h; who ends whom is csrc/shepherd/port_pvt.h.
With real BEAMs it is integration/server_test.exs.
"""

from __future__ import annotations

import errno
import os
import re
import select
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shepherd_support import ROOT, program, sanitized_shepherd, shepherd_program

HEADER = ROOT / "csrc/include/ringbridge/port_protocol.h"
WIRE = ROOT / "elixir_client/lib/ringbridge/server/wire.ex"
GRACE_MS = 60_000


def start(
    *argv: str,
    stdin: bytes = b"",
    env: dict[str, str] | None = None,
    cwd: str = "",
    version: int = 1,
) -> bytes:
    """START as Ringbridge.Server.Wire makes it."""
    pairs = [f"{name}={value}" for name, value in (env or {}).items()]
    strings = b"".join(text.encode() + b"\0" for text in (cwd, *argv, *pairs))
    return (
        struct.pack(">cBIHHI", b"s", version, GRACE_MS, len(argv), len(pairs), len(stdin))
        + strings
        + stdin
    )


def stop(grace_ms: int) -> bytes:
    return struct.pack(">cI", b"t", grace_ms)


class Port:
    """The BEAM's side. Reading waits for the shepherd; a wait in vain is ended by the deadline."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        assert process.stdin is not None
        assert process.stdout is not None
        self.stdin, self.stdout = process.stdin, process.stdout

    def say(self, frame: bytes) -> None:
        self.stdin.write(struct.pack(">I", len(frame)) + frame)
        self.stdin.flush()

    def hear(self) -> tuple[str, bytes] | None:
        head = self.stdout.read(4)
        if not head:
            return None
        frame = self.stdout.read(struct.unpack(">I", head)[0])
        return chr(frame[0]), frame[1:]

    def hear_all(self) -> dict[str, list[bytes]]:
        """All frames up to the shepherd's end, by their types; EXITED or ERROR is the last one."""
        heard: dict[str, list[bytes]] = {}
        last = ""
        while frame := self.hear():
            last = frame[0]
            heard.setdefault(last, []).append(frame[1])
        assert last in ("X", "E", "")
        return heard

    def started(self) -> int:
        frame = self.hear()
        assert frame is not None
        assert frame[0] == "S", frame
        return int(struct.unpack(">I", frame[1])[0])


@contextmanager
def opened(shepherd: Path) -> Iterator[Port]:
    process = subprocess.Popen([shepherd, "port"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield Port(process)
    finally:
        process.kill()
        with process:  # closes both pipes, and reaps it
            if process.stdin and not process.stdin.closed:
                with suppress(BrokenPipeError):
                    process.stdin.close()


@pytest.fixture(params=["plain", "sanitized"])
def port(request: pytest.FixtureRequest) -> Iterator[Port]:
    with opened(shepherd_program() if request.param == "plain" else sanitized_shepherd()) as port:
        yield port


def exited(heard: dict[str, list[bytes]]) -> tuple[int, int]:
    (frame,) = heard["X"]
    status, number = struct.unpack(">iI", frame)
    return status, number


def gone(pid: int) -> bool:
    """Waits until it has ended: a pidfd is readable then."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(fd)
        return bool(poll.poll(30_000))
    finally:
        os.close(fd)


def test_header_and_elixir_say_the_same() -> None:
    defines = dict(re.findall(r"#define (RB_PORT_\w+) ('\w'|\d+)", HEADER.read_text()))
    wire = WIRE.read_text()
    assert defines["RB_PORT_VERSION"] == re.search(r"@version (\d+)", wire)[1]  # type: ignore[index]
    assert defines["RB_PORT_STDIN_MAX"] == re.search(r"@stdin_max (\d+)", wire)[1]  # type: ignore[index]
    frame_max = re.search(r"@frame_max ([\d_]+)", wire)[1]  # type: ignore[index]
    assert int(defines["RB_PORT_FRAME_MAX"]) == int(frame_max)
    said = set(re.findall(r'<<"(\w)"', wire.split("@doc", 1)[1]))
    assert {word.strip("'") for word in defines.values() if "'" in word} == said


def test_a_program_gets_its_input_environment_and_directory_and_is_told_of(port: Port) -> None:
    script = "cat; echo; echo $NAME; pwd; echo no >&2; echo ready >&3; exit 7"
    port.say(start("/bin/sh", "-c", script, stdin=b"secret", env={"NAME": "value"}, cwd="/usr"))
    assert port.started() > 1
    heard = port.hear_all()
    assert b"".join(heard["O"]) == b"secret\nvalue\n/usr\nno\n"
    assert heard["R"] == [b"ready\n"]
    assert exited(heard) == (7, 0)


def test_it_has_no_descriptor_but_those_it_is_given(port: Port) -> None:
    port.say(start("/bin/sh", "-c", "exec ls /proc/self/fd"))
    heard = port.hear_all()
    # 4 is that of ls on the folder itself.
    assert b"".join(heard["O"]).split() == [b"0", b"1", b"2", b"3", b"4"]


def test_a_signal_that_ends_it_is_told(port: Port) -> None:
    port.say(start("/bin/sh", "-c", "kill -SEGV $$"))
    assert exited(port.hear_all()) == (-1, signal.SIGSEGV)


@pytest.mark.parametrize(
    ("argv", "cwd", "error", "step"),
    [
        (("/nowhere/at/all",), "", errno.ENOENT, b"program"),
        (("/etc/passwd",), "", errno.EACCES, b"program"),
        (("/bin/true",), "/nowhere", errno.ENOENT, b"directory"),
    ],
)
def test_a_step_that_fails_is_named(
    port: Port, argv: tuple[str, ...], cwd: str, error: int, step: bytes
) -> None:
    port.say(start(*argv, cwd=cwd))
    heard = port.hear_all()
    assert heard == {"E": [struct.pack(">I", error) + step]}


def test_another_release_is_told_in_words(port: Port) -> None:
    port.say(start("/bin/true", version=2))
    (error,) = port.hear_all()["E"]
    assert b"different releases" in error


def test_frames_may_come_byte_by_byte(port: Port) -> None:
    frame = start("/bin/sh", "-c", "exit 3")
    for byte in struct.pack(">I", len(frame)) + frame:
        port.stdin.write(bytes([byte]))
        port.stdin.flush()
    assert exited(port.hear_all()) == (3, 0)


def test_a_start_that_is_cut_anywhere_is_refused() -> None:
    whole = start("/bin/true", stdin=b"xy", env={"A": "b"})
    for size in range(1, len(whole)):
        with opened(shepherd_program()) as port:
            port.say(whole[:size])
            assert list(port.hear_all()) == ["E"], size


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 2**32 - 1))
def test_garbage_is_refused_or_ends_it(body: bytes, length: int) -> None:
    with opened(sanitized_shepherd()) as port:
        port.stdin.write(struct.pack(">I", length) + body)
        port.stdin.close()
        port.hear_all()
        assert port.process.wait(30) == 0


def test_a_frame_that_is_not_allowed_is_refused_and_the_program_goes_on(port: Port) -> None:
    port.say(start("/bin/sh", "-c", "read x < /dev/null; sleep 60"))
    pid = port.started()
    for nonsense in (b"?", b"t", start("/bin/true")):
        port.say(nonsense)
        frame = port.hear()
        assert frame is not None
        assert frame[0] == "E"
    os.kill(pid, 0)
    port.say(stop(GRACE_MS))
    assert exited(port.hear_all()) == (-1, signal.SIGTERM)


def test_stop_is_term_then_after_the_grace_kill(port: Port) -> None:
    port.say(start(program("ignores_sigterm")))
    pid = port.started()
    assert port.hear() == ("O", b"ready\n")  # from then on it ignores TERM
    port.say(stop(50))
    assert exited(port.hear_all()) == (-1, signal.SIGKILL)
    assert gone(pid)


def test_a_second_stop_can_only_shorten_the_grace(port: Port) -> None:
    port.say(start(program("ignores_sigterm")))
    port.started()
    assert port.hear() == ("O", b"ready\n")
    port.say(stop(GRACE_MS))
    port.say(stop(0))
    with suppress(BrokenPipeError):  # it may have stopped by then
        port.say(stop(GRACE_MS))
    assert exited(port.hear_all()) == (-1, signal.SIGKILL)


def test_the_owner_s_end_is_the_program_s(port: Port) -> None:
    port.say(start(program("ignores_sigterm")))
    pid = port.started()
    assert port.hear() == ("O", b"ready\n")
    port.stdin.close()
    assert gone(pid)
    assert port.process.wait(30) == 0


def test_frames_before_the_owner_s_end_are_heard(port: Port) -> None:
    port.say(start("/bin/sh", "-c", "exec sleep 60"))
    port.say(stop(GRACE_MS))
    port.stdin.close()
    assert port.process.wait(30) == 0


def test_a_stopped_program_ends_with_its_owner(port: Port) -> None:
    port.say(start("/bin/sleep", "60"))
    pid = port.started()
    os.kill(pid, signal.SIGSTOP)
    port.stdin.close()
    assert gone(pid)


def test_a_stopped_program_hears_a_stop(port: Port) -> None:
    """With a handler: a signal that would end it by default ends a stopped one, too (Linux)."""
    port.say(start("/bin/sh", "-c", "trap 'exit 5' TERM; echo here; while :; do sleep 0.05; done"))
    pid = port.started()
    assert port.hear() == ("O", b"here\n")
    os.kill(pid, signal.SIGSTOP)
    port.say(stop(GRACE_MS))
    assert exited(port.hear_all()) == (5, 0)


def test_the_shepherd_s_death_is_the_program_s(port: Port) -> None:
    port.say(start(program("ignores_sigterm")))
    pid = port.started()
    assert port.hear() == ("O", b"ready\n")
    port.process.kill()
    assert gone(pid)


def test_the_shepherd_asked_to_end_ends_the_program_in_order(port: Port) -> None:
    port.say(
        start(
            "/bin/sh", "-c", "trap 'echo bye; exit 5' TERM; echo here; while :; do sleep 0.05; done"
        )
    )
    port.started()
    assert port.hear() == ("O", b"here\n")
    port.process.terminate()
    heard = port.hear_all()
    assert b"".join(heard["O"]) == b"bye\n"
    assert exited(heard) == (5, 0)


def test_an_owner_that_does_not_read_holds_nobody_up_and_is_told_what_is_missing(
    port: Port,
) -> None:
    """As a BEAM that is stopped: its pipe is full, and the program ends all the same."""
    size = 4 << 20
    # What it says last says that all the rest was written.
    port.say(start("/bin/sh", "-c", f"head -c {size} /dev/zero; echo ready >&3; exit 6"))
    pid = port.started()
    assert gone(pid)
    heard = port.hear_all()
    lost = sum(struct.unpack(">I", frame)[0] for frame in heard["L"])
    assert lost > 0
    assert sum(map(len, heard["O"])) + lost == size
    assert heard["R"] == [b"ready\n"]
    assert exited(heard) == (6, 0)


def test_all_that_is_in_the_pipe_comes_before_the_end(port: Port, tmp_path: Path) -> None:
    """More than is read in one turn, from a program that has ended while the shepherd stood."""
    size = 1 << 20
    os.mkfifo(tmp_path / "go")
    script = f"""
import fcntl, os
fcntl.fcntl(1, fcntl.F_SETPIPE_SZ, {size})
open("go").close()
os.write(1, b"x" * {size})
"""
    port.say(start(sys.executable, "-I", "-S", "-c", script, cwd=str(tmp_path)))
    pid = port.started()
    port.process.send_signal(signal.SIGSTOP)
    (tmp_path / "go").open("w").close()
    assert gone(pid)
    port.process.send_signal(signal.SIGCONT)
    heard = port.hear_all()
    lost = sum(struct.unpack(">I", frame)[0] for frame in heard.get("L", []))
    assert sum(map(len, heard["O"])) + lost == size


def test_what_it_leaves_behind_is_not_waited_for(port: Port) -> None:
    """An epmd that a bridge has started stays, with the bridge's stderr or without it."""
    port.say(start("/bin/sh", "-c", "sleep 60 & echo $!"))
    port.started()
    heard = port.hear_all()
    assert exited(heard) == (0, 0)
    os.kill(int(b"".join(heard["O"])), signal.SIGKILL)


def test_started_by_hand_it_says_what_it_is() -> None:
    process = subprocess.run(
        [shepherd_program()], capture_output=True, stdin=subprocess.DEVNULL, timeout=30
    )
    assert process.returncode == 64
    assert b"ringbridge-shepherd port" in process.stderr

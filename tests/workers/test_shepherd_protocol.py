"""The words between bridge and shepherd: one description in two languages, and what breaks them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shepherd_support import ROOT, Bare, shepherd_program

from bridge.workers import _shepherd_protocol as protocol
from bridge.workers._shepherd_protocol import (
    Exited,
    ExitedFlag,
    Failed,
    RemoteProtocolError,
    Report,
    ReportState,
    Started,
    StartedFlag,
    StartFlag,
    Step,
    Syscalls,
    Usage,
)

HEADER = (ROOT / "csrc/include/ringbridge/shepherd_protocol.h").read_text()
STRUCTS = {
    "header": protocol.HEADER,
    "start": protocol.START,
    "signal": protocol.SIGNAL,
    "close_stdin": protocol.CLOSE_STDIN,
    "stop": protocol.STOP,
    "status": protocol.STATUS,
    "window_size": protocol.WINDOW_SIZE,
    "limit": protocol.LIMIT,
    "report": protocol.REPORT,
    "started": protocol.STARTED,
    "exited": protocol.EXITED,
    "error": protocol.ERROR,
}
C_TYPES = {"uint16_t": "H", "uint32_t": "I", "int32_t": "i", "uint64_t": "Q"}

# ---- the header and the module say the same


def constants(prefix: str) -> dict[str, int]:
    found = re.findall(rf"^#define {prefix}(\w+) (0x[0-9A-F]+|\d+)", HEADER, re.MULTILINE)
    assert found
    return {name: int(value, 0) for name, value in found}


@pytest.mark.parametrize(
    ("prefix", "values"),
    [
        ("RB_MESSAGE_", protocol.Message),
        ("RB_START_", StartFlag),
        ("RB_STARTED_", StartedFlag),
        ("RB_EXITED_", ExitedFlag),
        ("RB_STEP_", Step),
        ("RB_SYSCALLS_", Syscalls),
        ("RB_REPORT_", ReportState),
    ],
)
def test_every_constant_is_the_same_in_c_and_python(
    prefix: str, values: type[protocol.Message]
) -> None:
    assert constants(prefix) == {value.name: value.value for value in values}


def test_the_limits_are_the_same_in_c_and_python() -> None:
    assert constants("RB_SHEPHERD_") == {
        "VERSION": protocol.VERSION,
        "SOCKET_FD": protocol.SOCKET_FD,
        "MESSAGE_MAX": protocol.MESSAGE_MAX,
        "ARGC_MAX": protocol.ARGC_MAX,
        "ENVC_MAX": protocol.ENVC_MAX,
        "LINK_FDS": protocol.LINK_FDS,
        "GROUPS_MAX": protocol.GROUPS_MAX,
        "LIMITS_MAX": protocol.LIMITS_MAX,
        "NAME_MAX": protocol.NAME_MAX,
    }
    assert constants("RB_LIMIT_") == {"INFINITY": protocol.LIMIT_INFINITY}
    assert constants("RB_STOP_") == {"GRACE_OF_START": protocol.GRACE_OF_START}


@pytest.mark.parametrize("name", STRUCTS)
def test_every_message_has_the_same_fields_in_c_and_python(name: str) -> None:
    body = re.search(rf"^struct rb_message_{name} {{\n(.*?)^}};", HEADER, re.MULTILINE | re.DOTALL)
    assert body is not None
    fields = re.findall(r"^ +(?:struct )?(\w+) \w+;", body[1], re.MULTILINE)
    layout = "".join("HHI" if field == "rb_message_header" else C_TYPES[field] for field in fields)
    python = re.sub(r"(\d+)(\w)", lambda m: m[2] * int(m[1]), STRUCTS[name].format.lstrip("="))
    assert python == layout
    assert f"RB_ASSERT_BYTES(rb_message_{name}, {STRUCTS[name].size});" in HEADER


# ---- what the shepherd says, as the bridge reads it

STARTED = Started(StartedFlag.PID_NAMESPACE, 1234, 1233, 0, 420, 13)
EXITED = Exited(-1, 11, ExitedFlag.CORE, Usage(1, 2, 3, 4, 5, 6, 7))
FAILED = Failed(2, Step.EXEC, "why")
REPORT = Report(ReportState.STOPPING, "S", 3, 500, 1, 2, 3, 4, 5)
VECTORS = [
    (protocol.STARTED.pack(2, 16, 32, 1, 1234, 1233, 0, 420, 13), STARTED),
    (protocol.EXITED.pack(2, 17, 80, -1, 11, 1, 0, 1, 2, 3, 4, 5, 6, 7), EXITED),
    (protocol.ERROR.pack(2, 18, 19, 2, 10) + b"why", FAILED),
    (protocol.REPORT.pack(2, 19, 64, 2, 83, 3, 500, 1, 2, 3, 4, 5), REPORT),
]


@pytest.mark.parametrize(("packet", "message"), VECTORS)
def test_each_message_is_read_and_none_of_its_prefixes(packet: bytes, message: object) -> None:
    assert protocol.unpack(packet) == message
    for end in range(len(packet)):
        with pytest.raises(RemoteProtocolError):
            protocol.unpack(packet[:end])


@pytest.mark.parametrize(
    ("packet", "rule"),
    [
        (protocol.HEADER.pack(1, 16, 8), "version 1"),
        (protocol.HEADER.pack(2, 99, 8), "unknown message type 99"),
        (protocol.HEADER.pack(2, 16, 8), "type 16"),
        (protocol.ERROR.pack(2, 18, 16, 2, 77), "type 18"),
    ],
)
def test_a_broken_rule_is_named(packet: bytes, rule: str) -> None:
    with pytest.raises(RemoteProtocolError, match=rule):
        protocol.unpack(packet)


@given(st.binary(max_size=200))
def test_garbage_is_a_message_or_a_protocol_error(packet: bytes) -> None:
    with suppress(RemoteProtocolError):
        assert isinstance(protocol.unpack(packet), (Started, Report, Exited, Failed))


# ---- what the bridge says, as the shepherd reads it


@pytest.fixture
def bare() -> Iterator[Bare]:
    shepherd = Bare()
    yield shepherd
    shepherd.close()


def check_refused(bare: Bare, rule: str) -> None:
    """Refused for good: the rule is named and the shepherd ends."""
    answer = bare.hear()
    assert isinstance(answer, Failed)
    assert answer.step is Step.MESSAGE
    assert rule in answer.text
    assert bare.hear() is None


def test_a_start_and_a_stop_by_hand(bare: Bare) -> None:
    bare.say(bare.start_packet("/bin/sleep", "1000"), bare.start_fds())
    assert isinstance(bare.hear(), Started)
    bare.say(protocol.pack_stop())
    answer = bare.hear()
    assert isinstance(answer, Exited)
    assert answer.signal == signal.SIGTERM
    assert bare.hear() is None


@pytest.mark.parametrize(
    ("packet", "rule"),
    [
        (b"", ""),
        (b"x", "shorter than its header"),
        (protocol.HEADER.pack(2, 1, 9), "shorter than its header"),
        (protocol.HEADER.pack(1, 1, 8), "another version"),
        (protocol.HEADER.pack(2, 99, 8), "unknown message type"),
        (protocol.HEADER.pack(2, 1, 8), "START is shorter"),
        (protocol.HEADER.pack(2, 4, 8), "type's size"),
        (protocol.pack_signal(15), "before START"),
        (protocol.pack_close_stdin(), "before START"),
    ],
)
def test_nonsense_before_start_ends_the_shepherd(bare: Bare, packet: bytes, rule: str) -> None:
    bare.say(packet)
    if packet == b"":  # an empty packet cannot be told from the end of file
        assert bare.hear() is None
    else:
        check_refused(bare, rule)


def test_a_message_above_the_limit_is_refused(bare: Bare) -> None:
    bare.say(protocol.HEADER.pack(2, 1, 70000) + bytes(70000 - 8))
    check_refused(bare, "too many to receive")


@pytest.mark.parametrize("missing", [-1, 1])
def test_a_start_with_a_descriptor_too_few_or_too_many_is_refused(bare: Bare, missing: int) -> None:
    fds = [*bare.start_fds(), bare.link.fds[0]]
    bare.say(bare.start_packet("/bin/true"), fds[: len(bare.start_fds()) + missing])
    check_refused(bare, "wrong number of descriptors")


def test_the_shepherd_refuses_an_environment_with_the_cookie(bare: Bare) -> None:
    """Should the bridge ever forget to strip it (without_cookie)."""
    env = {"RINGBRIDGE_COOKIE": "swordfish"}
    packet = protocol.pack_start(("/bin/true",), env, cwd="", grace_ms=0, flags=StartFlag(0))
    bare.say(packet, bare.start_fds())
    check_refused(bare, "holds the cookie")


def test_a_start_that_does_not_add_up_is_refused_at_every_cut() -> None:
    """Cut short with a header that says so: lengths inside no longer match."""
    whole = Bare()
    packet = whole.start_packet("/bin/true", "x")
    whole.close()
    for end in range(protocol.HEADER.size, len(packet), 7):
        bare = Bare()
        cut = protocol.HEADER.pack(2, 1, end) + packet[protocol.HEADER.size : end]
        bare.say(cut, bare.start_fds())
        check_refused(bare, "START")
        bare.close()


def test_strings_without_their_end_are_refused(bare: Bare) -> None:
    packet = bare.start_packet("/bin/true")
    bare.say(packet[:-1] + b"x", bare.start_fds())
    check_refused(bare, "strings do not end")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(place=st.integers(0, 60), value=st.integers(0, 255))
def test_a_start_with_any_byte_changed_starts_or_is_refused(place: int, value: int) -> None:
    bare = Bare()
    packet = bytearray(bare.start_packet("/bin/true"))
    packet[place] = value
    bare.say(bytes(packet), bare.start_fds())
    answer = bare.hear()
    assert isinstance(answer, (Started, Failed)) or answer is None  # STOP before START: it leaves
    bare.close()


def test_commands_that_break_a_rule_are_refused_and_the_worker_goes_on(bare: Bare) -> None:
    bare.say(bare.start_packet("/bin/sleep", "1000"), bare.start_fds())
    started = bare.hear()
    assert isinstance(started, Started)
    for packet, fds in (
        (bare.start_packet("/bin/true"), bare.start_fds()),  # a second START
        (protocol.HEADER.pack(2, 99, 8), []),
        (protocol.HEADER.pack(2, 4, 8), []),
        (protocol.pack_close_stdin(), [bare.link.fds[0]] * 9),  # more descriptors than it takes
        (protocol.pack_signal(200), []),
    ):
        bare.say(packet, fds)
        answer = bare.hear()
        assert isinstance(answer, Failed)
        assert answer.step in (Step.MESSAGE, Step.SIGNAL)
    os.kill(started.worker_pid, 0)
    held = os.listdir(f"/proc/{started.init_pid}/fd")
    assert len(held) == 3  # life, obituary, signalfd: nothing of the refused messages stays


def test_started_by_hand_it_says_what_it_is() -> None:
    run = subprocess.run(
        [shepherd_program()], capture_output=True, stdin=subprocess.DEVNULL, check=False
    )
    assert run.returncode == 64
    assert b"started by the bridge" in run.stderr


def test_a_bridge_that_dies_before_start_is_noticed(bare: Bare) -> None:
    """The fixture closes the socket and expects the shepherd's end."""
    assert bare.pidfd >= 0

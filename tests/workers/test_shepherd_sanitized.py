"""The shepherd under AddressSanitizer and UBSan: whatever it is told, nothing is found.

Its stdio is nowhere, so a finding shows as its exit status (Bare.close looks at that) and in a file
beside the program. Findings of the init and of the worker before its exec end them, and show as
starts that fail.
"""

from __future__ import annotations

import os
import signal
import struct
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shepherd_support import Bare, sanitized_shepherd

from bridge.workers import _control_groups, _landlock
from bridge.workers import _shepherd_protocol as protocol
from bridge.workers._landlock import Rules
from bridge.workers._shepherd_protocol import (
    Confinement,
    Exited,
    Failed,
    Report,
    Started,
    StartFlag,
    Syscalls,
    User,
)


@pytest.fixture(autouse=True)
def no_finding() -> Iterator[None]:
    before = set(sanitized_shepherd().parent.glob("shepherd.log.*"))
    yield
    for finding in set(sanitized_shepherd().parent.glob("shepherd.log.*")) - before:
        pytest.fail(finding.read_text())


# A child, a daemon, and the worker itself. None says anything: Bare reads no stdout.
TREE = "sleep 1000 & (setsid sleep 1000 &); exec sleep 1000"


class Whole:
    """A START with everything in it that can be had here, and its descriptors."""

    def __init__(self, bare: Bare, *argv: str, more: StartFlag | None = None) -> None:
        flags, extra = StartFlag.HOLD_STDIN | StartFlag.NO_NETWORK, []
        flags |= more or StartFlag(0)
        if _landlock.available():
            flags |= StartFlag.LANDLOCK
            extra.append(_landlock.ruleset(Rules(frozenset({"/nowhere/cookie"}))))
        places = _control_groups.places().wanted(memory=True)
        for flag, place in (
            (StartFlag.MEMORY_GROUP, places.memory),
            (StartFlag.KILL_GROUP, places.kill),
        ):
            if place is not None:
                flags |= flag
                extra.append(os.open(place, os.O_RDONLY | os.O_DIRECTORY))
        self.packet = protocol.pack_start(
            argv,
            bare.link.spawn(*argv).env,
            cwd="/",
            grace_ms=100,
            flags=flags,
            confinement=Confinement(
                limits={7: 64, 4: 0},  # NOFILE, CORE
                user=User(65534, 65534, (65534, 1)) if os.getuid() == 0 else None,
                syscalls=Syscalls.GUARDED,
                nice=1,
                memory_bytes=1 << 28,
                address_bytes=1 << 30,
                group_name=f"ringbridge-test-{os.getpid()}",
            ),
        )
        self.fds = [*bare.start_fds(), *extra]
        self._extra = extra

    def close(self) -> None:
        for fd in self._extra:
            os.close(fd)


@pytest.mark.parametrize("namespaces", [StartFlag(0), StartFlag.NO_NAMESPACES])
@pytest.mark.parametrize("stdio", [StartFlag(0), StartFlag.TERMINAL])
def test_a_whole_life_with_every_wall(namespaces: StartFlag, stdio: StartFlag) -> None:
    bare = Bare(sanitized_shepherd())
    start = Whole(bare, "/bin/sh", "-c", TREE, more=namespaces | stdio)
    bare.say(start.packet, start.fds)
    assert isinstance(bare.hear(), Started)
    bare.say(protocol.pack_status())
    assert isinstance(bare.hear(), Report)
    bare.say(protocol.pack_window_size(50, 132))
    if not stdio:
        assert isinstance(bare.hear(), Failed)
    bare.say(protocol.pack_signal(signal.SIGWINCH))
    bare.say(protocol.pack_close_stdin())
    bare.say(protocol.pack_stop())
    end = bare.hear()
    assert isinstance(end, Exited)
    assert end.signal == signal.SIGTERM
    assert bare.hear() is None
    start.close()
    bare.close()


@pytest.mark.parametrize("at", ["born", "running"])
def test_the_bridges_end_at_any_moment(at: str) -> None:
    bare = Bare(sanitized_shepherd())
    start = Whole(bare, "/bin/sh", "-c", f"trap '' TERM; {TREE}")
    bare.say(start.packet, start.fds)
    if at == "running":
        assert isinstance(bare.hear(), Started)
    start.close()
    bare.close()  # expects it to be gone soon, and its tree with it


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    changes=st.lists(st.tuples(st.integers(0, 119), st.integers(0, 255)), min_size=1, max_size=4)
)
def test_a_start_with_bytes_changed_starts_or_is_refused(changes: list[tuple[int, int]]) -> None:
    bare = Bare(sanitized_shepherd())
    start = Whole(bare, "/bin/true")
    packet = bytearray(start.packet)
    for place, value in changes:
        packet[place] = value
    bare.say(bytes(packet), start.fds)
    assert isinstance(bare.hear(), (Started, Failed, type(None)))
    start.close()
    bare.close()


@pytest.mark.parametrize(
    ("field", "rule"),
    [("argc", "argc"), ("envc", "envc"), ("limitc", "limitc"), ("groupc", "groupc")],
)
def test_counts_that_overflow_are_refused_by_name(field: str, rule: str) -> None:
    bare = Bare(sanitized_shepherd())
    start = Whole(bare, "/bin/true")
    packet = bytearray(start.packet)
    offset = 16 + 4 * ["argc", "envc", "limitc", "groupc"].index(field)
    struct.pack_into("=I", packet, offset, 0xFFFFFFFF)
    bare.say(bytes(packet), start.fds)
    answer = bare.hear()
    assert isinstance(answer, Failed)
    assert rule in answer.text
    start.close()
    bare.close()

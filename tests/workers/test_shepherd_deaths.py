"""Whoever is killed, in whatever order: within a second nothing of a worker is left.

The bridge is a process of its own here (bridge_stand_in.py), so that it can be killed too. Counted
from outside: processes by a mark in their environment, memfds by their name in all of /proc.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from shepherd_support import (
    ROOT,
    marked_memfds,
    marked_processes,
    program,
    shepherd_program,
    witnessed,
)

from bridge.workers._shepherd_protocol import LINK_FDS

NOBODY = 65534
SOON_S = 20.0  # a second where nobody else wants the processors; what is shown here is that all go


@dataclass(frozen=True)
class Mode:
    """As whom the bridge runs, and what it may."""

    name: str
    uid: int | None = None
    namespaces: bool = True

    def __str__(self) -> str:
        return self.name


MODES = [
    Mode("as is"),
    Mode("plain user", uid=NOBODY),
    Mode("no namespaces", namespaces=False),
]


@pytest.fixture(scope="module")
def programs() -> Iterator[Path]:
    """Copies that a plain user can run, wherever the tree lies. (pytest's places are private.)"""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o755)
        for path in (shepherd_program(), program("forks_tree"), program("ignores_sigterm")):
            shutil.copy(path, place)
        yield place


class Scene:
    """A bridge with its families, each of shepherd, init, worker and the worker's own tree."""

    def __init__(self, bridge: subprocess.Popen[bytes], families: list[dict[str, int]]) -> None:
        self.bridge = bridge
        self.families = families
        self.marks = [str(family["mark"]) for family in families]

    def everyone(self) -> list[int]:
        guards = [family[who] for family in self.families for who in ("shepherd", "init")]
        tree = [pid for mark in self.marks for pid in marked_processes(mark)]
        return [self.bridge.pid, *guards, *tree]

    def kill(self, *who: str, signum: int = signal.SIGKILL) -> None:
        for name in who:
            if name == "bridge":
                self.bridge.send_signal(signum)
            else:
                for family in self.families:
                    with suppress(ProcessLookupError):  # the bridge's death was faster
                        os.kill(family[name], signum)

    def left(self) -> list[object]:
        return [(marked_processes(mark), marked_memfds(mark)) for mark in self.marks]

    def check_nothing_left(self) -> None:
        assert self.left() == [({}, [])] * len(self.marks)


@contextmanager
def bridge_with(programs: Path, mode: Mode, worker: str, **order: Any) -> Iterator[Scene]:
    if mode.uid is not None and os.getuid() != 0:
        pytest.skip("not root: every test here runs as a plain user already")
    full: dict[str, Any] = {
        "argv": [str(programs / worker)],
        "uid": mode.uid,
        "namespaces": mode.namespaces,
        **order,
    }
    prefix = full.pop("prefix", [])
    with subprocess.Popen(
        [
            *prefix,
            sys.executable,
            str(Path(__file__).parent / "bridge_stand_in.py"),
            json.dumps(full),
        ],
        stdout=subprocess.PIPE,
        cwd=programs,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "RINGBRIDGE_SHEPHERD": str(programs / "ringbridge-shepherd"),
        },
    ) as bridge:
        scene = None
        try:
            assert bridge.stdout is not None
            line = bridge.stdout.readline()
            assert line, f"the bridge did not start: {bridge.wait()}"
            scene = Scene(bridge, json.loads(line))
            yield scene
        finally:
            bridge.kill()
            if scene is not None:
                for mark in scene.marks:
                    for pid in marked_processes(mark):
                        with suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize(
    "victims",
    [
        ("bridge",),
        ("bridge", "worker"),
        ("bridge", "shepherd"),
        ("shepherd", "bridge"),
        ("bridge", "init"),
        ("init", "bridge"),
    ],
    ids="+".join,
)
def test_when_the_bridge_is_killed_nothing_is_left(
    programs: Path, mode: Mode, victims: tuple[str, ...]
) -> None:
    with bridge_with(programs, mode, "forks_tree") as scene:
        everyone = scene.everyone()
        assert len(everyone) == 3 + 4  # bridge, shepherd, init; worker, child, grandchild, daemon
        assert len(marked_memfds(scene.marks[0])) == LINK_FDS + 4 * LINK_FDS  # the guards have none
        with witnessed(everyone) as witness:
            scene.kill(*victims)
            witness.wait_all_gone(SOON_S)
        scene.check_nothing_left()


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("victims", [("shepherd",), ("init",), ("worker",)], ids="+".join)
def test_when_a_guard_or_worker_is_killed_the_tree_goes_and_the_bridge_stays(
    programs: Path, mode: Mode, victims: tuple[str, ...]
) -> None:
    with bridge_with(programs, mode, "forks_tree") as scene:
        with witnessed(pid for pid in scene.everyone() if pid != scene.bridge.pid) as witness:
            scene.kill(*victims)
            witness.wait_all_gone(SOON_S)
        assert scene.bridge.poll() is None
        assert marked_processes(scene.marks[0]) == {}
        holders = {entry.split("/")[0] for entry in marked_memfds(scene.marks[0])}
        assert holders == {str(scene.bridge.pid)}


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_a_worker_that_ignores_term_is_gone_in_time_too(programs: Path, mode: Mode) -> None:
    with bridge_with(programs, mode, "ignores_sigterm", grace_s=60) as scene:
        with witnessed(scene.everyone()) as witness:
            scene.kill("bridge")
            # It had its grace, though a short one.
            assert witness.wait_all_gone(SOON_S) > 0.3
        scene.check_nothing_left()


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("stopped", [("shepherd",), ("worker",), ("init",)], ids="+".join)
def test_who_is_stopped_when_the_bridge_dies_holds_nothing_up(
    programs: Path, mode: Mode, stopped: tuple[str, ...]
) -> None:
    with bridge_with(programs, mode, "forks_tree") as scene:
        with witnessed(scene.everyone()) as witness:
            scene.kill(*stopped, signum=signal.SIGSTOP)
            scene.kill("bridge")
            witness.wait_all_gone(SOON_S)
        scene.check_nothing_left()


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_a_stopped_init_goes_with_its_killed_shepherd(programs: Path, mode: Mode) -> None:
    """It can read no end of file then: only the parent death signal reaches it."""
    with bridge_with(programs, mode, "forks_tree") as scene:
        with witnessed(pid for pid in scene.everyone() if pid != scene.bridge.pid) as witness:
            scene.kill("init", signum=signal.SIGSTOP)
            scene.kill("shepherd")
            witness.wait_all_gone(SOON_S)
        assert marked_processes(scene.marks[0]) == {}


@pytest.mark.parametrize("mode", MODES[:2], ids=str)
def test_all_guards_killed_at_once_leave_nothing(programs: Path, mode: Mode) -> None:
    with bridge_with(programs, mode, "forks_tree") as scene:
        if not scene.families[0]["namespace"]:
            pytest.skip(
                "namespaces are forbidden here (a chroot, a container): a daemon then lives on"
            )
        with witnessed(scene.everyone()) as witness:
            scene.kill("bridge", "shepherd", "init", signum=signal.SIGSTOP)  # none can react
            scene.kill("bridge", "shepherd", "init")
            witness.wait_all_gone(SOON_S)
        scene.check_nothing_left()


def test_without_namespaces_all_guards_killed_at_once_still_take_the_worker(
    programs: Path,
) -> None:
    """What is then certain is the direct child (docs/shepherd.md); its daemon lives on."""
    with (
        bridge_with(programs, MODES[2], "forks_tree") as scene,
        witnessed([scene.families[0]["worker"]]) as witness,
    ):
        scene.kill("bridge", "shepherd", "init", signum=signal.SIGSTOP)
        scene.kill("bridge", "shepherd", "init")
        witness.wait_all_gone(SOON_S)


def test_a_bridge_with_many_workers_leaves_none(programs: Path) -> None:
    with bridge_with(programs, MODES[0], "forks_tree", count=10) as scene:
        everyone = scene.everyone()
        assert len(everyone) == 1 + 10 * 6
        with witnessed(everyone) as witness:
            scene.kill("bridge")
            witness.wait_all_gone(SOON_S)
        scene.check_nothing_left()


def test_a_plain_user_gets_a_user_namespace(programs: Path) -> None:
    with bridge_with(programs, MODES[1], "forks_tree") as scene:
        family = scene.families[0]
        if not family["namespace"]:
            pytest.skip("user namespaces are forbidden here")
        assert family["user_namespace"]
        status = Path(f"/proc/{family['worker']}/status").read_text()
        assert f"Uid:\t{NOBODY}\t{NOBODY}\t{NOBODY}\t{NOBODY}" in status
        assert "CapEff:\t0000000000000000" in status  # whole in its namespace it may be, here not


def test_where_the_kernel_refuses_namespaces_the_guards_are_subreapers(programs: Path) -> None:
    """In a user namespace of its own that allows no PID namespace: the limit is per namespace."""
    refused = ["/proc/sys/user/max_pid_namespaces", "0"]
    unshare = ["unshare", "--user", "--map-root-user"]
    if subprocess.run([*unshare, "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("user namespaces are forbidden here")
    with bridge_with(
        programs, MODES[0], "forks_tree", prefix=unshare, write_first=refused
    ) as scene:
        assert not scene.families[0]["namespace"]
        assert scene.families[0]["namespace_error"] != 0
        with witnessed(scene.everyone()) as witness:
            scene.kill("bridge")
            witness.wait_all_gone(SOON_S)
        scene.check_nothing_left()

"""`ringbridge doctor`: each check finds what is bad, says how to mend it, and never raises."""

import errno
import fcntl
import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from bridge import config as settings
from bridge.ops import confinement, doctor
from bridge.ops.doctor import Finding, Patient
from bridge.workers.shepherd import Isolation

SETTINGS = '[node]\nport = {port}\n[roles.echo]\ncommand = ["{command}"]\n'


def patient(
    tmp_path: Path,
    *,
    port: int = 0,
    command: str = "sh",
    name: str = "doctor@127.0.0.1",
    **env: str,
) -> Patient:
    file = tmp_path / "ringbridge.toml"
    config = settings.parse(SETTINGS.format(port=port, command=command), file)
    environ = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "ERL_EPMD_PORT": "1", **env}
    return Patient(config=config, name=name, cookie_file=None, environ=environ)


def find(subject: Patient, name: str) -> Finding:
    return next(finding for finding in doctor.examine(subject) if finding.name == name)


def test_every_bad_finding_has_a_mend(tmp_path: Path) -> None:
    subject = patient(tmp_path, command="./none", name="nonsense", PATH="/nowhere")
    findings = list(doctor.examine(subject))
    assert [f.name for f in findings if not f.ok and not f.mend] == []
    bad = {f.name for f in findings if not f.ok}
    assert {"epmd", "role echo", "node name"} <= bad


def test_this_kernel_has_what_the_tests_of_the_fabric_need(tmp_path: Path) -> None:
    for name in ("kernel", "memfd with seals", "eventfd", "pidfd", "futex"):
        assert find(patient(tmp_path), name).ok, name


def test_a_forbidden_call_is_a_finding_with_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object) -> int:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "pidfd_open", forbidden)
    monkeypatch.setattr(fcntl, "fcntl", forbidden)
    for name in ("pidfd", "memfd with seals"):
        finding = find(patient(tmp_path), name)
        assert not finding.ok
        assert finding.must
        assert "Operation not permitted" in finding.found


def test_a_loose_cookie_file_is_bad_and_a_missing_one_is_not(tmp_path: Path) -> None:
    assert "serve creates" in find(patient(tmp_path), "cookie").found
    cookie = tmp_path / ".erlang.cookie"
    cookie.write_text("SECRET")
    cookie.chmod(0o644)
    finding = find(patient(tmp_path), "cookie")
    assert not finding.ok
    assert "chmod 400" in finding.found
    cookie.chmod(0o400)
    finding = find(patient(tmp_path), "cookie")
    assert finding.ok
    assert "SECRET" not in finding.found


def test_a_port_that_is_taken_is_bad(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        finding = find(patient(tmp_path, port=other.getsockname()[1]), "listen address")
    assert not finding.ok
    assert "ss -ltnp" in finding.mend


def test_a_role_without_its_program_is_bad(tmp_path: Path) -> None:
    assert find(patient(tmp_path, command="sh"), "role echo").ok
    finding = find(patient(tmp_path, command="build/bin/rb-none"), "role echo")
    assert (finding.ok, finding.must) == (False, True)
    assert "make workers" in finding.mend


# ---- the walls of workers

WALLS = Isolation(
    pid_namespace=True,
    user_namespace=False,
    landlock=True,
    namespace_error=0,
    seccomp=True,
    memory_cap="group",
    kill_group=True,
)


def test_where_all_walls_stand_nothing_is_to_be_mended() -> None:
    finding = confinement.isolation(WALLS)
    assert (finding.ok, finding.mend) == (True, "")
    assert "PID namespace; Landlock; system call filter; cgroup.kill" in finding.found
    assert confinement.memory_caps(WALLS).ok


@pytest.mark.parametrize(("kill_group", "then"), [(True, "cgroup.kill"), (False, "nobody ends")])
def test_without_namespaces_it_is_said_what_is_then_certain(kill_group: bool, then: str) -> None:
    bare = replace(WALLS, pid_namespace=False, namespace_error=errno.EPERM, kill_group=kill_group)
    finding = confinement.isolation(bare)
    assert (finding.ok, finding.must) == (False, False)
    assert "Operation not permitted" in finding.found
    assert "certain that the worker itself ends with the bridge" in finding.mend
    assert then in finding.mend


def test_without_memory_groups_it_is_said_what_the_cap_is_then() -> None:
    finding = confinement.memory_caps(
        replace(WALLS, memory_cap="address space", group_error=errno.EROFS)
    )
    assert (finding.ok, finding.must) == (False, False)
    assert "address space" in finding.found
    assert "Read-only file system" in finding.found
    assert "Delegate=yes" in finding.mend


def test_a_sandbox_that_cannot_be_had_is_found_before_its_workers_fail(tmp_path: Path) -> None:
    text = (
        '[roles.a]\ncommand = ["sh"]\nsandbox = { user = "nobody" }\n'
        '[roles.b]\ncommand = ["sh"]\nsandbox = { read = [] }\n[roles.c]\ncommand = ["sh"]\n'
    )
    roles = settings.parse(text, tmp_path / "ringbridge.toml").roles
    plain = list(confinement.roles(WALLS, roles, is_root=False))
    assert [(f.name, f.must) for f in plain] == [("sandbox of a", True)]
    old = list(confinement.roles(replace(WALLS, landlock=False), roles, is_root=True))
    assert [(f.name, f.must) for f in old] == [("sandbox of b", True), ("users of workers", False)]
    assert "b, c" in old[1].found


def test_this_machine_is_tried_with_a_real_worker(tmp_path: Path) -> None:
    found = find(patient(tmp_path), "isolation").found
    assert "system call filter" in found
    assert "no system call filter" not in found


def test_no_epmd_anywhere_is_bad_and_one_on_path_is_started_by_serve(tmp_path: Path) -> None:
    finding = find(patient(tmp_path, PATH="/nowhere"), "epmd")
    assert not finding.ok
    assert 'epmd = "own"' in finding.mend
    epmd = tmp_path / "epmd"
    epmd.write_text("#!/bin/sh\n")
    epmd.chmod(0o755)
    assert find(patient(tmp_path, PATH=str(tmp_path)), "epmd").ok


@pytest.mark.parametrize(("setting", "word"), [("own", "serve is it"), ("none", "not asked")])
def test_a_bridge_that_wants_no_epmd_needs_none(tmp_path: Path, setting: str, word: str) -> None:
    subject = patient(tmp_path, PATH="/nowhere")
    text = f'[node]\nepmd = "{setting}"\nport = 4711\n[roles.echo]\ncommand = ["sh"]\n'
    config = settings.parse(text, tmp_path / "ringbridge.toml")
    finding = find(replace(subject, config=config), "epmd")
    assert finding.ok
    assert word in finding.found


def test_an_epmd_port_that_is_no_number_is_a_finding(tmp_path: Path) -> None:
    finding = find(patient(tmp_path, ERL_EPMD_PORT="x"), "epmd")
    assert not finding.ok
    assert "ERL_EPMD_PORT" in finding.found

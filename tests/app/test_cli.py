"""The command line: help that helps, and errors in one line."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

import bridge
from bridge.ops import status_report

ROOT = Path(__file__).parents[2]


def ringbridge(*arguments: str, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "200",
        "TERM": "dumb",
    }
    return subprocess.run(
        [sys.executable, "-c", "from bridge.cli import main; main()", *arguments],
        cwd=cwd,
        env=environ | env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_help_names_the_commands_and_each_command_its_options() -> None:
    text = ringbridge("--help").stdout
    for command in (
        *("serve", "status", "doctor", "version", "reload", "configure", "drain", "resume"),
        *("restart", "upgrade", "breaker", "record", "replay", "checkpoint", "move-state"),
    ):
        assert command in text
    text = ringbridge("serve", "--help").stdout
    for option in ("--config", "--name", "--cookie-file", "--log-format", "--ready-fd", "--record"):
        assert option in text
    assert "RINGBRIDGE_COOKIE" in text


def test_the_cookie_is_no_option_of_any_command() -> None:
    for command in ("serve", "status", "doctor"):
        done = ringbridge(command, "--cookie", "SECRET")
        assert done.returncode == 2
        assert "No such option" in done.stderr


def test_version_is_the_package_s() -> None:
    assert ringbridge("version").stdout == f"ringbridge {bridge.__version__}\n"


def test_no_arguments_show_the_help() -> None:
    done = ringbridge()
    assert "serve" in done.stdout + done.stderr


@pytest.mark.parametrize("command", ["serve", "status"])
def test_a_wrong_setting_is_one_line_and_status_1(command: str, tmp_path: Path) -> None:
    file = tmp_path / "ringbridge.toml"
    file.write_text('[roles.echo]\ncommand = ["sh"]\nworkers = 0\n')
    done = ringbridge(command, "--config", str(file))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"ringbridge: {file}: roles.echo.workers = 0: " in done.stderr


def test_doctor_ends_with_1_and_the_mend_when_a_program_is_missing(tmp_path: Path) -> None:
    file = tmp_path / "ringbridge.toml"
    file.write_text('[roles.echo]\ncommand = ["./none"]\n')
    done = ringbridge("doctor", "--config", str(file), HOME=str(tmp_path))
    assert done.returncode == 1, done.stdout
    assert "role echo" in done.stdout
    assert "Correct the path" in done.stdout


def test_doctor_runs_where_the_settings_are_wrong(tmp_path: Path) -> None:
    done = ringbridge("doctor", "--config", str(tmp_path / "none.toml"), HOME=str(tmp_path))
    assert done.returncode == 1
    assert "settings" in done.stdout
    assert "memfd" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["serve", "status", "doctor"])
def test_a_name_that_is_no_node_name_is_refused_with_the_rule(command: str) -> None:
    done = ringbridge(command, "--name", "bridge")
    assert done.returncode == 2
    assert "alive@host" in done.stderr


def test_a_ready_descriptor_that_is_not_open_is_refused_before_anything_starts() -> None:
    done = ringbridge("serve", "--ready-fd", "77")
    assert done.returncode == 2
    assert "descriptor 77" in done.stderr


def test_a_port_that_is_taken_is_one_line_and_status_1(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        file = tmp_path / "ringbridge.toml"
        file.write_text(f'[node]\nport = {port}\n[roles.echo]\ncommand = ["sh"]\n')
        done = ringbridge("serve", "--config", str(file), RINGBRIDGE_COOKIE="X")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f'node.listen = "127.0.0.1 port {port}": it cannot be listened on' in done.stderr


@pytest.mark.beam
def test_status_says_why_when_no_bridge_runs(tmp_path: Path) -> None:
    done = ringbridge(
        "status",
        "--name",
        "nobody@127.0.0.1",
        cwd=tmp_path,
        RINGBRIDGE_COOKIE="X",
        ERL_EPMD_PORT="1",
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "no bridge answers as nobody@127.0.0.1" in done.stderr
    assert "ringbridge serve" in done.stderr
    assert "epmd -daemon" not in done.stderr, "it would help nobody"


@pytest.mark.parametrize("columns", ["40", "80"])
def test_doctor_breaks_no_path(tmp_path: Path, columns: str) -> None:
    program = tmp_path / ("a-program-with-a-name-of-some-length-" * 3)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700)
    file = tmp_path / "ringbridge.toml"
    file.write_text(f'[roles.echo]\ncommand = ["{program}"]\n')
    done = ringbridge("doctor", "--config", str(file), HOME=str(tmp_path), COLUMNS=columns)
    assert any(line.endswith(str(program)) for line in done.stdout.splitlines())


def test_status_cuts_no_name(capsys: pytest.CaptureFixture[str]) -> None:
    name = "a-role-whose-name-is-as-long-as-a-name-of-a-role-may-ever-be-63"
    worker = dict.fromkeys(("os_pid", "kit", "in_flight", "done", "restarts"), 1_000_000)
    report = {
        "node": "bridge@127.0.0.1",
        "version": "0",
        "uptime_ms": 0,
        "os_pid": 1,
        "connections": [],
        "roles": [
            {"name": name, "state": "running", "workers_ready": 1, "queued": 0}
            | {"answered": {"ok": 1}, "answers_per_s": 1.0, "breaker": "closed", "upgrade": None}
            | {"refused": {}, "overloaded_by": {}, "deferred": 0}
        ],
        "workers": [
            worker
            | {"id": 1, "role": name, "state": "ready", "last_error": "why " * 100}
            | {"breaker": "closed", "silent_ms": 1}
        ],
        "relay": {"answered": {}, "refused": {}, "accepted": 0, "in_flight": 0},
    }
    status_report.show(report, Console(width=80, file=sys.stdout))
    shown = capsys.readouterr().out
    assert shown.count(name) == 2
    assert "…" not in shown


def test_status_says_what_is_not_as_usual(capsys: pytest.CaptureFixture[str]) -> None:
    unknown = dict.fromkeys(("os_pid", "kit", "in_flight", "done", "restarts", "last_error"))
    role = {"name": "echo", "state": "running", "workers_ready": 1, "queued": 3, "upgrade": None}
    counted = {"answered": {"ok": 2}, "refused": {"overloaded": 9}, "answers_per_s": 1.0}
    trouble = {"overloaded_by": {"role_depth": 4, "pool": 0}, "breaker": "open", "deferred": 7}
    worker = {"id": 8, "role": "echo", "state": "ready", "breaker": "half_open", "silent_ms": 8_000}
    report = {
        "node": "bridge@127.0.0.1",
        "version": "0",
        "uptime_ms": 0,
        "os_pid": 1,
        "connections": [],
        "roles": [{**role, **counted, **trouble}],
        "workers": [{**worker, **unknown}],
        "relay": {"answered": {}, "refused": {"overloaded": 9}, "accepted": 5, "in_flight": 5},
    }
    status_report.show(report, Console(width=200, file=sys.stdout))
    shown = capsys.readouterr().out
    for line in (
        "echo: its circuit breaker is open",
        "echo: jobs told that it is overloaded since its start, by rule: role_depth 4\n",
        "echo: 7 jobs wait outside its queue (deferred)",
        "worker 8 (echo): its circuit breaker is half_open",
        "worker 8 (echo): no sign of life for 8 s; `ringbridge restart 8` replaces it",
        "answered: nothing yet; refused: overloaded 9",
    ):
        assert line in shown


@pytest.mark.parametrize("format_", ["json", "console"])
def test_a_logged_exception_shows_no_local_variables(format_: str) -> None:
    script = (
        "from bridge.ops import logs; import structlog\n"
        f"logs.set_up(logs.LogFormat('{format_}'))\n"
        "def fail(key):\n"
        "    return 1 // key\n"
        "try:\n"
        "    secret = 'Cx' + 'Yz'; fail(0)\n"
        "except ZeroDivisionError:\n"
        "    structlog.get_logger('x').exception('it failed')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "ZeroDivisionError" in done.stderr
    assert "CxYz" not in done.stderr


def test_log_lines_are_json_where_nobody_reads_along(tmp_path: Path) -> None:
    script = (
        "from bridge.ops import logs; logs.set_up(); import structlog\n"
        "structlog.get_logger('x').warning('it happened', worker=7)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    line = json.loads(done.stderr)
    assert (line["event"], line["level"], line["worker"]) == ("it happened", "warning", 7)
    assert line["timestamp"].endswith("Z")

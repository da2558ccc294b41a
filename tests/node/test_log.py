"""Where the lines of the node go: `logging`, until the program configures structlog."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WRITE = """
from bridge.log import Log
log = Log("ringbridge.node")
log.info("connection up", peer="app@127.0.0.1")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("process crashed", process="Counter")
"""


def run(before: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", before + WRITE],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )


def test_without_configuration_only_what_is_wrong_is_said_and_on_stderr() -> None:
    ran = run("")
    assert ran.stdout == ""
    assert ran.stderr.startswith("process crashed process='Counter'\nTraceback")
    assert "ZeroDivisionError" in ran.stderr
    assert "connection up" not in ran.stderr


@pytest.mark.parametrize("level", ["INFO", "WARNING"])
def test_logging_decides_when_it_is_configured(level: str) -> None:
    ran = run(f"import logging; logging.basicConfig(level='{level}')\n")
    shown = "INFO:ringbridge.node:connection up peer='app@127.0.0.1'" in ran.stderr
    assert shown == (level == "INFO")


def test_structlog_takes_the_lines_once_it_is_configured() -> None:
    renderer = "structlog.processors.JSONRenderer()"
    ran = run(f"import structlog; structlog.configure(processors=[{renderer}])\n")
    assert '{"peer": "app@127.0.0.1", "event": "connection up"}' in ran.stdout
    assert ran.stderr == ""

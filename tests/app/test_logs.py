"""A log that cannot be written: nobody ends for it, and what is missing is told."""

from __future__ import annotations

import errno
import io
import json
from collections.abc import Iterator

import pytest
import structlog

from bridge.ops import logs


class Disk(io.StringIO):
    """Full while `full` is set."""

    full = False

    def write(self, text: str) -> int:
        self._check()
        return super().write(text)

    def flush(self) -> None:
        self._check()

    def _check(self) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "no space")


@pytest.fixture
def disk() -> Iterator[Disk]:
    before = structlog.get_config()
    made = Disk()
    logs.set_up(logs.LogFormat.JSON, stream=made)
    yield made
    structlog.configure(**before)


def said(disk: Disk) -> list[dict[str, object]]:
    return [json.loads(line) for line in disk.getvalue().splitlines()]


def test_a_full_disk_ends_nobody_and_the_lines_are_counted(disk: Disk) -> None:
    log = structlog.get_logger("ringbridge")
    log.info("first")
    disk.full = True
    for _ in range(3):
        log.info("lost")
    disk.full = False
    log.info("second")
    log.info("third")
    assert [line["event"] for line in said(disk)] == [
        "first",
        "log lines are missing here",
        "second",
        "third",
    ]
    assert said(disk)[1]["lines"] == 3
    assert "space" in str(said(disk)[1]["why"])

"""Who is below a process, where all of them may end at any time."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.chaos.injectors import descendants


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


def test_a_child_is_found_and_one_that_is_gone_is_not(sleeper: subprocess.Popen[bytes]) -> None:
    assert sleeper.pid in descendants(os.getpid())
    sleeper.kill()
    sleeper.wait()
    assert sleeper.pid not in descendants(os.getpid())
    assert descendants(sleeper.pid) == []


def test_a_process_that_ends_between_two_looks_has_nobody_below_it(
    sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks whether it is there is told that it is, and finds that it is not."""
    is_there = Path.is_dir

    def ends_behind_our_back(path: Path, *args: Any, **options: Any) -> bool:
        said = is_there(path, *args, **options)
        sleeper.kill()
        sleeper.wait()
        return said

    monkeypatch.setattr(Path, "is_dir", ends_behind_our_back)
    assert descendants(sleeper.pid) == []

"""The deadlines that conftest.py gives to every test, tried on tests that hang."""

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.timeout(180)  # each is a pytest of its own, or three

HANGING = """
import time, pytest, trio
from hypothesis import given, strategies

async def test_virtual_time_is_not_counted(autojump_clock):
    await trio.sleep(1000)

@pytest.mark.timeout(0.2)
def test_a_plain_test_is_interrupted():
    time.sleep(30)

@pytest.mark.timeout(0.2)
async def test_a_trio_test_is_cancelled():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        try:
            await trio.sleep_forever()
        finally:
            print("cleaned up in order")

@pytest.mark.timeout(0.2)
@given(strategies.just(30))
async def test_a_property_is_cancelled_and_not_shrunk(seconds):
    await trio.sleep(seconds)

@pytest.mark.timeout(0.2)
async def test_a_trio_test_that_blocks_is_interrupted_after_the_grace():
    time.sleep(30)

async def test_later_tests_find_trio_whole():
    await trio.lowlevel.checkpoint()
"""


def pytest_on(folder: Path, code: str, *options: str) -> str:
    conftest = (ROOT / "conftest.py").read_text()
    (folder / "conftest.py").write_text(re.sub(r"GRACE_S = .*", "GRACE_S = 0.3", conftest))
    (folder / "test_hanging.py").write_text(code)
    shutil.copy(ROOT / "pyproject.toml", folder)
    command = [sys.executable, "-m", "pytest", "-v", "--tb=short", *options, "test_hanging.py"]
    run = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=160, check=False
    )
    return run.stdout


def test_what_hangs_fails_alone_and_in_order(tmp_path: Path) -> None:
    output = pytest_on(tmp_path, HANGING)
    verdicts = dict(re.findall(r"::(test_\w+) (PASSED|FAILED)", output))
    assert verdicts == {
        "test_virtual_time_is_not_counted": "PASSED",
        "test_a_plain_test_is_interrupted": "FAILED",
        "test_a_trio_test_is_cancelled": "FAILED",
        "test_a_property_is_cancelled_and_not_shrunk": "FAILED",
        "test_a_trio_test_that_blocks_is_interrupted_after_the_grace": "FAILED",
        "test_later_tests_find_trio_whole": "PASSED",
    }
    assert "cleaned up in order" in output
    assert "await trio.sleep_forever()" in output, "the message shows where the test was waiting"


def test_a_trio_test_that_cannot_be_cancelled_ends_the_run_by_name(tmp_path: Path) -> None:
    output = pytest_on(
        tmp_path,
        """
import pytest, trio

@pytest.mark.timeout(0.2)
async def test_shielded():
    with trio.CancelScope(shield=True):
        await trio.sleep_forever()
""",
    )
    assert "cannot be cancelled: test_hanging.py::test_shielded" in output


STUCK_AMONG_OTHERS = """
import os, subprocess, pytest, trio
from pathlib import Path

def test_before():
    pass

@pytest.mark.timeout(0.2)
async def test_shielded():
    child = subprocess.Popen(["sleep", "600"])
    Path("child").write_text(str(child.pid))
    async def sits_in_the_corner():
        with trio.CancelScope(shield=True):
            await trio.sleep_forever()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sits_in_the_corner)

def test_behind():
    pass

def test_that_fails():
    assert 1 == 2

def test_last():
    pass
"""


@pytest.mark.parametrize("scheduling", ["loadfile", "load"])
def test_under_xdist_it_fails_by_name_and_all_others_have_their_verdict(
    tmp_path: Path, scheduling: str
) -> None:
    options = ["--numprocesses=1", f"--dist={scheduling}", "--junitxml=junit.xml"]
    output = pytest_on(tmp_path, STUCK_AMONG_OTHERS, *options)
    verdicts = re.findall(r"(PASSED|FAILED|ERROR) test_hanging.py::(test_\w+)", output)
    assert sorted(set(verdicts)) == [
        ("FAILED", "test_shielded"),
        ("FAILED", "test_that_fails"),
        ("PASSED", "test_before"),
        ("PASSED", "test_behind"),
        ("PASSED", "test_last"),
    ]
    assert "INTERNALERROR" not in output
    assert "cannot be cancelled: test_hanging.py::test_shielded" in output
    assert "in sits_in_the_corner" in output, "each task is shown, where it waits"
    assert re.search(r"= 2 failed, 3 passed", output)
    suite = next(ElementTree.parse(tmp_path / "junit.xml").getroot().iter("testsuite"))
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("5", "2", "0")
    pid = int((tmp_path / "child").read_text())
    until = time.monotonic() + 30
    while Path("/proc", str(pid)).exists():  # what it had started goes with its process
        assert time.monotonic() < until
        time.sleep(0.01)


def test_where_no_process_takes_its_place_the_next_test_is_not_said_to_be_run_again(
    tmp_path: Path,
) -> None:
    options = ["--numprocesses=1", "--dist=worksteal", "--max-worker-restart=0"]
    output = pytest_on(tmp_path, STUCK_AMONG_OTHERS, *options)
    assert "NOT RUN test_hanging.py::test_behind" in output
    assert "FAILED test_hanging.py::test_shielded" in output
    assert re.search(r"= 1 failed, 1 passed, 1 not run in", output)
    assert "rerun" not in output.lower()


def test_a_trio_test_that_skips_says_why(tmp_path: Path) -> None:
    output = pytest_on(
        tmp_path,
        """
import pytest, trio

async def test_at_once():
    pytest.skip("no anvil here")

async def test_within_a_nursery():
    async with trio.open_nursery():
        pytest.skip("no hammer here")
""",
    )
    assert "test_hanging.py:5: no anvil here" in output
    assert "test_hanging.py:9: no hammer here" in output

"""scripts/run-tests decides whether a change is green, so what it counts is tested itself."""

import subprocess
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "run-tests"


@pytest.fixture
def run_tests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, with its files in a folder of the test's own."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    spec = spec_from_loader("run_tests", SourceFileLoader("run_tests", str(SCRIPT)))
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "run_tests", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "JUNIT", tmp_path / "pytest.xml")
    return module


def test_plain_lines_are_summed_and_prose_is_not(run_tests: ModuleType) -> None:
    lines = [
        "ring: 9 passed, 9 failed so far\n",
        "3 passed, 0 failed\n",
        "4 passed, 1 failed, 2 skipped\n",
    ]
    assert run_tests.count_plain(lines) == run_tests.Counts(7, 1, 2)


@pytest.mark.parametrize(
    ("line", "counts"),
    [
        ("1 test, 0 failures", (1, 0, 0)),
        ("1 doctest, 3 tests, 0 failures", (4, 0, 0)),
        ("1 property, 2 tests, 1 failure", (2, 1, 0)),
        # 8 in all: 2 failed, 1 left out by a tag, 2 whose setup_all failed, 1 skipped
        ("1 doctest, 7 tests, 2 failures, 1 excluded, 2 invalid, 1 skipped", (2, 4, 1)),
        ("1 doctest, 7 tests, 0 failures, 8 excluded", (0, 0, 0)),
        ("Result: 2 passed (1 doctest, 1 test)", (2, 0, 0)),
        ("Result: 2 passed (1 doctest, 1 test), 1 skipped, 1 excluded", (2, 0, 1)),
        (
            "Result: 2/4 passed (1/1 doctest, 1/3 tests), 2 invalid, 1 skipped, 1 excluded",
            (2, 4, 1),
        ),
        ("Result: 0 tests, 8 excluded", (0, 0, 0)),
        ("  1) test 3 tests, 0 failures (XTest)", (0, 0, 0)),
    ],
)
def test_ex_unit_closing_lines_as_printed_by_elixir_1_14_to_1_20(
    run_tests: ModuleType, line: str, counts: tuple[int, int, int]
) -> None:
    assert run_tests.count_ex_unit(["noise\n", line + "\n"]) == run_tests.Counts(*counts)


EX_UNIT_SAYS = """
...........

  1) test it answers: so, or so (Ringbridge.LaneTest)
     elixir_client/test/lane_test.exs:96
     Assertion with == failed
     code:  assert answer == :b
     left:  :a
     right: :b
     stacktrace:
       elixir_client/test/lane_test.exs:106: (test)

     The following output was logged:

..
  2) doctest Ringbridge.call/4 (3) (Ringbridge.DocTest)
     it says so
"""


@pytest.mark.parametrize(
    ("said", "failures"),
    [
        (
            EX_UNIT_SAYS,
            [
                "test it answers: so, or so (Ringbridge.LaneTest)\n"
                "     elixir_client/test/lane_test.exs:96\n"
                "     Assertion with == failed\n"
                "     code:  assert answer == :b\n"
                "     left:  :a\n"
                "     right: :b",
                "doctest Ringbridge.call/4 (3) (Ringbridge.DocTest)\n     it says so",
            ],
        ),
        *(
            (f"1 passed, 1 failed\n{line}\nand so on\n", [line])
            for line in (
                "FAILED tests/node/test_tls.py::test_we_dial_a_beam[none-1.3] - AssertionError...",
                "ERROR tests/node/test_tls.py - ImportError: no such thing",
                "tests/test_gate.c:245: in the_spin_shrinks: g.waiter.last is 1, not 0",
                "asan/test_gate ended with status 139",
                "test ring::full ... FAILED",
                "run-tests: Elixir ended with status 1 and no counted failure",
            )
        ),
        ("test ring::full ... ok\n== Python: pytest\n.... [100%]\n", []),
        # A run within a run has said it twice by then: once as it went and once at its end.
        ("FAILED a.py::b - c\nfailed: Elixir: 1) d\n", ["Elixir: 1) d"]),
    ],
)
def test_what_failed_is_found_in_what_each_runner_prints(
    run_tests: ModuleType, said: str, failures: list[str]
) -> None:
    assert run_tests.failures(said.splitlines(keepends=True)) == failures


# Fails as often as the number in its file says, two at a time; its status is pytest's.
FALTERS = """
import sys
from pathlib import Path
left = Path(sys.argv[1])
failed = min(int(left.read_text()), 2)
left.write_text(str(int(left.read_text()) - failed))
for number in range(failed):
    print(f"FAILED a.py::b[{number}] - c")
print(f"{int(sys.argv[2]) - failed} passed, {failed} failed")
raise SystemExit(1 if failed else 0)
"""


def falters(run_tests: ModuleType, left: Path, times: int, failed_status: int = 1) -> object:
    left.write_text(str(times))
    command = [sys.executable, "-c", FALTERS, str(left)]
    alone = run_tests.Alone([*command, "2"], run_tests.count_plain, failed_status)
    return run_tests.Runner("it", [*command, "9"], run_tests.count_plain, alone)


@pytest.mark.parametrize(
    ("times", "failed_status", "once", "ends"),
    [
        # Both fail beside others, and pass alone: told, and forgiven.
        (2, 1, False, ["2 of them passed only when alone; in one run 3 may", "9 passed, 0 failed"]),
        # Who fails alone too has failed, and says so.
        (4, 1, False, ["7 passed, 2 failed"]),
        # A runner that broke off is not asked again: nobody knows what it has left out.
        (2, 3, False, ["7 passed, 2 failed"]),
        (2, 1, True, ["7 passed, 2 failed"]),
    ],
)
def test_what_fails_beside_others_is_tried_once_more_alone(
    run_tests: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    times: int,
    failed_status: int,
    once: bool,
    ends: list[str],
) -> None:
    monkeypatch.delenv("RINGBRIDGE_TEST_ONCE", raising=False)
    if once:
        monkeypatch.setenv("RINGBRIDGE_TEST_ONCE", "1")
    it = falters(run_tests, tmp_path / "left", times, failed_status)
    monkeypatch.setattr(run_tests, "RUNNERS", {"python": it})
    good = ends[-1].endswith(" 0 failed")
    assert run_tests.main(["python"]) == (0 if good else 1)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-len(ends) :] == ends
    word = "unsteady" if good else "failed"
    assert [line for line in lines if line.startswith(("unsteady: ", "failed: "))] == [
        f"{word}: it: FAILED a.py::b[{number}] - c" for number in range(2)
    ]


def test_where_many_need_a_second_try_all_of_them_have_failed(
    run_tests: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("RINGBRIDGE_TEST_ONCE", raising=False)
    runners = {name: falters(run_tests, tmp_path / name, 2) for name in ("python", "elixir")}
    monkeypatch.setattr(run_tests, "RUNNERS", runners)
    assert run_tests.main(["python", "elixir"]) == 1
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "4 of them passed only when alone; in one run 3 may",
        "14 passed, 4 failed",
    ]


def test_what_is_unsteady_within_a_run_within_a_run_is_told_too(run_tests: ModuleType) -> None:
    inner = "print('unsteady: Python: FAILED a.py::b - c'); print('1 passed, 0 failed')"
    result = run_tests.run(runner(run_tests, inner), {}, [].append)
    assert list(result.unsteady) == ["Python: FAILED a.py::b - c"]
    assert result.counts == run_tests.Counts(1)


PYTEST_FALTERS = """
from pathlib import Path
import pytest

@pytest.mark.parametrize("number", range(4))
def test_it(number):
    seen = Path(__file__).with_name(f"seen-{number}")
    if number in (1, 2) and not seen.exists():
        seen.touch()
        raise AssertionError("the first time")
    assert number != 3
"""


def test_pytest_runs_again_what_had_failed_and_nothing_else(
    run_tests: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The real one: the ids that it keeps of the first run, and the counts of the second."""
    monkeypatch.delenv("RINGBRIDGE_TEST_ONCE", raising=False)
    monkeypatch.setattr(run_tests, "JUNIT_ALONE", tmp_path / "alone.xml")
    monkeypatch.setattr(run_tests, "PYTEST_CACHE", tmp_path / "cache")
    (tmp_path / "test_it.py").write_text(PYTEST_FALTERS)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    common = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-ra",
        "-p",
        "no:randomly",
        f"-c{tmp_path}/pytest.ini",
    ]
    common += ["-o", f"cache_dir={tmp_path}/cache", f"--rootdir={tmp_path}"]
    again = ["--last-failed", "--last-failed-no-failures=none", f"--junitxml={tmp_path}/alone.xml"]
    alone = run_tests.Alone([*common, *again], run_tests.count_junit_alone, failed_status=1)
    command = [*common, "test_it.py", f"--junitxml={run_tests.JUNIT}"]
    it = run_tests.Runner("it", command, run_tests.count_junit, alone)
    monkeypatch.setattr(run_tests, "RUNNERS", {"python": it})
    assert run_tests.main(["python"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == [
        "2 of them passed only when alone; in one run 3 may",
        "3 passed, 1 failed",
    ]
    assert sum(line.startswith("failed: it: FAILED test_it.py::test_it[3]") for line in lines) == 1
    assert sum(line.startswith("unsteady: it: FAILED test_it.py") for line in lines) == 2


def test_the_end_of_the_log_says_what_failed(
    run_tests: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    says = "print('FAILED a.py::b - c'); print('0 passed, 1 failed'); raise SystemExit(1)"
    monkeypatch.setattr(run_tests, "RUNNERS", {"python": runner(run_tests, says)})
    assert run_tests.main(["python"]) == 1
    assert "failed: it: FAILED a.py::b - c" in capsys.readouterr().out.splitlines()[-4:]


def runner(run_tests: ModuleType, code: str, count: object = None) -> object:
    return run_tests.Runner("it", [sys.executable, "-c", code], count or run_tests.count_plain)


def counts_of(run_tests: ModuleType, runner: object, lines: list[str] | None = None) -> object:
    return run_tests.run(runner, {}, (lines if lines is not None else []).append).counts


def test_a_runner_that_fails_without_a_counted_failure_counts_as_one(
    run_tests: ModuleType,
) -> None:
    broken = runner(run_tests, "print('5 passed, 0 failed'); raise SystemExit(3)")
    lines: list[str] = []
    assert counts_of(run_tests, broken, lines) == run_tests.Counts(5, 1)
    assert "status 3" in lines[-1]


def test_a_runner_that_reports_no_test_or_is_not_there_has_failed(run_tests: ModuleType) -> None:
    silent = runner(run_tests, "print('fine')")
    assert counts_of(run_tests, silent) == run_tests.Counts(failed=1)
    absent = run_tests.Runner("it", ["./no-such-runner"], run_tests.count_plain)
    assert counts_of(run_tests, absent) == run_tests.Counts(failed=1)


def test_a_junit_file_of_an_earlier_run_is_not_counted(run_tests: ModuleType) -> None:
    run_tests.JUNIT.write_text('<testsuites><testsuite tests="9"/></testsuites>')
    silent = runner(run_tests, "", run_tests.count_junit)
    assert counts_of(run_tests, silent) == run_tests.Counts(failed=1)


def test_what_a_runner_used_of_the_processors_is_told(run_tests: ModuleType) -> None:
    busy = "import time\nwhile time.process_time() < 0.3: pass\nprint('1 passed, 0 failed')"
    result = run_tests.run(runner(run_tests, busy), {}, [].append)
    assert 0.3 <= result.cpu_seconds <= result.seconds + 0.1


AFTER_THE_OTHER = """
import sys, time
from pathlib import Path
mine, its = map(Path, sys.argv[1:])
mine.touch()
print("begun", mine.name, flush=True)
while not its.exists(): time.sleep(0.01)
print("1 passed, 0 failed")
"""


def test_lanes_run_side_by_side_and_are_told_in_order_each_whole(
    run_tests: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def waits_for(mine: str, its: str) -> object:
        command = [sys.executable, "-c", AFTER_THE_OTHER, str(tmp_path / mine), str(tmp_path / its)]
        return run_tests.Runner(mine, command, run_tests.count_plain)

    # Each ends only when the other one has begun; the third is of the lane of the first.
    runners = {"left": waits_for("left", "right"), "right": waits_for("right", "left")}
    runners["last"] = runner(run_tests, "print('2 passed, 1 failed'); raise SystemExit(1)")
    monkeypatch.setattr(run_tests, "RUNNERS", runners)
    monkeypatch.setattr(run_tests, "LANES", [{"left", "last"}, {"right"}])
    assert run_tests.main(["left", "right", "last"]) == 1
    lines = capsys.readouterr().out.splitlines()
    told = [line for line in lines if line.startswith("begun") or "passed" in line[:8]]
    assert told == [
        "begun left",
        "1 passed, 0 failed",
        "begun right",
        "1 passed, 0 failed",
        "2 passed, 1 failed",
        "4 passed, 1 failed",
    ]


def test_every_runner_of_a_whole_run_has_its_lane(run_tests: ModuleType) -> None:
    assert all(sum(name in lane for lane in run_tests.LANES) == 1 for name in run_tests.RUNNERS)
    assert set(run_tests.ALL) <= set(run_tests.RUNNERS)


def test_pytest_is_counted_from_its_junit_file(run_tests: ModuleType) -> None:
    run_tests.JUNIT.write_text(
        '<testsuites><testsuite tests="7" failures="1" errors="2" skipped="1"/></testsuites>'
    )
    assert run_tests.count_junit([]) == run_tests.Counts(3, 3, 1)


def test_the_erlang_root_comes_first_in_path_with_a_build_of_its_own(
    run_tests: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RINGBRIDGE_ERL_ROOT", str(tmp_path / "forky"))
    env = run_tests.environment()
    assert env["PATH"].startswith(f"{tmp_path}/forky/usr/bin:")
    assert env["MIX_BUILD_PATH"].endswith("build/mix-forky")


def test_an_unknown_runner_is_refused_by_name() -> None:
    result = subprocess.run(
        [sys.executable, str(SCRIPT), "cobol"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert "no runner named cobol" in result.stderr

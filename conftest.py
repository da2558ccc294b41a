"""Every test has its own deadline, in real time: 180 s, or @pytest.mark.timeout(seconds).

Rules:
- A plain function, or a fixture, is interrupted where it stands.
- A trio test is cancelled, so that its nurseries and clean-up end in order; an exception thrown
  into trio's own loop, as pytest-timeout does it, would leave them behind for later tests.
- A trio test that still runs GRACE_S later blocks its thread, and is interrupted, or shields itself
  from being cancelled: then nothing can end it in order, and the whole run ends with its name. Of
  xdist's processes only the one ends that runs it; it has failed, and the others are run elsewhere,
  or, where no process may begin in its place (--max-worker-restart=0), are not run.

The clock is an interval timer of the process, so a mock clock, or an interpreter busy in one task,
does not hold it up. Python runs the handler between two bytecodes of the main thread: a C call that
never returns is only reported, with its stack, by pytest's faulthandler_timeout.
"""

import functools
import os
import signal
import traceback
from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import hypothesis
import pytest
import trio

pytest_plugins = ["bridge.testing.plugin"]

DEFAULT_S = 180.0
GRACE_S = 10.0

# A shell ignores SIGINT for what it runs in the background, and so does all that this starts: then
# no test could end a program as its user does.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Its deadline of 200 ms an example, and its check that examples are made fast enough, measure how
# busy the machine is.
hypothesis.settings.register_profile(
    "ringbridge", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("ringbridge")


class TookTooLong(BaseException):
    """Not an Exception, so that neither code under test nor hypothesis' shrinking catches it."""


@dataclass
class Alarm:
    """What the signal handler needs to know about the phase that runs now."""

    item: pytest.Item
    seconds: float
    task: trio.lowlevel.Task | None = None
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    where: str = ""
    skipped: BaseException | None = None

    def ring(self, _signal: int, _frame: FrameType | None) -> None:
        cancel = self.task is not None and not self.where
        if not cancel and (trio.lowlevel.in_trio_task() or not trio.lowlevel.in_trio_run()):
            raise TookTooLong(f"still running after {self.seconds:g} s, interrupted here")
        if not cancel:  # in trio's loop, in a shielded scope or in an asynchronous fixture
            end_with(self.item, f"cannot be cancelled: {self.item.nodeid}, at\n{every_task()}")
        assert self.task is not None
        self.where = stack_of(self.task)
        # The only call of trio's that is allowed in a signal handler.
        trio.lowlevel.current_trio_token().run_sync_soon(self.scope.cancel)


def stack_of(task: trio.lowlevel.Task) -> str:
    return "".join(traceback.StackSummary.extract(task.iter_await_frames()).format())


def every_task() -> str:
    """Each task of the trio run, and where it waits."""
    text, tasks = "", [trio.lowlevel.current_root_task()]
    while tasks:
        if task := tasks.pop():
            text += f"{task.name}\n{stack_of(task)}"
            tasks += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return text


def end_with(item: pytest.Item, why: str) -> NoReturn:
    """End the process in which nothing can be run any more. It is the whole run, or one process of
    xdist's: then say first that this test has failed and is over, lest it be tried again.
    """
    if not hasattr(item.config, "workerinput"):
        pytest.exit(why, returncode=1)
    report = pytest.TestReport(
        item.nodeid, item.location, {}, outcome="failed", longrepr=why, when="call"
    )
    setattr(report, LAST, True)
    item.ihook.pytest_runtest_logreport(report=report)
    plugins: Iterable[Any] = item.config.pluginmanager.get_plugins()
    xdist = next(plugin for plugin in plugins if hasattr(plugin, "sendevent"))
    xdist.sendevent("runtest_protocol_complete", item_index=xdist.item_index, duration=0.0)
    for pid in descendants(os.getpid()):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    os._exit(1)


def descendants(pid: int) -> list[int]:
    found = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += [int(child) for child in (task / "children").read_text().split()]
    return found + [below for child in found for below in descendants(child)]


# ---- in the process that has started xdist's

LAST = "last_of_its_process"  # an attribute of a report
ended: set[object] = set()  # processes that have said so
STATUS = {"rerun": ("rerun", "R", "RERUN"), "not run": ("not run", "N", "NOT RUN")}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if hasattr(report, LAST) and hasattr(report, "node"):
        ended.add(report.node)


@pytest.hookimpl(optionalhook=True)
def pytest_handlecrashitem(crashitem: str, report: Any, sched: Any) -> None:
    """xdist takes the next test of an ended process for the culprit; it has not begun."""
    if report.node in ended and sched.config.getoption("maxworkerrestart") == "0":
        report.outcome = "not run"  # nor is any that comes behind it: nobody takes its place
    elif report.node in ended:
        report.outcome = "rerun"
        with suppress(NotImplementedError):  # those that keep files together have queued it already
            sched.mark_test_pending(crashitem)


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    return STATUS.get(getattr(report, "outcome", ""))


alarm_key = pytest.StashKey[Alarm]()


@contextmanager
def deadline(item: pytest.Item) -> Iterator[None]:
    marker = item.get_closest_marker("timeout")
    seconds = float(marker.args[0]) if marker else DEFAULT_S
    alarm = item.stash[alarm_key] = Alarm(item, seconds)
    before = signal.signal(signal.SIGALRM, alarm.ring)
    signal.setitimer(signal.ITIMER_REAL, alarm.seconds, GRACE_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def only(group: BaseExceptionGroup, kind: type[BaseException]) -> BaseException | None:
    """What is in the group, if it is one exception of that kind."""
    inner: BaseException = group
    while isinstance(inner, BaseExceptionGroup) and len(inner.exceptions) == 1:
        [inner] = inner.exceptions
    return inner if isinstance(inner, kind) else None


def cancelled_by_alarm(
    item: pytest.Item, test: Callable[..., Awaitable[None]]
) -> Callable[..., Awaitable[None]]:
    @functools.wraps(test)
    async def bounded(**fixtures: object) -> None:
        alarm = item.stash[alarm_key]
        alarm.task = trio.lowlevel.current_task()
        alarm.scope = trio.CancelScope()  # a property test comes here once for each example
        try:
            with alarm.scope:
                await test(**fixtures)
        except pytest.skip.Exception as skipped:
            alarm.skipped = skipped
            raise
        except BaseExceptionGroup as group:  # a nursery was open
            alarm.skipped = only(group, pytest.skip.Exception)
            raise
        finally:
            alarm.task = None
        if alarm.scope.cancelled_caught:
            raise TookTooLong(f"cancelled after {alarm.seconds:g} s, at\n{alarm.where}")

    return bounded


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, None, None]:
    with deadline(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    with deadline(item):
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)  # before pytest-trio makes a plain function of it
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    if isinstance(item, pytest.Function) and item.get_closest_marker("trio"):
        property_test = getattr(item.obj, "hypothesis", None)
        if property_test is None:
            item.obj = cancelled_by_alarm(item, item.obj)
        elif not hasattr(property_test.inner_test, "_trio_test_runner_wrapped"):
            property_test.inner_test = cancelled_by_alarm(item, property_test.inner_test)
    with deadline(item):
        try:
            return (yield)
        except pytest.skip.Exception:  # pytest-trio has lost the reason
            if (alarm := item.stash[alarm_key]).skipped is None:
                raise
            raise alarm.skipped from None

"""Every test has its own deadline, in real time: 60 s, or @pytest.mark.timeout(seconds).

Rules:
- A plain function, or a fixture, is interrupted where it stands.
- A trio test is cancelled, so that its nurseries and clean-up end in order; an exception thrown
  into trio's own loop, as pytest-timeout does it, would leave them behind for later tests.
- A trio test that still runs GRACE_S later blocks its thread, and is interrupted, or shields itself
  from being cancelled: then nothing can end it in order, and the whole run ends with its name.

The clock is an interval timer of the process, so a mock clock, or an interpreter busy in one task,
does not hold it up. Python runs the handler between two bytecodes of the main thread: a C call that
never returns is only reported, with its stack, by pytest's faulthandler_timeout.
"""

import functools
import signal
import traceback
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

import hypothesis
import pytest
import trio

pytest_plugins = ["bridge.testing.plugin"]

DEFAULT_S = 60.0
GRACE_S = 10.0

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

    name: str
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
            pytest.exit(f"cannot be cancelled: {self.name}, at\n{self.where}", returncode=1)
        assert self.task is not None
        frames = traceback.StackSummary.extract(self.task.iter_await_frames())
        self.where = "".join(frames.format())
        # The only call of trio's that is allowed in a signal handler.
        trio.lowlevel.current_trio_token().run_sync_soon(self.scope.cancel)


alarm_key = pytest.StashKey[Alarm]()


@contextmanager
def deadline(item: pytest.Item) -> Iterator[None]:
    marker = item.get_closest_marker("timeout")
    seconds = float(marker.args[0]) if marker else DEFAULT_S
    alarm = item.stash[alarm_key] = Alarm(item.nodeid, seconds)
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

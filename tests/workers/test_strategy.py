"""strategy.py: who falls with whom, held against a supervisor of a few lines and against OTP's own.

`World` carries out what `Siblings` asks for, and notes it: "-b" when b is ended, "+b" when it is
started, "!" when the supervisor itself fails.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.testing import Beam, EpmdDaemon
from bridge.workers.restart_policy import Restart, RestartPolicy
from bridge.workers.strategy import (
    Effect,
    End,
    Halted,
    Quit,
    Risen,
    Siblings,
    Spent,
    Start,
    Strategy,
    fall_with,
)

STRATEGIES: list[Strategy] = ["one_for_one", "one_for_all", "rest_for_one"]


def policy(restart: Restart = "permanent", max_restarts: int = 1000) -> RestartPolicy:
    return RestartPolicy(restart, max_restarts, 60.0, 0.1, 1.0)


class World:
    """Children that end and start at once, or when a test says so."""

    def __init__(
        self,
        strategy: Strategy,
        children: str,
        *,
        restart: Restart = "permanent",
        max_restarts: int = 1000,
        in_turn: bool = False,
        slow: bool = False,
        failing: dict[str, int] | None = None,
    ) -> None:
        self.siblings: Siblings[str] = Siblings(
            strategy, policy(restart, max_restarts), in_turn=in_turn
        )
        self.now_s = 0.0
        self.log: list[str] = []
        self.running: set[str] = set()
        self.slow = slow
        self.failing = failing or {}  # how often a start of a child is in vain
        self.ending: list[str] = []
        self.starting: list[str] = []
        for at, child in enumerate(children):
            self.siblings.join(child, at)
        self.do(self.siblings.passed(0.0))

    def do(self, effects: list[Effect[str]]) -> None:
        for effect in effects:
            match effect:
                case End(child):
                    assert child not in self.ending
                    self.log.append(f"-{child}")
                    self.ending.append(child)
                case Start(child):
                    assert child not in self.running
                    assert not self.ending, "nobody starts while another ends"
                    self.log.append(f"+{child}")
                    self.running.add(child)
                    self.starting.append(child)
                case Quit(child):
                    if child in self.running:
                        self.log.append(f"-{child}")
                    self.running.discard(child)
                case Spent(_):
                    self.log.append("!")
                case Halted():
                    self.log.append("halted")
                case Risen():
                    self.log.append("risen")
        if not self.slow:
            self.settle()

    def settle(self) -> None:
        """Let all that ends end and all that starts start, and the time pass."""
        self.slow, slow = True, self.slow
        while True:
            if self.ending:
                self.end(self.ending[0])
            elif self.starting:
                self.come_up(self.starting[0])
            elif self.siblings.due_s is not None:
                self.wait()
            else:
                break
        self.slow = slow

    def end(self, child: str) -> None:
        self.ending.remove(child)
        self.running.discard(child)
        if child in self.starting:
            self.starting.remove(child)
        self.do(self.siblings.gone(child, self.now_s))

    def come_up(self, child: str) -> None:
        self.starting.remove(child)
        if self.failing.get(child, 0):
            self.failing[child] -= 1
            self.fall(child)
        else:
            self.do(self.siblings.up(child, self.now_s))

    def wait(self) -> None:
        due_s = self.siblings.due_s
        assert due_s is not None
        self.now_s = max(self.now_s, due_s)
        self.do(self.siblings.passed(self.now_s))

    def fall(self, child: str, *, normal: bool = False) -> None:
        self.running.discard(child)
        if child in self.starting:
            self.starting.remove(child)
        _, effects = self.siblings.fell(child, normal=normal, now_s=self.now_s, random=0.0)
        self.do(effects)

    def take_log(self) -> str:
        log, self.log = self.log, []
        return " ".join(log)


class Naive:
    """A supervisor whose children end and start at once: supervisor.erl in a few lines."""

    def __init__(self, strategy: Strategy, children: str, failing: dict[str, int]) -> None:
        self.strategy, self.children, self.failing = strategy, children, failing
        self.running: set[str] = set()
        self.log: list[str] = []
        self.start(children)

    def fall(self, child: str) -> None:
        self.running.discard(child)
        at = self.children.index(child)
        which = {
            "one_for_one": child,
            "one_for_all": self.children,
            "rest_for_one": self.children[at:],
        }[self.strategy]
        for other in reversed(which):
            if other in self.running:
                self.running.discard(other)
                self.log.append(f"-{other}")
        self.start(which)

    def start(self, which: str) -> None:
        for at, child in enumerate(which):
            self.log.append(f"+{child}")
            if self.failing.get(child, 0):
                self.failing[child] -= 1
                self.fall(child)
                if self.strategy == "one_for_one":
                    continue
                rest = [c for c in which[at + 1 :] if c not in self.running]
                assert not rest, "they were started with it"
                return
            self.running.add(child)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_who_falls_with_whom_is_as_the_strategies_are_called(strategy: Strategy) -> None:
    with_b = {"one_for_one": "", "one_for_all": "ac", "rest_for_one": "c"}[strategy]
    assert fall_with(strategy, "abc", "b") == list(with_b)


CHILDREN = "abcd"
falls = st.lists(st.sampled_from(CHILDREN), max_size=6)
failures = st.dictionaries(st.sampled_from(CHILDREN), st.integers(0, 2))


@given(
    strategy=st.sampled_from(["one_for_all", "rest_for_one"]),
    in_turn=st.booleans(),
    script=falls,
    failing=failures,
)
def test_children_end_and_start_in_the_order_of_a_naive_supervisor(
    strategy: Strategy, in_turn: bool, script: list[str], failing: dict[str, int]
) -> None:
    world = World(strategy, CHILDREN, in_turn=in_turn, failing=dict(failing))
    naive = Naive(strategy, CHILDREN, dict(failing))
    for child in script:
        world.fall(child)
        naive.fall(child)
    assert world.log == naive.log
    assert world.running == naive.running == set(CHILDREN)
    assert world.siblings.is_settled


@given(
    strategy=st.sampled_from(STRATEGIES),
    in_turn=st.booleans(),
    data=st.data(),
)
def test_in_any_interleaving_all_run_in_the_end_and_none_was_started_while_another_ended(
    strategy: Strategy, in_turn: bool, data: st.DataObject
) -> None:
    """`World.do` asserts the second half."""
    world = World(strategy, CHILDREN, in_turn=in_turn, slow=True)
    for _ in range(data.draw(st.integers(0, 30))):
        steps: list[tuple[Callable[[str], None], str]] = [
            *((world.end, child) for child in world.ending),
            *((world.come_up, child) for child in world.starting),
            *((world.fall, child) for child in world.running - set(world.ending)),
        ]
        if world.siblings.due_s is not None:
            steps.append((lambda _: world.wait(), ""))
        if not steps:
            break
        step, child = steps[data.draw(st.integers(0, len(steps) - 1))]
        step(child)
    world.settle()
    assert world.running == set(CHILDREN)
    assert world.siblings.is_settled


def test_siblings_wait_for_the_backoff_and_for_each_other() -> None:
    world = World("one_for_all", "abc", slow=True)
    world.settle()
    world.take_log()
    world.fall("b")
    assert world.take_log() == "-c -a"
    world.end("a")
    assert world.siblings.due_s is None  # c has not ended
    world.end("c")
    assert world.take_log() == ""
    assert world.siblings.due_s == pytest.approx(0.1)
    world.wait()
    assert world.take_log() == "+a"
    world.come_up("a")
    assert world.take_log() == "+b"


def test_roles_end_in_turn_the_last_first() -> None:
    world = World("one_for_all", "abc", in_turn=True, slow=True)
    world.settle()
    world.take_log()
    world.fall("a")
    assert world.take_log() == "-c"
    world.end("c")
    assert world.take_log() == "-b"


def test_the_intensity_is_that_of_all_together_and_past_it_all_end_for_good() -> None:
    world = World("one_for_all", "abc", max_restarts=2)
    for child in "ab":
        world.fall(child)
    world.take_log()
    world.fall("c")
    assert world.take_log() == "-b -a !"
    assert world.running == set()
    assert world.siblings.is_settled


def test_a_transient_child_that_finished_starts_again_with_its_siblings_only() -> None:
    world = World("rest_for_one", "abc", restart="transient")
    world.take_log()
    world.fall("b", normal=True)
    assert (world.take_log(), world.running) == ("", {"a", "c"})
    world.fall("c")
    assert world.take_log() == "+c"
    world.fall("a")
    assert world.take_log() == "-c +a +b +c"


def test_a_temporary_child_takes_nobody_along() -> None:
    world = World("one_for_all", "abc", restart="temporary")
    world.fall("a")
    assert world.running == {"b", "c"}


def test_one_that_leaves_is_waited_for_no_longer() -> None:
    world = World("one_for_all", "abc", slow=True)
    world.settle()
    world.fall("a")
    world.end("c")
    world.do(world.siblings.leave("b", 0.0))  # an operator has drained it
    world.ending.remove("b")
    world.wait()
    assert world.take_log().endswith("+a")
    world.do(world.siblings.leave("a", world.now_s))
    assert world.take_log() == "+c"


def test_the_next_starts_when_the_one_before_is_up_and_not_for_anything_else() -> None:
    world = World("rest_for_one", "abc", slow=True)
    assert world.take_log() == "+a"
    world.do(world.siblings.leave("b", 0.0))
    assert world.take_log() == ""
    world.come_up("a")
    assert world.take_log() == "+c"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_halted_they_end_and_wait_and_begun_they_start_with_a_clean_history(
    strategy: Strategy,
) -> None:
    world = World(strategy, "abc", max_restarts=1)
    if strategy != "one_for_one":
        world.fall("a")
    world.take_log()
    world.do(world.siblings.halt(world.now_s))
    assert world.take_log() == "-c -b -a halted"
    assert world.siblings.is_halted
    assert world.siblings.due_s is None
    world.do(world.siblings.begin(world.now_s))
    assert world.take_log() == "+a +b +c risen"
    if strategy != "one_for_one":
        world.fall("a")
        assert "!" not in world.take_log()


def test_halted_in_the_middle_of_a_fall_nobody_starts() -> None:
    world = World("one_for_all", "abc", slow=True)
    world.settle()
    world.fall("b")
    world.take_log()
    world.do(world.siblings.halt(world.now_s))
    assert world.take_log() == "-b"  # a and c have been told; b waited for its start
    world.settle()
    assert world.take_log() == "halted"
    assert world.running == set()


def test_a_role_whose_last_worker_is_given_up_as_it_begins_has_not_risen() -> None:
    world = World("one_for_one", "ab", slow=True)
    world.settle()
    world.do(world.siblings.halt(0.0))
    world.settle()
    world.do(world.siblings.begin(0.0))
    world.take_log()
    world.do(world.siblings.failed_alone("a", 0.0, given_up="too often"))
    world.do(world.siblings.failed_alone("b", 0.0, given_up="too often"))
    assert world.take_log() == "!"


def test_with_one_for_one_the_supervisor_fails_with_its_last_child() -> None:
    world = World("one_for_one", "ab")
    world.do(world.siblings.failed_alone("a", 0.0, given_up="too often"))
    assert "!" not in world.take_log()
    world.do(world.siblings.failed_alone("b", 0.0, given_up=None))
    world.do(world.siblings.up("b", 0.0))
    world.do(world.siblings.failed_alone("b", 0.0, given_up="too often"))
    assert world.take_log() == "!"


# ---- OTP's own supervisor

CHILD = """
defmodule Sibling do
  use GenServer
  def start_link({log, name}), do: GenServer.start_link(__MODULE__, {log, name}, name: name)
  def init({log, name}) do
    Process.flag(:trap_exit, true)
    send(log, "+#{name}")
    {:ok, {log, name}}
  end
  def terminate(:shutdown, {log, name}), do: send(log, "-#{name}")
  def child_spec(arg), do: %{id: elem(arg, 1), start: {__MODULE__, :start_link, [arg]}}
end
"""
RUN = """
(fn ->
  me = self()
  children = for name <- ~w(a b c d)a, do: {Sibling, {me, name}}
  options = [strategy: :STRATEGY, max_restarts: 1000]
  {:ok, supervisor} = Supervisor.start_link(children, options)
  for name <- ~w(SCRIPT)a do
    pid = Process.whereis(name)
    ref = Process.monitor(pid)
    Process.exit(pid, :kill)
    receive do {:DOWN, ^ref, _, _, _} -> :ok end
    # The supervisor may hear of the death after us; once the name has another pid it is at work.
    Enum.find(Stream.repeatedly(fn -> Process.whereis(name) end), &(&1 not in [nil, pid]))
    Supervisor.which_children(supervisor)
  end
  log = fn -> Stream.repeatedly(fn -> receive do text -> text after 0 -> nil end end) end
  lines = Enum.take_while(log.(), & &1)
  Process.unlink(supervisor)
  Supervisor.stop(supervisor)
  Enum.take_while(log.(), & &1)
  Enum.join(lines, " ")
end).()
"""


@pytest.mark.beam
@pytest.mark.skipif(shutil.which("elixir") is None, reason="no Elixir here")
async def test_children_end_and_start_as_under_otps_own_supervisor(epmd: EpmdDaemon) -> None:
    beam = Beam("supervision_otp", epmd.port)
    try:
        await beam.ready()
        await beam.evaluate(CHILD)
        dice = Random(20)
        for strategy, _ in itertools.product(STRATEGIES, range(6)):
            script = [dice.choice(CHILDREN) for _ in range(dice.randint(1, 5))]
            world = World(strategy, CHILDREN, in_turn=True)
            for child in script:
                world.fall(child)
            code = RUN.replace("STRATEGY", strategy).replace("SCRIPT", " ".join(script))
            assert await beam.evaluate(code) == f'"{world.take_log()}"', (strategy, script)
    finally:
        beam.close()

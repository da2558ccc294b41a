"""Who falls with whom, and in which order they start again: OTP's three strategies. A pure core.

one_for_one   a child that ends starts again alone
one_for_all   all the others are ended, then all start again
rest_for_one  those behind it are ended, then it and they start again

`Siblings` holds the children of one supervisor in their starting order: the workers of a role, or
the roles of a group. It is told what happens and says what is to be done; time and randomness are
arguments. As in supervisor.erl:

- Children start one after the other, the next when the one before is up. (The workers of a role
  with one_for_one start at once: nothing says that one needs another.)
- What falls meanwhile, one that did not come up too, counts as a fall of its own; who has not
  started by then starts with those that follow from it.
- A transient child that had finished starts again with the siblings of one that falls.
- The intensity is the supervisor's, not the child's; past it all its children are ended for good.

Unlike there, the workers of a role are told to end at once and not in turn: they finish their last
jobs side by side. And with one_for_one each child is judged by a history of its own (decision
0006), which is not kept here: this only hears when it is given up.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Generic, Literal, TypeAlias, TypeVar

from bridge.workers.restart_policy import (
    Decision,
    GiveUp,
    LeaveEnded,
    RestartPolicy,
    StartAgain,
)

T = TypeVar("T", bound=Hashable)
Strategy = Literal["one_for_one", "one_for_all", "rest_for_one"]


def fall_with(strategy: Strategy, line: Sequence[T], fallen: T) -> list[T]:
    """Who of a line is ended because `fallen` has ended, in starting order; never itself."""
    match strategy:
        case "one_for_one":
            return []
        case "one_for_all":
            return [child for child in line if child != fallen]
        case "rest_for_one":
            return list(line[line.index(fallen) + 1 :])


@dataclass(frozen=True, slots=True)
class End(Generic[T]):
    """End the child; say `gone` once it has. It may start again."""

    child: T


@dataclass(frozen=True, slots=True)
class Start(Generic[T]):
    """Start the child; say `up` once it works, or `fell`."""

    child: T


@dataclass(frozen=True, slots=True)
class Quit(Generic[T]):
    """End the child, for good: the intensity is used up. Nothing need be said of it."""

    child: T


@dataclass(frozen=True, slots=True)
class Halted:
    """After `halt`: nothing runs any more."""


@dataclass(frozen=True, slots=True)
class Risen:
    """After `begin`: whatever could start has."""


@dataclass(frozen=True, slots=True)
class Spent:
    """The supervisor itself has failed: its intensity is used up, or its last child given up."""

    why: str


Effect: TypeAlias = End[T] | Start[T] | Quit[T] | Halted | Risen | Spent


class _Is(Enum):
    RUNNING = "running"  # started, or somebody else's business
    ENDING = "ending"  # told to end
    DOWN = "down"


class Siblings(Generic[T]):
    """The children of one supervisor. `policy`: their intensity, restart type and backoff.

    `in_turn`: the last one ends first, and the one before it when that is gone, as under OTP; and
    they start in turn with one_for_one too.
    Each method returns what is to be done, in order.
    """

    def __init__(
        self,
        strategy: Strategy,
        policy: RestartPolicy,
        *,
        in_turn: bool = False,
        halted: bool = False,
    ) -> None:
        self.strategy: Strategy = strategy
        self.policy = policy
        self.line: list[T] = []
        self._in_turn = in_turn
        self._is: dict[T, _Is] = {}
        self._to_start: set[T] = set()
        self._to_end: set[T] = set()  # whose turn to end has not come
        self._rising: set[T] = set()  # started, not up
        self._given_up: set[T] = set()
        self._due_s = 0.0
        self._halted = halted
        self._halting = False
        self._beginning = False

    # ---- what it knows

    @property
    def due_s(self) -> float | None:
        """When `passed` should be called; None: nothing waits for the time."""
        waits = self._to_start and not self._halted and not self._is_falling()
        return self._due_s if waits and not self._rising else None

    @property
    def is_settled(self) -> bool:
        """Nobody ends or starts."""
        return not (self._to_start or self._rising or self._is_falling())

    @property
    def is_halted(self) -> bool:
        return self._halted

    @property
    def is_spent(self) -> bool:
        """With one_for_one: has each of them been given up?"""
        return bool(self.line) and self._given_up.issuperset(self.line) and not self._halted

    def is_to_start(self, child: T) -> bool:
        """It has ended, and will start."""
        return child in self._to_start

    # ---- who belongs to it

    def join(self, child: T, at: int, *, runs: bool = False) -> None:
        """A new child at this place of the line, which starts when its turn comes (`passed`).
        `runs`: it has been started already.
        """
        self.line.insert(at, child)
        self._is[child] = _Is.RUNNING if runs else _Is.DOWN
        if not runs:
            self._to_start.add(child)

    def leave(self, child: T, now_s: float) -> list[Effect[T]]:
        """The child is nobody's sibling any more; what it does is its own business."""
        if child not in self._is:
            return []
        self.line.remove(child)
        del self._is[child]
        for some in (self._to_start, self._to_end, self._rising, self._given_up):
            some.discard(child)
        return self._go_on(now_s)

    # ---- what happens

    def fell(
        self, child: T, *, normal: bool, now_s: float, random: float
    ) -> tuple[Decision, list[Effect[T]]]:
        """The child has ended unasked. With StartAgain it waits for its `Start`."""
        if self._is.get(child) is _Is.ENDING:  # it was told to, and was quicker
            return StartAgain(0.0), self.gone(child, now_s)
        self._is[child] = _Is.DOWN
        self._rising.discard(child)
        decision = self.policy.decide(now_s=now_s, normal=normal, random=random)
        match decision:
            case LeaveEnded():
                return decision, self._go_on(now_s)
            case GiveUp(why):
                return decision, self._give_up_all(why, but=child)
            case StartAgain(delay_s):
                self._due_s = now_s + delay_s
        fallen = fall_with(self.strategy, self.line, child)
        for other in fallen:
            if self._is[other] is _Is.RUNNING:
                self._end(other)
        self._to_start.update(fallen, [child])
        return decision, self._end_next() + self._go_on(now_s)

    def gone(self, child: T, now_s: float) -> list[Effect[T]]:
        """One that was told to end, or would have been, has ended."""
        if self._is.get(child) is not _Is.ENDING:
            return []
        self._is[child] = _Is.DOWN
        self._to_end.discard(child)
        return self._end_next() + self._go_on(now_s)

    def up(self, child: T, now_s: float) -> list[Effect[T]]:
        """The child works."""
        if self._is.get(child) not in (_Is.RUNNING, _Is.DOWN):
            return []
        self._is[child] = _Is.RUNNING
        self._to_start.discard(child)
        self._rising.discard(child)
        self._given_up.discard(child)
        return self._go_on(now_s)

    def failed_alone(self, child: T, now_s: float, *, given_up: str | None) -> list[Effect[T]]:
        """With one_for_one: it ended, and what follows is its own business. `given_up`: and why."""
        if child not in self._is:
            return []
        self._rising.discard(child)
        if given_up is not None:
            self._is[child] = _Is.DOWN
            self._given_up.add(child)
            if self.is_spent:
                self._beginning = False  # it has not risen
                return [Spent(given_up)]
        return self._go_on(now_s)

    def passed(self, now_s: float) -> list[Effect[T]]:
        """Time has passed."""
        return self._go_on(now_s)

    # ---- what a supervisor above it wants

    def halt(self, now_s: float) -> list[Effect[T]]:
        """End all of them, to be begun again later. `Halted` follows."""
        self._halted = self._halting = True
        self._beginning = False
        for child in self.line:
            if self._is[child] is not _Is.ENDING:
                self._end(child)
        return self._end_next() + self._go_on(now_s)

    def begin(self, now_s: float) -> list[Effect[T]]:
        """Start all of them, with a clean history. `Risen` follows."""
        self.policy.forget()
        self._given_up.clear()
        self._halted = self._halting = False
        self._beginning = True
        self._due_s = now_s
        self._to_start.update(child for child in self.line if self._is[child] is _Is.DOWN)
        return self._go_on(now_s)

    def quit(self) -> list[Effect[T]]:
        """End all of them for good: the supervisor above is given up."""
        self._halted = self._halting = False
        return self._quit(self.line)

    # ---- small change

    def _is_falling(self) -> bool:
        return any(state is _Is.ENDING for state in self._is.values())

    def _end(self, child: T) -> None:
        self._is[child] = _Is.ENDING
        self._rising.discard(child)
        self._to_end.add(child)

    def _end_next(self) -> list[Effect[T]]:
        """Tell those to end whose turn it is, the last of the line first."""
        waiting = [child for child in reversed(self.line) if child in self._to_end]
        if self._in_turn:
            told = {c for c, state in self._is.items() if state is _Is.ENDING} - self._to_end
            waiting = [] if told else waiting[:1]
        self._to_end.difference_update(waiting)
        return [End(child) for child in waiting]

    def _go_on(self, now_s: float) -> list[Effect[T]]:
        """Start who may start now."""
        effects: list[Effect[T]] = []
        if self._is_falling():
            return effects
        if self._halted:
            if self._halting:
                self._halting = False
                effects.append(Halted())
            return effects
        ready = [child for child in self.line if child in self._to_start]
        if ready and now_s >= self._due_s:
            if self._in_turn or self.strategy != "one_for_one":
                ready = [] if self._rising else ready[:1]
            for child in ready:
                self._to_start.discard(child)
                self._is[child] = _Is.RUNNING
                self._rising.add(child)
                effects.append(Start(child))
        if self._beginning and not self._to_start and not self._rising:
            self._beginning = False
            effects.append(Risen())
        return effects

    def _give_up_all(self, why: str, *, but: T) -> list[Effect[T]]:
        others = [child for child in self.line if child != but]
        return [*self._quit(others), Spent(why)]

    def _quit(self, children: Iterable[T]) -> list[Effect[T]]:
        for child in self.line:
            self._is[child] = _Is.DOWN
        for some in (self._to_start, self._to_end, self._rising):
            some.clear()
        self._beginning = False
        return [Quit(child) for child in reversed(list(children))]

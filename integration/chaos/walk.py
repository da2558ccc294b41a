"""A random walk over the death tables: who dies, who is stopped, at which step and how far apart.

    python -m integration.chaos.walk SECONDS [SEED]

After each move the caller was told something that the tables know, of the dead nothing is left, and
those who remain take jobs again. How long that took at most is told at the end. The same seed makes
the same moves; what the machine makes of them is its own.
"""

from __future__ import annotations

import random
import signal
import sys
import time
from dataclasses import dataclass, field

from integration.chaos.scene import PARTIES, Scene, signal_to, until
from integration.chaos.table import NOTICED, STEPS, UNNOTICED, Staged
from integration.cluster import Cluster, ClusterError, exit_on_signals

STOPPABLE = ("shepherd", "init", "worker")
GAP_S = 0.02  # between two deaths, at most
SAY_EVERY_S = 5.0


@dataclass(frozen=True)
class Move:
    step: str
    stopped: tuple[str, ...]
    killed: tuple[str, ...]
    gaps_s: tuple[float, ...]

    @classmethod
    def drawn(cls, chance: random.Random) -> Move:
        stopped = chance.sample(STOPPABLE, chance.choice((0, 0, 0, 1, 2)))
        killed = chance.sample(PARTIES, chance.choice((1, 1, 2, 3)))
        gaps = [chance.choice((0.0, chance.uniform(0, GAP_S))) for _ in killed]
        return cls(chance.choice(STEPS), tuple(stopped), tuple(killed), tuple(gaps))

    def __str__(self) -> str:
        stopped = f", {' and '.join(self.stopped)} stopped" if self.stopped else ""
        return f"{' and '.join(self.killed)} killed ({self.step}{stopped})"

    @property
    def dead(self) -> set[str]:
        """Who ends, by the tables: a stopped worker, too, once its heart has not beaten."""
        return {*self.killed, *({"worker"} & set(self.stopped))}


@dataclass
class Longest:
    """In seconds, of all moves: until the caller was told, all was gone, all was well again."""

    told: float = 0.0
    gone: float = 0.0
    well: float = 0.0
    ends: dict[str, int] = field(default_factory=dict)  # what callers were told, how often

    def __str__(self) -> str:
        ends = ", ".join(f"{said} {count} times" for said, count in sorted(self.ends.items()))
        return (
            f"at most {self.told:.1f} s until a caller was told, {self.gone:.1f} until all was "
            f"gone, {self.well:.1f} until all was well; told: {ends}"
        )


def play(scene: Scene, move: Move, longest: Longest) -> None:
    """Raises AssertionError when something is not as the tables have it."""
    staged = Staged(scene, move.step)
    who, left = scene.pids(), scene.doomed(move.dead)
    for party in move.stopped:
        signal_to(who[party], signal.SIGSTOP)
    for party, gap_s in zip(move.killed, move.gaps_s, strict=True):
        time.sleep(gap_s)
        signal_to(who[party], signal.SIGKILL)
    began = time.monotonic()
    if "beam" not in move.killed:
        said = staged.finish(tuple(move.dead))
        assert said in {UNNOTICED[move.step], *NOTICED.values()}, f"the caller was told {said}"
        longest.ends[said] = longest.ends.get(said, 0) + 1
        longest.told = max(longest.told, time.monotonic() - began)
    until(lambda: left.remains() is None, "something is left")
    longest.gone = max(longest.gone, time.monotonic() - began)
    for party in move.stopped:
        signal_to(who[party], signal.SIGCONT)
    scene.complete()
    longest.well = max(longest.well, time.monotonic() - began)


def walk(seconds: float, seed: int) -> int:
    """The exit status."""
    chance, longest, moves, said_s = random.Random(seed), Longest(), 0, 0.0
    began = time.monotonic()
    with Cluster() as cluster:
        scene = Scene(cluster)
        scene.complete()
        while (passed_s := time.monotonic() - began) < seconds:
            move = Move.drawn(chance)
            try:
                play(scene, move, longest)
            except (AssertionError, ClusterError) as error:
                print(f"deaths: move {moves} of seed {seed}, {move}: {error}{scene.last_words()}")
                return 1
            moves += 1
            if passed_s - said_s >= SAY_EVERY_S:
                said_s = passed_s
                print(f"deaths: {passed_s:.0f} s: {moves} moves, the last: {move}", flush=True)
    print(f"deaths: {moves} moves, seed {seed}: {longest}")
    return 0


def main(arguments: list[str]) -> int:
    if not 1 <= len(arguments) <= 2 or not all(text.isdigit() for text in arguments):
        print("usage: python -m integration.chaos.walk SECONDS [SEED]", file=sys.stderr)
        return 2
    exit_on_signals()
    seed = int(arguments[1]) if arguments[1:] else random.SystemRandom().getrandbits(32)
    return walk(float(arguments[0]), seed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

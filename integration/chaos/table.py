"""The death tables of docs/failure-matrix.md: who dies, at which step, and what the caller sees.

The page is the rule and the tests read it, so a cell that is changed there is a test that changes.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass

from integration.chaos.scene import LARGE_BYTES, PARTIES, TREE, Scene
from integration.cluster import ROOT

PAGE = ROOT / "docs" / "failure-matrix.md"
DEATHS, STOPS = "## The death table", "## Stopped, and then a death"
STEPS = ("idle", "queued", "placed", "running", "answering")
# What a caller may see, from the least to the most: of two deaths he sees the greater one.
SEEN = ("nothing", "worker_crashed", "nodedown", "gone")

# What `Scene.result` says for it; of the deaths that a caller does not notice, by the step.
UNNOTICED = {
    "idle": "ok 5",
    "queued": "ok 5",
    "placed": "ok 5",
    "running": "ok 4",
    "answering": f"ok {LARGE_BYTES}",
}
NOTICED = {
    "worker_crashed": "error worker_crashed",
    "worker_broke": "error worker_broke",
    "nodedown": "exit nodedown",
}


def rows(heading: str) -> list[list[str]]:
    """The table behind a heading of the page, its head first, without the rule below that."""
    section = PAGE.read_text().partition(f"{heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    cells = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines]
    return [cells[0], *cells[2:]]


def deaths() -> dict[tuple[str, str], str]:
    """What the caller sees, by who dies and at which step."""
    head, *body = rows(DEATHS)
    assert tuple(head[1 : 1 + len(STEPS)]) == STEPS, f"the columns are {head}"
    cells = {
        (row[0], step): seen for row in body for step, seen in zip(STEPS, row[1:], strict=False)
    }
    assert {who for who, _ in cells} == set(PARTIES)
    assert set(cells.values()) <= set(SEEN)
    return cells


@dataclass(frozen=True)
class Stop:
    """A row of the other table: `stopped` get a SIGSTOP, then `killed` a SIGKILL."""

    stopped: tuple[str, ...]
    killed: tuple[str, ...]
    seen: str
    ended: tuple[str, ...]

    @property
    def name(self) -> str:
        killed = [*self.killed, "killed"] if self.killed else []
        return " ".join([*self.stopped, "stopped", *killed])

    @property
    def answer(self) -> str:
        return NOTICED.get(self.seen, UNNOTICED["running"])


def stops() -> list[Stop]:
    return [
        Stop(parties(stopped), parties(killed), seen, parties(ended))
        for stopped, killed, seen, ended, _ in rows(STOPS)[1:]
    ]


def parties(cell: str) -> tuple[str, ...]:
    return () if cell == "nobody" else tuple(cell.split(", "))


def expected(victims: tuple[str, ...], step: str) -> set[str]:
    """What `Scene.result` may say when these die at that step, one right after the other: what the
    greater of the deaths makes of it, or the first one, which may have been answered before.
    """
    cells = deaths()
    by_victim = [cells[who, step] for who in victims]
    seen = {max(by_victim, key=SEEN.index), by_victim[0]} - {"nothing"}
    return {NOTICED[one] for one in seen} or {UNNOTICED[step]}


class Staged:
    """A job at one of the steps, whose caller gets his answer when `finish` lets it go on."""

    def __init__(self, scene: Scene, step: str) -> None:
        self._scene = scene
        self._tag: str | None = None
        {
            "idle": lambda: None,
            "queued": self._queue,
            "placed": self._place,
            "running": self._run,
            "answering": self._answer,
        }[step]()

    def _run(self) -> None:
        self._tag = self._scene.call("later 4")
        self._scene.wait_for_worker("rb-holds")

    def _queue(self) -> None:
        self._run()
        self._tag = self._scene.call("hello")
        self._scene.wait_for("open", 2)

    def _place(self) -> None:
        self._scene.signal("worker", signal.SIGSTOP)
        self._tag = self._scene.call("hello")
        self._scene.wait_for("in_flight", 1)

    def _answer(self) -> None:
        """The answer is larger than what the sockets take, and nobody reads it for now."""
        self._tag = self._scene.call(f"later {LARGE_BYTES}")
        self._scene.wait_for_worker("rb-holds")
        self._scene.signal("beam", signal.SIGSTOP)
        self._scene.signal("worker", signal.SIGUSR1)
        self._scene.wait_for_worker("rb-said")

    def finish(self, victims: tuple[str, ...]) -> str:
        """Let those who are left go on; what the caller is told."""
        if not {"bridge", *TREE[:3]} & set(
            victims
        ):  # else it is as good as dead: it may not answer
            self._scene.signal("worker", signal.SIGCONT)
            self._scene.signal("worker", signal.SIGUSR1)  # who has no job that stays ignores it
        self._scene.signal("beam", signal.SIGCONT)
        if self._tag is None:
            return self._scene.once("hello")
        return self._scene.result(self._tag)

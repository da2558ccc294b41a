"""The death tables of docs/failure-matrix.md, cell by cell, and each two parties in both orders."""

from __future__ import annotations

import itertools
import shutil
import signal
from collections.abc import Iterator

import pytest

from integration.chaos.scene import PARTIES, Scene, signal_to, until
from integration.chaos.table import STEPS, Staged, Stop, expected, stops
from integration.cluster import Cluster

pytestmark = [
    pytest.mark.beam,
    pytest.mark.skipif(shutil.which("elixir") is None, reason="no elixir on this machine"),
]


@pytest.fixture(scope="module")
def lasting() -> Iterator[Scene]:
    with Cluster() as cluster:
        yield Scene(cluster)


@pytest.fixture
def scene(lasting: Scene) -> Scene:
    lasting.complete()
    return lasting


def kill(scene: Scene, victims: tuple[str, ...], step: str) -> None:
    """All that the table says of it: what the caller sees, what is left, who is there again."""
    staged = Staged(scene, step)
    who, left = scene.pids(), scene.doomed(set(victims))
    for victim in victims:
        signal_to(who[victim], signal.SIGKILL)
    if "beam" not in victims:
        assert staged.finish(victims) in expected(victims, step)
    until(lambda: left.remains() is None, f"something is left of {victims}")
    scene.complete()


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("victim", PARTIES)
def test_one_dies(scene: Scene, victim: str, step: str) -> None:
    kill(scene, (victim,), step)


@pytest.mark.parametrize("victims", list(itertools.permutations(PARTIES, 2)), ids="-".join)
def test_two_die_at_one_moment(scene: Scene, victims: tuple[str, str]) -> None:
    kill(scene, victims, "running")


@pytest.mark.parametrize("row", stops(), ids=lambda row: row.name)
def test_some_are_stopped(scene: Scene, row: Stop) -> None:
    """Who is stopped can repair nothing; others do, or the one who continues it."""
    staged = Staged(scene, "running")
    who, left = scene.pids(), scene.doomed(set(row.ended))
    for party in row.stopped:
        signal_to(who[party], signal.SIGSTOP)
    for party in row.killed:
        signal_to(who[party], signal.SIGKILL)
    assert staged.finish(row.ended) == row.answer
    until(lambda: left.remains() is None, f"something is left of {row.name}")
    for party in row.stopped:
        signal_to(who[party], signal.SIGCONT)
    scene.complete()

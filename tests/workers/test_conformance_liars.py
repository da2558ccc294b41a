"""Each rule of the conformance battery can fail: a worker that breaks it is found out."""

from __future__ import annotations

import multiprocessing
import os
import re
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path

import pytest
from conformance_liars import LIARS as LINK_LIARS
from conformance_liars import Liar
from conformance_liars_channel import LIARS as CHANNEL_LIARS
from conformance_liars_links import LIARS as LINKS_LIARS
from conformance_liars_waking import LIARS as WAKING_LIARS

from workers.conformance.report import Outcome, Verdict, try_rule
from workers.conformance.rules import RULES

LIARS = (*LINK_LIARS, *WAKING_LIARS, *CHANNEL_LIARS, *LINKS_LIARS)
ROOT = Path(__file__).parent.parent.parent
MAIN = ROOT / "workers/c/conformance/main.c"
INCLUDE = ("workers/c/include", "workers/c/kit", "csrc/include", "csrc/core")
COMPILE = ("cc", "-std=gnu99", "-O1", "-w", "-pthread", *(f"-I{ROOT / i}" for i in INCLUDE))
PATIENCE_S = 1.5  # most liars are found out by what does not come
BUSY_S = 20.0  # where the machine was too busy for that, and something else was found
pytestmark = pytest.mark.timeout(240)
# No worker can break it: this layout has no older minor version.
WITHOUT_LIAR = {7}


def build(liar: Liar, main: Path, where: Path) -> Path:
    """The C kit's conformance worker with this one line changed."""
    file = ROOT / liar.file
    text = file.read_text()
    assert text.count(liar.old) == 1, f"{liar.file} has {text.count(liar.old)} times: {liar.old}"
    where.mkdir()
    changed = where / file.name
    changed.write_text(text.replace(liar.old, liar.new))
    honest = [main, *(ROOT / "build/core").glob("*.o"), *(ROOT / "build/workers-c/kit").glob("*.o")]
    replaced = main if file == MAIN else f"{file.parent.name}/{file.stem}.o"
    kept = [o for o in honest if replaced not in (o, f"{o.parent.name}/{o.name}")]
    program = where / "liar"
    subprocess.run([*COMPILE, "-o", program, changed, *kept], check=True, timeout=50)
    return program


def verdict_on(liar: Liar, main: Path, where: Path) -> Outcome:
    """In a process of its own: the battery forks, and takes its memory to be one thread's."""
    program = build(liar, main, where)
    rule = next(rule for rule in RULES if rule.number == liar.rule)
    # A busy machine is slow, and lets a lie pass that shows within a few microseconds only.
    for patience_s in (PATIENCE_S, *[BUSY_S] * 5):
        found = try_rule(rule, [str(program)], patience_s)
        if found.verdict is Verdict.NOT_HERE or is_found_out(liar, found):
            break
    return found


def is_found_out(liar: Liar, found: Outcome) -> bool:
    """By this lie, and not by another."""
    return (
        found.verdict is Verdict.BROKEN
        and re.search(liar.verdict, found.why) is not None
        and "the battery failed" not in found.why
    )


@pytest.fixture(scope="module")
def verdicts(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[Liar, Future[Outcome]]]:
    """Of all liars that are asked for, side by side: most of them make the battery wait."""
    where = tmp_path_factory.mktemp("liars")
    main = where / "honest.o"
    subprocess.run([*COMPILE, "-c", "-o", main, MAIN], check=True, timeout=50)
    asked = {
        item.callspec.params["liar"]
        for item in request.session.items
        if isinstance(item, pytest.Function)
        and hasattr(item, "callspec")
        and "liar" in item.callspec.params
    }
    side_by_side = 2 * (os.cpu_count() or 1)
    with ProcessPoolExecutor(side_by_side, multiprocessing.get_context("spawn")) as pool:
        yield {
            liar: pool.submit(verdict_on, liar, main, where / str(number))
            for number, liar in enumerate(LIARS)
            if liar in asked
        }


@pytest.mark.parametrize("liar", LIARS, ids=lambda liar: f"{liar.rule}-{Path(liar.file).stem}")
def test_a_liar_is_found_out(liar: Liar, verdicts: dict[Liar, Future[Outcome]]) -> None:
    found = verdicts[liar].result(timeout=220)
    if found.verdict is Verdict.NOT_HERE:
        pytest.skip(found.why)
    assert is_found_out(liar, found), found


@pytest.mark.parametrize("liar", [liar for liar in LIARS if liar.rule == 94], ids=["94"])
def test_what_a_worker_leaves_behind_is_ended(
    liar: Liar, verdicts: dict[Liar, Future[Outcome]]
) -> None:
    left = re.findall(r"\d+", verdicts[liar].result(timeout=220).why)
    assert left
    until = time.monotonic() + 10
    while any(Path("/proc", pid).exists() for pid in left):
        assert time.monotonic() < until, left
        time.sleep(0.01)


def test_every_rule_has_its_liar() -> None:
    assert {rule.number for rule in RULES} == {liar.rule for liar in LIARS} | WITHOUT_LIAR

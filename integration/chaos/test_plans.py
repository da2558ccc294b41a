"""Every plan of plans/ is run, as a user would, and its hypothesis holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.cluster import ROOT, Cluster, full

PLANS = Path(__file__).parent / "plans"
MAIN = "import sys; from bridge.cli import main; sys.exit(main())"
BRIDGE = f"chaosplans{os.getpid()}"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster() as cluster:
        text = (PLANS / "bridge.toml").read_text()
        config = cluster.config("bridge", text.replace("../../../build", str(ROOT / "build")))
        cluster.start_bridge(BRIDGE, config)
        yield cluster


def run(cluster: Cluster, plan: Path, *options: str) -> subprocess.CompletedProcess[str]:
    where = ["--config", str(cluster.directory / "bridge.toml"), "--name", full(BRIDGE)]
    return subprocess.run(
        [sys.executable, "-c", MAIN, "chaos", "run", str(plan), *where, *options],
        env={**cluster.environment, "RINGBRIDGE_COOKIE": cluster.cookie},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    "plan",
    sorted(path for path in PLANS.glob("*.toml") if path.name != "bridge.toml"),
    ids=lambda path: path.stem,
)
def test_the_hypothesis_holds(cluster: Cluster, plan: Path) -> None:
    ran = run(cluster, plan, "--json")
    assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"
    report = json.loads(ran.stdout)
    assert report["held"]
    assert report["injected"]


WRONG = """
hypothesis = "A worker that crashes is noticed by nobody"
role = "troubled"
steady_ms = 200
trouble_ms = 300
settle_ms = 300

[[inject]]
what = "hook"
hook = "crash"
value = 9
workers = 0
"""


def test_a_hypothesis_that_does_not_hold_is_exit_status_1(cluster: Cluster, tmp_path: Path) -> None:
    plan = tmp_path / "wrong.toml"
    plan.write_text(WRONG)
    ran = run(cluster, plan)
    assert ran.returncode == 1
    assert "FAILED  errors in trouble are none: " in ran.stdout
    assert "worker_crashed" in ran.stdout
    assert "the hypothesis did NOT hold" in ran.stdout


def test_what_could_not_be_injected_proves_nothing(cluster: Cluster, tmp_path: Path) -> None:
    plan = tmp_path / "nothing.toml"
    plan.write_text(WRONG.replace("crash", "earthquake"))
    ran = run(cluster, plan)
    assert ran.returncode == 1
    assert "NOT DONE: " in ran.stdout
    assert "FAILED  all that the plan says was injected" in ran.stdout


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("rolle = 'x'", "rolle"),
        ("callers = 0", "$.callers"),
        ("settle_ms = 1", "settle_ms"),
        ("inject = []", "$.inject"),
        ("inject = [{what = 'magic'}]", "magic"),
        ("inject = [{what = 'cut', at_ms = 5_000}]", "inject[0].at_ms"),
    ],
)
def test_a_plan_that_breaks_a_rule_says_where(
    cluster: Cluster, tmp_path: Path, line: str, told: str
) -> None:
    key = line.partition(" ")[0]
    lines = {"hypothesis": "hypothesis = 'long enough'", "role": "role = 'troubled'"}
    lines |= {"inject": "inject = [{what = 'cut'}]", key: line}
    plan = tmp_path / "broken.toml"
    plan.write_text("\n".join(lines.values()))
    ran = run(cluster, plan)
    assert ran.returncode == 1
    assert told in ran.stderr
    assert "Traceback" not in ran.stderr

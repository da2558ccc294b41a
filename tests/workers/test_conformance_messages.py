"""The battery over messages: on the loop in Elixir, and on workers that break one rule each."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from workers.conformance.messages.rules import RULES
from workers.conformance.rules import RULES as RULES_OF_LINKS

ROOT = Path(__file__).parents[2]
ELIXIR_WORKER = ROOT / "workers" / "elixir" / "conformance" / "rb-conformance-elixir"
LIAR = [sys.executable, str(Path(__file__).with_name("message_liar.py"))]
PATIENCE_S = "20"  # for what has to come; a machine may be slow


def battery(*arguments: str, patience_s: str = PATIENCE_S) -> tuple[int, list[dict[str, Any]]]:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "workers.conformance", "--messages", "--json"),
            *("--patience", patience_s, *arguments),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)["rules"]


@pytest.mark.beam
@pytest.mark.skipif(shutil.which("elixir") is None, reason="no Elixir here")
def test_the_loop_in_elixir_keeps_every_rule() -> None:
    status, verdicts = battery("--", str(ELIXIR_WORKER))
    told = [f"{each['number']}: {each['verdict']}: {each['why']}" for each in verdicts]
    ours = verdicts[: len(RULES)]
    assert [each["number"] for each in ours] == [rule.number for rule in RULES]
    assert {each["verdict"] for each in ours} == {"kept"}, "\n".join(told)
    assert status == 0
    # Those of links are named, one by one, as none of a worker over messages.
    others = verdicts[len(RULES) :]
    assert [each["number"] for each in others] == [rule.number for rule in RULES_OF_LINKS]
    assert {each["verdict"] for each in others} == {"not tried"}


@pytest.mark.parametrize(
    ("how", "rule", "why"),
    [
        ("no_credit", 201, "credit"),
        ("changes", 204, "was to end"),
        ("unbegun", 205, "to be begun|out_of_turn"),
        ("twice", 205, "remote_unknown_job|does not hold"),
        ("deaf", 214, "nothing came"),
        ("heartless", 222, "beats in the time|nothing came"),
    ],
)
def test_a_worker_that_breaks_a_rule_is_told_so(how: str, rule: int, why: str) -> None:
    patience_s = "2" if how in ("deaf", "heartless") else PATIENCE_S
    status, (verdict,) = battery("--rule", str(rule), "--", *LIAR, how, patience_s=patience_s)
    assert (status, verdict["verdict"]) == (1, "broken")
    assert re.search(why, verdict["why"]), verdict["why"]


def test_and_one_that_breaks_none_of_these_is_not() -> None:
    rules = [part for rule in (201, 202, 204, 205, 214) for part in ("--rule", str(rule))]
    status, verdicts = battery(*rules, "--", *LIAR, "honest")
    assert [(each["verdict"], each["why"]) for each in verdicts] == 5 * [("kept", "")]
    assert status == 0


def test_the_page_lists_the_rules() -> None:
    page = (ROOT / "docs" / "remote-workers.md").read_text().partition("## Conformance")[2]
    listed = re.findall(r"^\| (\d+) \| (.+) \|$", page, re.MULTILINE)
    assert [(int(number), title) for number, title in listed] == [
        (rule.number, rule.title) for rule in RULES
    ]

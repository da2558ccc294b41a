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


def battery(
    *arguments: str, over: str = "--messages", patience_s: str = PATIENCE_S
) -> tuple[int, list[dict[str, Any]]]:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "workers.conformance", over, "--json"),
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


# Of links, those that no worker in a BEAM can be held to; each says why.
NOT_OF_A_BEAM = {2, 3, 14, 16, 27, 32, 38, 47, 55, 61, 62, 91, 93, 94}
NOT_OF_A_BEAM |= {103, 104, 105, 106, 131, 132}  # its one way of waiting, and its many threads
NOT_OF_A_BEAM |= {*range(111, 127), *range(141, 178)}  # the channel
NOT_OF_A_BEAM |= {181, 182, 183}  # compressed payloads, which nobody need take


@pytest.mark.beam
@pytest.mark.skipif(shutil.which("elixir") is None, reason="no Elixir here")
def test_and_over_shared_memory_those_of_links_too() -> None:
    status, verdicts = battery("--", str(ELIXIR_WORKER), over="--links")
    told = [f"{each['number']}: {each['verdict']}: {each['why']}" for each in verdicts]
    all_rules = [rule.number for rule in RULES_OF_LINKS] + [rule.number for rule in RULES]
    assert [each["number"] for each in verdicts] == all_rules
    tried = [each for each in verdicts if each["number"] not in NOT_OF_A_BEAM]
    assert {each["verdict"] for each in tried} == {"kept"}, "\n".join(told)
    others = [each for each in verdicts if each["number"] in NOT_OF_A_BEAM]
    assert {each["verdict"] for each in others} == {"not tried"}, "\n".join(told)
    assert all(each["why"] for each in others)
    assert status == 0


def test_a_worker_that_knows_messages_only_has_no_rule_of_links_tried() -> None:
    status, (verdict,) = battery("--rule", "11", "--", *LIAR, "honest", over="--links")
    assert (status, verdict["verdict"]) == (0, "not tried")
    assert "memory" in verdict["why"]


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

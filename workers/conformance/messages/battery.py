"""Runs the rules over messages on one command, and says of the others that they are of memory; or
runs the rules of links on the links that the command takes.
"""

from __future__ import annotations

import os
import secrets
import socket
import sys
import time
import traceback
from collections.abc import Sequence

import trio

from bridge.dist.epmd_client import EpmdClient
from bridge.node import open_node
from workers.conformance.jobs import Broke, NotHere, NotOffered
from workers.conformance.messages.linked import LinkedStage
from workers.conformance.messages.links import NOT_HERE as NOT_OF_A_BEAM
from workers.conformance.messages.links import Granter, LinkBench
from workers.conformance.messages.rules import RULES, Rule
from workers.conformance.messages.stage import ROLE, Stage
from workers.conformance.report import Outcome, Teller, Verdict, told, try_on
from workers.conformance.rules import RULES as RULES_OF_LINKS

HOST = "127.0.0.1"
START_S = 30.0  # a VM that starts, beside the patience for what it says


def run(
    numbers: Sequence[int],
    argv: Sequence[str],
    *,
    patience_s: float,
    strict: bool,
    as_json: bool,
    links: bool = False,
) -> int:
    """Try the rules with these numbers, or all. As report.run(). `links`: those of links."""
    return trio.run(_run, list(numbers), list(argv), patience_s, strict, as_json, links)


async def _run(
    numbers: list[int],
    argv: list[str],
    patience_s: float,
    strict: bool,
    as_json: bool,
    links: bool,
) -> int:
    cookie = secrets.token_hex(16)
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    # Of our own, so that nobody else's nodes are met; the worker finds it by the same variable.
    os.environ["ERL_EPMD_PORT"] = str(port)
    teller = Teller(sys.stderr if as_json else sys.stdout)
    outcomes: list[Outcome] = []
    epmd = EpmdClient.from_environ(if_absent="own")
    name = f"conformance{os.getpid()}@{HOST}"
    async with open_node(name, cookie=cookie, epmd=epmd) as node:
        kind = LinkedStage if links else Stage
        stage = kind(node, argv, cookie, patience_s)
        await stage.open()
        try:
            async with trio.open_nursery() as nursery:
                if isinstance(stage, LinkedStage):
                    await stage.links.open(nursery)
                    outcomes = await _try_links(numbers, stage, argv, teller)
                for rule in RULES:
                    if not numbers or rule.number in numbers:
                        teller.begins(rule)
                        outcomes.append(await _try(rule, stage))
                        teller.ended(outcomes[-1])
                nursery.cancel_scope.cancel()
        finally:
            stage.kill()
    if not numbers and not links:
        outcomes += _not_applicable(teller)
    return told(outcomes, argv, strict=strict, as_json=as_json)


async def _try(rule: Rule, stage: Stage) -> Outcome:
    begin = time.monotonic()
    verdict, why = Verdict.KEPT, ""
    if not stage.process_lives():
        stage.patience_s += START_S
        try:
            message = await stage.hello()
            stage.put_back(message)
        except Broke as error:
            verdict, why = Verdict.BROKEN, str(error)
        finally:
            stage.patience_s -= START_S
    try:
        if verdict is Verdict.KEPT:
            await rule.attempt(stage)
    except Broke as error:
        verdict, why = Verdict.BROKEN, str(error)
    except NotOffered as error:
        verdict, why = Verdict.NOT_OFFERED, str(error)
    except NotHere as error:
        verdict, why = Verdict.NOT_HERE, str(error)
    except Exception:
        verdict, why = Verdict.BROKEN, "the battery failed: " + traceback.format_exc()
    await stage.tidy()
    return Outcome(rule.number, rule.title, verdict, why, time.monotonic() - begin)


async def _try_links(
    numbers: list[int], stage: LinkedStage, argv: list[str], teller: Teller
) -> list[Outcome]:
    """The rules of links, each in a thread: they wait as they do for a process."""
    outcomes = []
    async with trio.open_nursery() as nursery:
        granter = Granter(stage, stage.links, nursery)
        for rule in RULES_OF_LINKS:
            if numbers and rule.number not in numbers:
                continue
            teller.begins(rule)
            if (why := NOT_OF_A_BEAM.get(rule.number)) is not None:
                outcome = Outcome(rule.number, rule.title, Verdict.NOT_HERE, why, 0.0)
            else:
                bench = LinkBench(argv, stage.patience_s, granter=granter)
                outcome = await trio.to_thread.run_sync(try_on, rule, bench)
            if outcome.verdict is Verdict.BROKEN:
                granter.forget()
            outcomes.append(outcome)
            teller.ended(outcome)
        nursery.cancel_scope.cancel()
    if stage.role != ROLE:
        stage.kill()
        stage.role = ROLE
    await stage.tidy()
    return outcomes


def _not_applicable(teller: Teller) -> list[Outcome]:
    """The rules of links, by name: a worker over messages has none."""
    why = "a rule of shared memory: over messages there is none"
    outcomes = []
    for rule in RULES_OF_LINKS:
        teller.begins(rule)
        outcomes.append(Outcome(rule.number, rule.title, Verdict.NOT_HERE, why, 0.0))
        teller.ended(outcomes[-1])
    return outcomes

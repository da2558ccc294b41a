"""python -m workers.conformance [options] -- COMMAND: is this executable a worker?"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from typing import NoReturn

from workers.conformance import report
from workers.conformance.memory import WrongMachineError, check_machine
from workers.conformance.messages.rules import RULES as RULES_OVER_MESSAGES
from workers.conformance.report import Titled
from workers.conformance.rules import RULES

USAGE, UNAVAILABLE = 64, 69


class WrongCallError(Exception):
    """The command line makes no sense."""


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise WrongCallError(message)


def main(arguments: Sequence[str] | None = None) -> int:
    """0: every rule is kept; 1: one is broken; 64: called wrongly; 69: not on this machine."""
    parser = Parser(
        prog="conformance",
        description="Drives an executable that claims to be a worker, and tells a verdict per rule "
        "(docs/workers-conformance.md).",
    )
    parser.add_argument("--rule", type=int, action="append", metavar="N", help="only this one")
    parser.add_argument("--list", action="store_true", help="list the rules and end")
    parser.add_argument("--json", action="store_true", help="verdicts as JSON on stdout")
    parser.add_argument(
        "--strict", action="store_true", help="what the worker does not offer counts as broken"
    )
    parser.add_argument(
        "--patience",
        type=float,
        default=report.PATIENCE_S,
        metavar="S",
        help=f"how long to wait for what has to come ({report.PATIENCE_S:g})",
    )
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="how many rules are tried at once (1)"
    )
    parser.add_argument(
        "--messages",
        action="store_true",
        help="a worker that is a process of a node (docs/remote-workers.md)",
    )
    parser.add_argument(
        "--links",
        action="store_true",
        help="the same, over the links that it takes: the rules of shared memory",
    )
    parser.add_argument("command", nargs="*", help="the worker, behind --")
    try:
        asked = parser.parse_args(arguments)
        if asked.list:
            return list_rules(over_messages=asked.messages, links=asked.links)
        return examine(
            asked.command,
            numbers=asked.rule or (),
            patience_s=asked.patience,
            jobs=asked.jobs,
            strict=asked.strict,
            as_json=asked.json,
            over_messages=asked.messages,
            links=asked.links,
        )
    except WrongCallError as error:
        print(f"conformance: {error}", file=sys.stderr)
        return USAGE


def rules_of(*, over_messages: bool, links: bool) -> list[Titled]:
    """Those of links, of messages, or for who has both, both."""
    if links:
        return [*RULES, *RULES_OVER_MESSAGES]
    return [*RULES_OVER_MESSAGES] if over_messages else [*RULES]


def list_rules(*, over_messages: bool = False, links: bool = False) -> int:
    for rule in rules_of(over_messages=over_messages, links=links):
        print(f"{rule.number:4}  {rule.title}")
    return 0


def examine(
    command: Sequence[str],
    *,
    numbers: Sequence[int] = (),
    patience_s: float = report.PATIENCE_S,
    jobs: int = 1,
    strict: bool = False,
    as_json: bool = False,
    over_messages: bool = False,
    links: bool = False,
) -> int:
    """Try the rules with these numbers, or all, on a command; returns main()'s exit status.

    `over_messages`: one that says hello by messages; `links`: such a one, by the rules of links.

    Raises WrongCallError: no such rule, no such executable.
    """
    rules = rules_of(over_messages=over_messages, links=links)
    unknown = set(numbers) - {rule.number for rule in rules}
    if unknown:
        raise WrongCallError(f"there is no rule {min(unknown)}")
    program = shutil.which(command[0]) if command else None
    if program is None:
        raise WrongCallError("name an executable behind --")
    argv = [os.path.abspath(program), *command[1:]]
    try:
        if links or not over_messages:
            check_machine()
    except WrongMachineError as error:
        print(f"conformance: {error}", file=sys.stderr)
        return UNAVAILABLE
    if over_messages or links:
        from workers.conformance.messages import battery

        return battery.run(
            numbers, argv, patience_s=patience_s, strict=strict, as_json=as_json, links=links
        )
    return report.run(
        [rule for rule in RULES if not numbers or rule.number in numbers],
        argv,
        patience_s=patience_s,
        jobs=max(1, jobs),
        strict=strict,
        as_json=as_json,
    )


if __name__ == "__main__":
    sys.exit(main())

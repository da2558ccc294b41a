"""make demo: an Elixir node has four kinds of work done by workers that it never linked.

    python -m integration.demo [--out FOLDER] [simulation] [pathfinding] [worldgen] [analytics]

Prepares what outside sources say (prepare.py), starts a bridge with the roles that can be shown
here (roles.py) in a cluster of its own, and runs demo.exs on a real Elixir node. The pictures, the
references and the bridge's settings stay in the folder, build/demo; all else ends with it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from integration.cluster import ROOT, Cluster, ClusterError, exit_on_signals, full
from integration.demo.prepare import PREPARE
from integration.demo.roles import SHOWN, Role, configuration

OUT = ROOT / "build" / "demo"
SCRIPT = Path(__file__).with_name("demo.exs")


def main(argv: Sequence[str] | None = None) -> int:
    exit_on_signals()
    parser = argparse.ArgumentParser(prog="python -m integration.demo")
    parser.add_argument("roles", nargs="*", metavar="ROLE", help="all of them unless named")
    parser.add_argument("--out", type=Path, default=OUT, help="folder for pictures and references")
    options = parser.parse_args(argv)
    names = [role.name for role in SHOWN]
    if unknown := set(options.roles) - set(names):
        parser.error(f"no role {', '.join(sorted(unknown))} here; there are: {', '.join(names)}")
    asked = [role for role in SHOWN if not options.roles or role.name in options.roles]
    shown, left_out = prepare(asked, options.out)
    if not shown:
        say("nothing can be shown here: run `make workers`")
        return 1
    status = run(shown, options.out)
    for role, why in left_out:
        say(f"left out: {role.name}, which is in {role.language}: {why}")
    return status


def prepare(asked: Sequence[Role], out: Path) -> tuple[list[Role], list[tuple[Role, str]]]:
    """What the roles are held against; those that can be shown, and those that cannot, and why."""
    out.mkdir(parents=True, exist_ok=True)
    shown: list[Role] = []
    left_out: list[tuple[Role, str]] = []
    for role in asked:
        if role.name in PREPARE:
            PREPARE[role.name](out)
        why = role.missing(ROOT)
        if why is None:
            shown.append(role)
        else:
            say(f"{role.name} is left out: {why}")
            left_out.append((role, why))
    return shown, left_out


def run(roles: list[Role], out: Path) -> int:
    """The bridge, and the Elixir node that calls it; the status of the latter."""
    settings = out / "ringbridge.toml"
    settings.write_text(configuration(roles, ROOT))
    try:
        with Cluster() as cluster:
            say("starting a bridge: " + ", ".join(f"{r.name} ({r.language})" for r in roles))
            bridge = cluster.start_bridge("bridge", settings)
            names = [role.name for role in roles]
            done = subprocess.run(
                ["elixir", str(SCRIPT), full("bridge"), str(out), *names],
                env=cluster.environment,
                stdin=subprocess.DEVNULL,
                check=False,
            )
            if done.returncode:
                print(f"demo: the bridge's last words:{cluster.tail('bridge')}", file=sys.stderr)
            cluster.stop(bridge)
    except ClusterError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    return done.returncode


def say(line: str) -> None:
    print(f"demo: {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())

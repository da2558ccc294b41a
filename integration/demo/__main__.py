"""make demo: an Elixir node has the solar system integrated by a C worker that it never linked.

Prepares jobs from JPL's DE421 (integration/solar), starts a bridge with the default ringbridge.toml
in a cluster of its own, and runs solar_system.exs on a real Elixir node. All of it ends with it.
"""

from __future__ import annotations

import subprocess
import sys
from datetime import date
from pathlib import Path

from integration.cluster import ROOT, Cluster, ClusterError, exit_on_signals, full
from integration.solar import states

JOBS = ROOT / "build" / "solar"
SCRIPT = Path(__file__).with_name("solar_system.exs")
# The first landing on the Moon, the epoch J2000's year, and today: all within DE421, a year around.
STARTS = ("1969-07-20", "2000-01-01", date.today().isoformat())
SPANS_DAYS = ("30", "365.25", "-365.25")


def main() -> int:
    exit_on_signals()
    prepare()
    try:
        with Cluster() as cluster:
            say("starting the bridge with ringbridge.toml")
            bridge = cluster.start_bridge("bridge")
            done = subprocess.run(
                ["elixir", str(SCRIPT), full("bridge"), str(JOBS)],
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


def prepare() -> None:
    """The jobs' payloads and what JPL says of their ends, into build/solar."""
    say("reading start states from JPL's DE421")
    choices = [f"--start={start}" for start in STARTS] + [f"--span={span}" for span in SPANS_DAYS]
    states.main(["--out", str(JOBS), *choices])


def say(line: str) -> None:
    print(f"demo: {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())

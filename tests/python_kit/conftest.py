"""Workers written in a few lines, each on a link whose other end the test holds."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from workers.conformance.link import LinkPlan
from workers.conformance.peer import Peer
from workers.conformance.process import environment_of

ROOT = Path(__file__).parents[2]
PATIENCE_S = 20.0
HEAD = """
import os, signal, sys, threading, time
from ringbridge_worker import AnswerTooLarge, Cancelled, Job, JobFailed, Term, serve
"""

Start = Callable[..., Peer]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """start(source, **plan): a worker of that source, which has greeted.

    before_hello(peer): what the bridge does before; greets=False: it is not waited for. env: more
    of its environment.
    """
    peers: list[Peer] = []

    def make(
        source: str,
        *,
        before_hello: Callable[[Peer], None] = lambda peer: None,
        greets: bool = True,
        env: Mapping[str, str] | None = None,
        **plan: Any,
    ) -> Peer:
        script = tmp_path / f"worker_{len(peers)}.py"
        script.write_text(HEAD + source)
        whole = LinkPlan(**plan)
        environment = environment_of(whole.worker_id, whole.role)
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "workers" / "python")])
        environment |= env or {}
        argv = [sys.executable, str(script)]
        peers.append(Peer(argv, whole, PATIENCE_S, environment=environment))
        before_hello(peers[-1])
        if greets:
            peers[-1].greet()
        return peers[-1]

    yield make
    for peer in peers:
        peer.close()

"""Any term of a BEAM survives the trip to a process of ours and back, bit for bit; and any of ours.

Over the distribution, so through the relay's frames, fragments and atom cache, not only through the
codec: tests/etf has that. A failure names its seed; RINGBRIDGE_SEED=... makes the same terms again.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from node_support import OpenNode, StartBeam, needs_erlang
from services import Counter

from bridge.etf import canonical
from bridge.testing import Beam

sys.path.append(str(Path(__file__).parents[1] / "etf"))
from etf_support import terms_without_funs

pytestmark = [needs_erlang, pytest.mark.beam, pytest.mark.smoke, pytest.mark.timeout(120)]

TERMS = Path(__file__).parent / "behaviour" / "terms.exs"
COUNT = 600


@pytest.fixture
async def maker(start_beam: StartBeam) -> Beam:
    """A BEAM that makes terms at random."""
    beam = await start_beam().ready()
    await beam.evaluate(f"Code.require_file({json.dumps(str(TERMS))})")
    return beam


async def test_terms_of_a_beam_come_back_bit_for_bit(maker: Beam, open_test_node: OpenNode) -> None:
    seed = int(os.environ.get("RINGBRIDGE_SEED", secrets.randbits(32)))
    print(f"RINGBRIDGE_SEED={seed}")
    async with open_test_node(services={"counter": Counter()}) as node:
        lost = await maker.evaluate(
            f"Behaviour.Terms.lost({{:counter, :'{node.name}'}}, {seed}..{seed + COUNT})"
        )
        assert lost == "[]", f"RINGBRIDGE_SEED={seed}: {lost}"


async def test_more_atoms_than_a_cache_holds_come_back(
    maker: Beam, open_test_node: OpenNode
) -> None:
    async with open_test_node(services={"counter": Counter()}) as node:
        server = f"{{:counter, :'{node.name}'}}"
        for count, at_once in ((2500, 10), (2500, 250), (3000, 300)):
            lost = await maker.evaluate(f"Behaviour.Terms.lost_atoms({server}, {count}, {at_once})")
            assert lost == "0", (count, at_once)


async def test_terms_of_ours_come_back_the_same(maker: Beam, open_test_node: OpenNode) -> None:
    """Hypothesis has a thread of its own, so that one BEAM and one node serve all its examples."""
    async with open_test_node(listen=False) as node:
        await maker.evaluate("""
        loop = fn loop ->
          receive do: ({:"$gen_call", from, term} -> GenServer.reply(from, term))
          loop.(loop)
        end
        Process.register(spawn(fn -> loop.(loop) end), :echo)
        """)

        @settings(max_examples=300, deadline=None, database=None)
        @given(term=terms_without_funs)
        def comes_back(term: Any) -> None:
            back = trio.from_thread.run(node.call, ("echo", maker.name), term)
            # A BEAM has an order of its own for the entries of a map.
            assert canonical(back) == canonical(term)

        await trio.to_thread.run_sync(comes_back)

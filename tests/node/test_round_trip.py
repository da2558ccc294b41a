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
from hypothesis import assume, example, given, settings
from node_support import OpenNode, StartBeam, needs_erlang
from services import Counter

from bridge.etf import ImproperList, Map, Record, canonical
from bridge.testing import Beam

sys.path.append(str(Path(__file__).parents[1] / "etf"))
from etf_support import exact, terms_without_funs

pytestmark = [needs_erlang, pytest.mark.beam, pytest.mark.smoke, pytest.mark.timeout(120)]

TERMS = Path(__file__).parent / "behaviour" / "terms.exs"
COUNT = 600
ZERO, MINUS_ZERO = repr(exact(0.0)), repr(exact(-0.0))


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


def zeros_collide(term: Any) -> bool:
    """Whether a map in the term has keys that differ in the sign of a zero alone."""
    match term:
        case dict() | Map():
            keys = [repr(exact(key)).replace(MINUS_ZERO, ZERO) for key in term]
            entries = [part for entry in term.items() for part in entry]
            return len(set(keys)) < len(keys) or any(map(zeros_collide, entries))
        case list() | tuple():
            return any(map(zeros_collide, term))
        case ImproperList(elements, tail):
            return any(map(zeros_collide, (*elements, tail)))
        case Record():
            return zeros_collide(term.values)
        case _:
            return False


def test_keys_that_differ_in_the_sign_of_a_zero_are_found() -> None:
    assert zeros_collide([(1, Map([((0.0,), 1), ((-0.0,), 2)]))])
    assert not zeros_collide([Map([(0.0, 0.0), (0, -0.0)]), -0.0, 0.0])


async def test_terms_of_ours_come_back_the_same(maker: Beam, open_test_node: OpenNode) -> None:
    """Hypothesis has a thread of its own, so that one BEAM and one node serve all its examples."""
    minus_zero = ":erlang.binary_to_term(<<131, 70, 128, 0::56>>)"
    zeros_are_one = await maker.evaluate(f"{minus_zero} === 0.0") == "true"  # before OTP 27
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
        @example(term=Map([(0.0, True), (-0.0, True)]))
        def comes_back(term: Any) -> None:
            assume(not (zeros_are_one and zeros_collide(term)))
            back = trio.from_thread.run(node.call, ("echo", maker.name), term)
            # A BEAM has an order of its own for the entries of a map.
            assert canonical(back) == canonical(term)

        await trio.to_thread.run_sync(comes_back)

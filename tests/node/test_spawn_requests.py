"""Our own spawn requests as signals: what is owed to an answer that comes late, or never."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from router_support import YOU
from test_node_signals import ListCarrier, connected_node, signal

from bridge.dist.flags import OFFERED, SPAWN
from bridge.etf import Atom, Pid, Reference
from bridge.node import Node, ProcessDown
from bridge.node.functions.remote_errors import BadRpc, RemoteError, SpawnRefused

THEIRS = Pid(YOU.node, 77, 0, YOU.creation)
PEER = YOU.node.name
X = Atom("x")


def asked(carrier: ListCarrier) -> tuple[Reference, Pid, list[Any], list[Any]]:
    """Reference, caller, options and arguments of the last spawn request."""
    (op, ref, caller, _, _, options), args = carrier.sent[-1]
    assert op == 29
    return ref, caller, options, args


async def test_an_answer_is_known_by_its_reference_and_its_mark() -> None:
    async with connected_node() as (node, carrier):
        call = await node.send_request(PEER, "m", "f", [1])
        ref, caller, options, [res, module, function, args] = asked(carrier)
        assert (options, module, function, args) == ([Atom("monitor")], Atom("m"), Atom("f"), [1])
        signal(node, (31, ref, caller, 2, THEIRS))
        signal(node, (28, THEIRS, caller, ref), (res, Atom("return"), X))
        assert await call.result() == X
        # The same reason with the mark of another call is how its process ended, no answer.
        call = await node.send_request(PEER, "m", "f", [1])
        ref, caller, _, _ = asked(carrier)
        signal(node, (31, ref, caller, 2, THEIRS))
        signal(node, (28, THEIRS, caller, ref), (res, Atom("return"), X))
        with pytest.raises(ProcessDown):
            await call.result()


async def test_given_up_before_the_reply_the_monitor_is_given_back_when_it_comes() -> None:
    async with connected_node() as (node, carrier):
        call = await node.send_request(PEER, "m", "f")
        ref, caller, _, [res, *_] = asked(carrier)
        call.forget()
        assert len(node.router.spawn_requests) == 1
        signal(node, (31, ref, caller, 2, THEIRS))
        assert carrier.sent[-1] == ((20, caller, THEIRS, ref),)
        signal(node, (28, THEIRS, caller, ref), (res, Atom("return"), X))
        assert not carrier.dropped
        assert node.statistics().monitors_held == 0
        assert len(node.router.spawn_requests) == 0


async def test_given_up_after_the_reply_it_is_given_back_at_once() -> None:
    async with connected_node() as (node, carrier):
        call = await node.send_request(PEER, "m", "f")
        ref, caller, _, _ = asked(carrier)
        signal(node, (31, ref, caller, 2, THEIRS))
        call.forget()
        assert carrier.sent[-1] == ((20, caller, THEIRS, ref),)
        assert node.statistics().monitors_held == 0


async def begin_spawn(node: Node, nursery: trio.Nursery, **options: Any) -> trio.CancelScope:
    scope = trio.CancelScope()

    async def spawn() -> None:
        with scope:
            await node.spawn_request(PEER, "m", "f", **options)

    nursery.start_soon(spawn)
    await trio.testing.wait_all_tasks_blocked()
    return scope


async def test_a_cancelled_spawn_with_a_link_is_ended_when_it_answers() -> None:
    async with connected_node() as (node, carrier), trio.open_nursery() as nursery:
        owner = node.caller()
        scope = await begin_spawn(node, nursery, link=owner.pid)
        ref, caller, options, _ = asked(carrier)
        assert options == [Atom("link")]
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        signal(node, (31, ref, caller, 1, THEIRS))
        assert carrier.sent[-1] == ((24, caller, THEIRS), Atom("abandoned"))
        assert len(owner.links) == 0


async def test_a_process_that_ended_meanwhile_owes_its_link_an_exit() -> None:
    async with connected_node() as (node, carrier), trio.open_nursery() as nursery:
        owner = node.caller()
        scope = await begin_spawn(node, nursery, link=owner.pid)
        ref, caller, _, _ = asked(carrier)
        node.router.terminate(owner, X)
        signal(node, (31, ref, caller, 1, THEIRS))
        assert carrier.sent[-1] == ((24, caller, THEIRS), Atom("noproc"))
        scope.cancel()


async def test_a_refusal_and_a_lost_connection_end_the_wait() -> None:
    async with connected_node() as (node, carrier):
        call = await node.send_request(PEER, "m", "f")
        ref, caller, _, _ = asked(carrier)
        signal(node, (31, ref, caller, 0, Atom("system_limit")))
        with pytest.raises(SpawnRefused) as refused:
            await call.result()
        assert refused.value.reason == Atom("system_limit")
        call = await node.send_request(PEER, "m", "f")
        node.handle_connection_lost(1, "closed_by_peer")
        with pytest.raises(ProcessDown) as down:
            await call.result()
        assert down.value.reason == Atom("noconnection")
        assert len(node.router.spawn_requests) == 0


async def test_an_error_of_erpc_itself_is_an_error_without_a_stack() -> None:
    async with connected_node() as (node, carrier):
        call = await node.send_request(PEER, "m", "f")
        ref, caller, _, [res, *_] = asked(carrier)
        signal(node, (31, ref, caller, 2, THEIRS))
        limit = (Atom("erpc"), Atom("system_limit"))
        signal(node, (28, THEIRS, caller, ref), (res, Atom("error"), limit))
        with pytest.raises(RemoteError) as error:
            await call.result()
        assert (error.value.reason, error.value.stack) == (limit, [])


@pytest.mark.parametrize("kind", ["down first", "pid of another node"])
async def test_a_peer_that_breaks_the_rules_of_a_spawn_is_disconnected(kind: str) -> None:
    async with connected_node() as (node, carrier):
        call = await node.send_request(PEER, "m", "f")
        ref, caller, _, _ = asked(carrier)
        if kind == "down first":
            signal(node, (28, THEIRS, caller, ref), X)
        else:
            signal(node, (31, ref, caller, 2, Pid(Atom("else@h"), 1, 0, 1)))
        assert len(carrier.dropped) == 1
        with pytest.raises(ProcessDown):
            await call.result()


async def test_a_reply_that_nobody_asked_for_is_nobodys() -> None:
    async with connected_node() as (node, carrier):
        call = await node.send_request(PEER, "m", "f")
        ref, caller, _, _ = asked(carrier)
        stranger = Pid(Atom("us@h"), 999, 0, 7)
        signal(node, (31, Reference(Atom("us@h"), 7, (999, 0, 0)), caller, 2, THEIRS))
        signal(node, (31, ref, stranger, 2, THEIRS))
        assert len(node.router.spawn_requests) == 1
        assert not carrier.dropped
        call.forget()


async def test_a_node_that_knows_no_spawns_is_asked_none() -> None:
    async with connected_node(OFFERED & ~SPAWN) as (node, carrier):
        for ask in (node.erpc, node.cast_rpc, node.spawn_request, node.spawn_monitor):
            with pytest.raises(SpawnRefused) as refused:
                await ask(PEER, "m", "f")
            assert refused.value.reason == Atom("notsup")
        with pytest.raises(BadRpc) as bad:
            await node.rpc(PEER, "m", "f")
        assert bad.value.reason == Atom("notsup")
        assert carrier.sent == []

"""Priority signals of OTP 28 (op 37): what counts as one, and what older peers are sent instead."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from node_support import OpenNode, needs_erlang
from router_support import PEER, YOU, World

from bridge.dist import control as c
from bridge.dist.flags import ALTACT_SIG, EXIT_PAYLOAD, OFFERED
from bridge.etf import Atom, Reference, decode_bare
from bridge.node import ProcessHandle
from bridge.node.signals.outgoing import can_express, encode_signal
from bridge.testing import Beam

BAD, KILL = Atom("bad"), Atom("kill")
PRIORITY, ALIAS, NAME, EXIT = 1, 4, 8, 16


@pytest.mark.parametrize(
    ("alias_is_priority", "flags", "urgent"),
    [
        (True, ALIAS | PRIORITY, True),
        (True, ALIAS, False),  # not asked for
        (False, ALIAS | PRIORITY, False),  # not allowed over this alias
    ],
)
def test_priority_takes_a_priority_alias_and_a_priority_send(
    alias_is_priority: bool, flags: int, urgent: bool
) -> None:
    world = World()
    process, box = world.spawn()
    alias = world.router.alias(process, priority=alias_is_priority)
    world.receive(c.AltactSend(flags, YOU, alias), "message")
    assert (box.urgent, box.messages) == ((["message"], []) if urgent else ([], ["message"]))


def test_a_priority_send_to_a_pid_or_a_name_is_an_ordinary_one() -> None:
    world = World()
    process, box = world.spawn("name")
    world.receive(c.AltactSend(PRIORITY, YOU, process.pid), 1)
    world.receive(c.AltactSend(PRIORITY | NAME, YOU, Atom("name")), 2)
    assert (box.urgent, box.messages) == ([], [1, 2])


@pytest.mark.parametrize("priority", [True, False])
def test_an_exit_over_an_alias_is_one_of_its_process(priority: bool) -> None:
    world = World()
    process, box = world.spawn(trap_exit=True)
    alias = world.router.alias(process, priority=True)
    world.receive(c.AltactSend(ALIAS | EXIT | (PRIORITY if priority else 0), YOU, alias), BAD)
    heard = [(Atom("EXIT"), YOU, BAD)]
    assert (box.urgent, box.signals) == ((heard, []) if priority else ([], heard))
    world.receive(c.AltactSend(ALIAS | EXIT, YOU, alias), KILL)
    assert box.stopped == [Atom("killed")]


def test_nothing_comes_over_an_alias_that_is_closed_or_whose_process_has_ended() -> None:
    world = World()
    process, box = world.spawn()
    closed, left = world.router.alias(process), world.router.alias(process)
    assert world.router.unalias(closed)
    assert not world.router.unalias(closed)
    world.receive(c.AliasSend(YOU, closed), 1)
    world.router.terminate(process, BAD)
    world.receive(c.AliasSend(YOU, left), 2)
    world.receive(c.AltactSend(ALIAS | EXIT, YOU, left), KILL)
    assert box.messages == []
    assert process.aliases == set()


def test_an_alias_for_once_ends_with_its_first_message() -> None:
    world = World()
    process, box = world.spawn()
    alias = world.router.alias(process, once=True)
    for number in (1, 2):
        world.receive(c.AliasSend(YOU, alias), number)
    assert box.messages == [1]


def test_downs_and_exits_may_be_asked_for_with_priority() -> None:
    world = World()
    process, box = world.spawn(trap_exit=True)
    ref = world.router.monitor(process, YOU, urgent=True)
    process.urgent_links.add(YOU)
    world.router.link(process, YOU)
    world.receive(c.MonitorPExit(YOU, process.pid, ref), BAD)
    world.receive(c.Exit(YOU, process.pid), BAD)
    assert box.urgent == [
        (Atom("DOWN"), ref, Atom("process"), YOU, BAD),
        (Atom("EXIT"), YOU, BAD),
    ]
    world.router.link(process, YOU)  # another link, without
    world.receive(c.Exit(YOU, process.pid), BAD)
    assert box.signals == [(Atom("EXIT"), YOU, BAD)]


def test_a_local_priority_send_goes_the_same_way() -> None:
    world = World()
    process, box = world.spawn()
    alias = world.router.alias(process, priority=True)
    world.router.send(process.pid, alias, 1)
    world.router.send(process.pid, alias, ("text",), priority=True)
    assert (box.messages, box.urgent) == ([1], [(b"text",)])


# -- what goes out ---------------------------------------------------------------------------------

THEIR_ALIAS = Reference(Atom(PEER), 4, (1, 2, 3))
OLD = OFFERED & ~ALTACT_SIG


@pytest.mark.parametrize(
    ("message", "new", "old"),
    [
        (c.AltactSend(1, YOU, YOU), (37, 1, YOU, YOU), (22, YOU, YOU)),
        (c.AltactSend(9, YOU, Atom("n")), (37, 9, YOU, Atom("n")), (6, YOU, Atom(""), Atom("n"))),
        (c.AltactSend(5, YOU, THEIR_ALIAS), (37, 5, YOU, THEIR_ALIAS), (33, YOU, THEIR_ALIAS)),
        (c.AltactSend(17, YOU, YOU), (37, 17, YOU, YOU), (26, YOU, YOU)),
    ],
)
def test_before_otp_28_the_same_is_sent_without_priority(
    message: c.ControlMessage, new: Any, old: Any
) -> None:
    for flags, expected in ((OFFERED, new), (OLD, old)):
        assert can_express(message, flags)
        control, payload = encode_signal(message, BAD, flags)
        assert decode_bare(control)[0] == expected
        assert decode_bare(payload or b"")[0] == BAD
    if isinstance(message, c.AltactSend) and message.flags & EXIT:
        control, payload = encode_signal(message, BAD, OLD & ~EXIT_PAYLOAD)
        assert (decode_bare(control)[0], payload) == ((8, YOU, YOU, BAD), None)


def test_before_otp_28_an_exit_over_an_alias_has_no_form() -> None:
    assert can_express(c.AltactSend(20, YOU, THEIR_ALIAS), OFFERED)
    assert not can_express(c.AltactSend(20, YOU, THEIR_ALIAS), OLD)


# -- with a BEAM of OTP 28 or later ----------------------------------------------------------------


@needs_erlang
@pytest.mark.beam
async def test_a_beams_priority_messages_and_ours(beam: Beam, open_test_node: OpenNode) -> None:
    if int((await beam.evaluate("System.otp_release()")).strip('"')) < 28:
        pytest.skip("priority messages came with OTP 28")
    got: list[Any] = []
    begin, done = trio.Event(), trio.Event()

    async def run(me: ProcessHandle) -> None:
        me.trap_exit = True
        alias = me.alias(priority=True)
        me.send(("driver", beam.name), (Atom("alias"), alias))
        await begin.wait()
        got.extend([await me.receive() for _ in range(4)])
        done.set()
        theirs = got[-1]
        for number in (1, 2):
            me.send(theirs, number)
        me.send(theirs, Atom("urgent"), priority=True)
        me.send(("driver", beam.name), Atom("sent"))
        await me.receive(Atom("never"))

    async with open_test_node() as node:
        await beam.evaluate("Process.register(self(), :driver)")
        await node.spawn(run)
        await beam.evaluate("""
        ours = receive do {:alias, ours} -> ours end
        theirs = :erlang.alias([:priority])
        send(ours, :first)
        send(ours, theirs)
        :erlang.send(ours, :urgent, [:priority])
        :erlang.exit(ours, :told, [:priority])
        """)
        assert await beam.evaluate(f"Node.ping(:'{node.name}')") == ":pong"  # so all have arrived
        begin.set()
        await done.wait()
        assert [got[0], got[1][::2], got[2]] == [
            Atom("urgent"),
            (Atom("EXIT"), Atom("told")),
            Atom("first"),
        ]
        # Only what came in order before `sent` counts, so the queue is looked at after it.
        assert (
            await beam.evaluate("""
        receive do :sent -> :ok end
        for _ <- 1..3, do: (receive do x -> x end)
        """)
            == "[:urgent, 1, 2]"
        )
        await beam.evaluate("Process.unregister(:driver)")

"""Processes in Python among themselves: spawn, receive, links, monitors, exits, their ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from plain_carrier import plain_carrier

from bridge.etf import Atom, EncodeError, Pid
from bridge.node import ANY, MailboxPolicy, Node, ProcessHandle, Stop, WhenFull, open_node

NORMAL, DOWN, EXIT = Atom("normal"), Atom("DOWN"), Atom("EXIT")


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    async with open_node(
        "processes@127.0.0.1", cookie="none", listen=False, carrier=plain_carrier
    ) as opened:
        yield opened


class Watcher:
    """A process that writes down what it gets, and does what a test asks of it."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.got: list[Any] = []
        self.arrived = trio.Event()
        self.me: ProcessHandle

    async def start(self, **options: Any) -> Watcher:
        started = trio.Event()

        async def run(me: ProcessHandle) -> None:
            self.me = me
            started.set()
            while True:
                self.got.append(await me.receive())
                self.arrived.set()

        self.pid = await self.node.spawn(run, **options)
        await started.wait()
        return self

    async def wait_for(self, count: int) -> None:
        with trio.fail_after(60):
            while len(self.got) < count:
                self.arrived = trio.Event()
                await self.arrived.wait()

    async def settled(self) -> list[Any]:
        await trio.testing.wait_all_tasks_blocked()
        return self.got


async def sleeper(me: ProcessHandle) -> None:
    await me.receive(lambda _: False)


async def test_a_process_runs_with_its_arguments_and_its_name(node: Node) -> None:
    seen: list[Any] = []
    done = trio.Event()

    async def run(me: ProcessHandle, *args: int) -> None:
        seen.extend((me.pid, me.names, args, node.whereis("fred")))
        done.set()

    pid = await node.spawn(run, 1, 2, name="fred")
    await done.wait()
    assert seen == [pid, ["fred"], (1, 2), pid]
    await trio.testing.wait_all_tasks_blocked()
    assert node.whereis("fred") is None


async def test_a_taken_name_is_an_error_at_once(node: Node) -> None:
    await node.spawn(sleeper, name="fred")
    with pytest.raises(ValueError, match="fred"):
        await node.spawn(sleeper, name="fred")


async def test_selective_receive_by_pattern_and_by_function(node: Node) -> None:
    got: list[Any] = []
    done = trio.Event()

    async def run(me: ProcessHandle) -> None:
        got.append(await me.receive((Atom("b"), ANY)))
        got.append(await me.receive(lambda message: message == Atom("c")))
        got.append(await me.receive())
        with pytest.raises(trio.TooSlowError):
            await me.receive(timeout=0)
        with pytest.raises(trio.TooSlowError):
            await me.receive(timeout=0.01)
        done.set()

    pid = await node.spawn(run)
    for message in (Atom("a"), (Atom("b"), 1), Atom("c")):
        await node.send(pid, message)
    await done.wait()
    assert got == [(Atom("b"), 1), Atom("c"), Atom("a")]


async def test_receive_with_timeout_0_takes_what_is_there(node: Node) -> None:
    got: list[Any] = []

    async def run(me: ProcessHandle) -> None:
        got.append(await me.receive(timeout=0))

    node.send_nowait(node.spawn_nowait(run).pid, 1)
    await trio.testing.wait_all_tasks_blocked()
    assert got == [1]


async def crash(me: ProcessHandle) -> None:
    await me.receive()
    raise RuntimeError("asked to")


async def leave(me: ProcessHandle) -> None:
    raise Stop(await me.receive())


async def crash_in_a_nursery(me: ProcessHandle) -> None:
    await me.receive()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep, 10)
        nursery.start_soon(leave, me)


async def finish(me: ProcessHandle) -> None:
    await me.receive()


@pytest.mark.parametrize(
    ("function", "sent", "reason"),
    [
        (finish, [1], NORMAL),
        (leave, [Atom("enough")], Atom("enough")),
        (crash, [1], (Atom("exception"), b"RuntimeError", b"asked to")),
        (crash_in_a_nursery, [1, Atom("enough")], Atom("enough")),
    ],
)
async def test_watchers_and_links_hear_how_it_ended(
    node: Node, function: Any, sent: list[Any], reason: Any
) -> None:
    watcher = await Watcher(node).start(trap_exit=True)
    pid = await node.spawn(function)
    ref = watcher.me.monitor(pid)
    watcher.me.link(pid)
    for message in sent:
        watcher.me.send(pid, message)
    assert await watcher.settled() == [
        (EXIT, pid, reason),
        (DOWN, ref, Atom("process"), pid, reason),
    ]


async def test_a_process_that_does_not_trap_dies_with_its_link(node: Node) -> None:
    watcher = await Watcher(node).start()
    one, two = await Watcher(node).start(), await Watcher(node).start()
    one.me.link(two.pid)
    refs = [watcher.me.monitor(pid) for pid in (one.pid, two.pid)]
    watcher.me.exit(one.pid, Atom("sad"))
    assert sorted(down[1].words for down in await watcher.settled()) == [r.words for r in refs]
    assert {down[4] for down in watcher.got} == {Atom("sad")}


async def test_kill_cannot_be_trapped_and_its_links_hear_killed(node: Node) -> None:
    victim = await Watcher(node).start(trap_exit=True)
    linked = await Watcher(node).start(trap_exit=True)
    linked.me.link(victim.pid)
    linked.me.exit(victim.pid, Atom("kill"))
    assert await linked.settled() == [(EXIT, victim.pid, Atom("killed"))]


async def test_trap_exit_is_a_flag_that_can_be_set(node: Node) -> None:
    watcher = await Watcher(node).start()
    assert not watcher.me.trap_exit
    watcher.me.trap_exit = True
    node.exit(watcher.pid, Atom("sad"))
    assert [message[2] for message in await watcher.settled()] == [Atom("sad")]


async def test_unlink_and_demonitor_are_silent(node: Node) -> None:
    watcher = await Watcher(node).start()
    pid = await node.spawn(finish)
    watcher.me.link(pid)
    ref = watcher.me.monitor(pid)
    watcher.me.unlink(pid)
    watcher.me.demonitor(ref)
    node.exit(pid, Atom("sad"))
    assert await watcher.settled() == []
    assert node.statistics().monitors_held == 0


async def test_demonitor_with_flush_takes_back_a_down_that_has_come(node: Node) -> None:
    got: list[Any] = []

    async def run(me: ProcessHandle) -> None:
        gone = me.monitor("nobody")
        kept = me.monitor("nobody")
        me.demonitor(gone, flush=True)
        got.append((kept, await me.receive()))
        with pytest.raises(trio.TooSlowError):
            await me.receive(timeout=0)

    await node.spawn(run)
    await trio.testing.wait_all_tasks_blocked()
    ((kept, down),) = got
    name = (Atom("nobody"), Atom(node.name))
    assert down == (DOWN, kept, Atom("process"), name, Atom("noproc"))


async def test_spawn_with_link_is_linked_before_it_runs(node: Node) -> None:
    watcher = await Watcher(node).start(trap_exit=True)

    async def at_once(me: ProcessHandle) -> None:
        raise Stop(Atom("at_once"))

    pid = await node.spawn(at_once, link=watcher.pid)
    assert await watcher.settled() == [(EXIT, pid, Atom("at_once"))]


async def test_a_link_with_nobody_is_noproc(node: Node) -> None:
    watcher = await Watcher(node).start(trap_exit=True)
    gone = Pid(Atom(node.name), 99_999, 0, node.creation)
    watcher.me.link(gone)
    assert await watcher.settled() == [(EXIT, gone, Atom("noproc"))]


async def test_what_is_no_term_is_an_error_of_the_sender(node: Node) -> None:
    watcher = await Watcher(node).start()
    with pytest.raises(EncodeError):
        watcher.me.send(watcher.pid, object())
    with pytest.raises(EncodeError):  # also when it would have had to wait
        watcher.me.send(("somebody", "not-there@127.0.0.1"), object())


async def test_to_a_node_that_is_not_there_a_send_is_lost_and_a_monitor_says_noconnection(
    node: Node,
) -> None:
    watcher = await Watcher(node).start(trap_exit=True)
    elsewhere = Pid(Atom("nowhere@127.0.0.1"), 1, 0, 1)
    assert watcher.me.send(elsewhere, 1)
    cancelled = watcher.me.monitor(elsewhere)
    ref = watcher.me.monitor(elsewhere)
    watcher.me.link(elsewhere)
    watcher.me.demonitor(cancelled)
    await watcher.wait_for(2)
    why = Atom("noconnection")
    assert watcher.got == [
        (DOWN, ref, Atom("process"), elsewhere, why),
        (EXIT, elsewhere, why),
    ]


async def test_a_full_mailbox_may_end_the_process(node: Node) -> None:
    watcher = await Watcher(node).start()
    pid = await node.spawn(sleeper, mailbox=MailboxPolicy(2, WhenFull.CLOSE))
    ref = watcher.me.monitor(pid)
    for number in range(3):
        watcher.me.send(pid, number)
    reason = (Atom("mailbox_full"), 2)
    assert await watcher.settled() == [(DOWN, ref, Atom("process"), pid, reason)]


async def test_messages_between_two_processes_keep_their_order(node: Node) -> None:
    watcher = await Watcher(node).start(trap_exit=True)

    async def run(me: ProcessHandle) -> None:
        me.link(watcher.pid)
        me.send(watcher.pid, 1)
        me.unlink(watcher.pid)
        me.send(watcher.pid, 2)
        me.link(watcher.pid)
        me.send(watcher.pid, 3)

    pid = await node.spawn(run)
    assert await watcher.settled() == [1, 2, 3, (EXIT, pid, NORMAL)]


async def test_the_end_of_the_node_is_the_end_of_its_processes() -> None:
    ended: list[str] = []

    async def run(me: ProcessHandle) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append("yes")

    async with open_node("ending@127.0.0.1", cookie="x", listen=False, carrier=plain_carrier) as n:
        await n.spawn(run)
        await trio.testing.wait_all_tasks_blocked()
    assert ended == ["yes"]


async def test_no_more_than_a_hundred_nodes_are_dialled_at_a_time(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is monitored, linked or written to may be what a peer named: a pid anywhere."""
    dialled: list[str] = []

    async def never(peer: str) -> None:
        dialled.append(peer)
        await trio.sleep_forever()

    monkeypatch.setattr(node.autoconnect, "_connect", never)
    watcher = await Watcher(node).start()
    pids = [Pid(Atom(f"n{number}@127.0.0.1"), 1, 0, 1) for number in range(102)]
    for pid in pids:
        watcher.me.monitor(pid)
    watcher.me.monitor(pids[0])  # waits with the first
    await watcher.wait_for(2)
    assert [message[3:] for message in watcher.got] == [
        (pid, Atom("noconnection")) for pid in pids[100:]
    ]
    assert sorted(dialled) == sorted(pid.node.name for pid in pids[:100])

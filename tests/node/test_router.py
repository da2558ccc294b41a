"""What signals do to processes: dist-protocol.md, 5, rule by rule, without a socket."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from router_support import CREATION, PEER, US, YOU, World, ref

from bridge.dist import control as c
from bridge.dist.errors import RemoteProtocolError
from bridge.etf import Atom, EncodeError, ImproperList, Pid, Record, Reference
from bridge.node.signals.gen import Sender, alias_tag

NORMAL, KILL, KILLED, BAD = Atom("normal"), Atom("kill"), Atom("killed"), Atom("bad")
NOPROC, NOCONNECTION = Atom("noproc"), Atom("noconnection")


def dead_pid(creation: int = CREATION) -> Pid:
    return Pid(Atom(US), 999, 0, creation)


# -- addressing (5.1) ------------------------------------------------------------------------------


def test_messages_arrive_by_pid_and_by_name() -> None:
    world = World()
    process, box = world.spawn("name")
    world.receive(c.Send(YOU, process.pid), 1)
    world.receive(c.RegSend(YOU, Atom("name")), 2)
    world.receive(c.AltactSend(1, YOU, process.pid), 3)
    world.receive(c.AltactSend(9, YOU, Atom("name")), 4)
    assert box.messages == [1, 2, 3, 4]


def test_a_payload_for_nobody_is_not_even_decoded() -> None:
    def explode() -> Any:
        raise AssertionError("decoded")

    world = World()
    for message in (
        c.Send(YOU, dead_pid()),
        c.RegSend(YOU, Atom("nobody")),
        c.AliasSend(YOU, Reference(Atom(US), CREATION, (1, 2, 3))),
        c.AltactSend(4, YOU, Reference(Atom(US), CREATION, (1, 2, 3))),
        c.Exit2(YOU, dead_pid()),
        c.Exit(YOU, dead_pid()),
        c.MonitorPExit(YOU, dead_pid(), ref(1)),
    ):
        world.router.receive(PEER, message, explode)
    assert world.take_sent() == []


def test_a_pid_of_an_earlier_life_is_a_dead_process() -> None:
    world = World()
    process, box = world.spawn()
    old = Pid(process.pid.node, process.pid.id, process.pid.serial, CREATION - 1)
    world.receive(c.Send(YOU, old), 1)
    world.receive(c.Exit2(YOU, old, KILL))
    assert (box.messages, box.stopped) == ([], [])
    world.receive(c.MonitorP(YOU, old, ref(1)))
    world.receive(c.Link(YOU, old))
    assert world.take_sent() == [
        c.MonitorPExit(old, YOU, ref(1), NOPROC),
        c.Exit(old, YOU, NOPROC),
    ]


@pytest.mark.parametrize(
    "message",
    [
        c.Link(dead_pid(), dead_pid()),
        c.Exit(dead_pid(), dead_pid(), BAD),
        c.UnlinkId(1, dead_pid(), dead_pid()),
        c.UnlinkIdAck(1, dead_pid(), dead_pid()),
        c.MonitorP(dead_pid(), dead_pid(), ref(1)),
        c.DemonitorP(dead_pid(), dead_pid(), ref(1)),
    ],
)
def test_links_exits_and_monitors_come_from_the_connected_node(message: c.ControlMessage) -> None:
    with pytest.raises(RemoteProtocolError, match="connected node"):
        World().receive(message)


# -- monitors (5.2) --------------------------------------------------------------------------------


@pytest.mark.parametrize("by_name", [False, True])
def test_a_watcher_hears_the_real_reason_once(by_name: bool) -> None:
    world = World()
    process, _ = world.spawn("name")
    target = Atom("name") if by_name else process.pid
    world.receive(c.MonitorP(YOU, target, ref(1)))
    world.router.terminate(process, BAD)
    world.router.terminate(process, BAD)
    assert world.take_sent() == [c.MonitorPExit(target, YOU, ref(1), BAD)]


@pytest.mark.parametrize("target", [dead_pid(), Atom("nobody"), None])
def test_a_monitor_on_nobody_is_answered_noproc_at_once(target: Any) -> None:
    world = World()
    world.receive(c.MonitorP(YOU, target, ref(1)))
    assert world.take_sent() == [c.MonitorPExit(target, YOU, ref(1), NOPROC)]


def test_a_monitor_given_back_is_silent_and_an_unknown_one_is_normal() -> None:
    world = World()
    process, _ = world.spawn()
    world.receive(c.MonitorP(YOU, process.pid, ref(1)))
    world.receive(c.DemonitorP(YOU, process.pid, ref(1)))
    world.receive(c.DemonitorP(YOU, process.pid, ref(2)))
    world.router.terminate(process, BAD)
    assert world.take_sent() == []


def test_nobody_gives_back_the_monitor_of_another() -> None:
    world = World()
    process, _ = world.spawn()
    world.receive(c.MonitorP(YOU, process.pid, ref(1)))
    world.receive(c.DemonitorP(Pid(Atom(PEER), 9, 9, 4), process.pid, ref(1)))
    world.router.terminate(process, BAD)
    assert world.take_sent() == [c.MonitorPExit(process.pid, YOU, ref(1), BAD)]


def test_a_monitor_by_name_watches_the_process_and_not_the_name() -> None:
    world = World()
    process, _ = world.spawn("name")
    world.receive(c.MonitorP(YOU, Atom("name"), ref(1)))
    world.router.table.unregister(Atom("name"))
    successor, _ = world.spawn("name")
    world.router.terminate(successor, BAD)
    assert world.take_sent() == []
    world.router.terminate(process, BAD)
    assert world.take_sent() == [c.MonitorPExit(Atom("name"), YOU, ref(1), BAD)]


def test_a_peer_with_too_many_monitors_breaks_a_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.node.signals.monitors.MONITORS_MAX", 2)
    world = World()
    process, _ = world.spawn()
    world.receive(c.MonitorP(YOU, process.pid, ref(1)))
    world.receive(c.MonitorP(YOU, process.pid, ref(2)))
    with pytest.raises(RemoteProtocolError, match="at most"):
        world.receive(c.MonitorP(YOU, process.pid, ref(3)))
    world.receive(c.DemonitorP(YOU, process.pid, ref(1)))
    world.receive(c.MonitorP(YOU, process.pid, ref(3)))


def test_a_process_with_too_many_links_breaks_a_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.node.signals.router.LINKS_MAX", 1)
    world = World()
    process, _ = world.spawn()
    world.receive(c.Link(YOU, process.pid))
    with pytest.raises(RemoteProtocolError, match="at most"):
        world.receive(c.Link(Pid(Atom(PEER), 9, 9, 4), process.pid))


def test_the_reference_of_a_monitor_is_its_holders_own() -> None:
    world = World()
    process, _ = world.spawn()
    with pytest.raises(RemoteProtocolError, match="reference"):
        world.receive(c.MonitorP(YOU, process.pid, world.router.ids.next_ref()))


def test_a_group_leader_is_kept_with_its_process() -> None:
    world = World()
    process, _ = world.spawn()
    world.receive(c.GroupLeader(YOU, process.pid))
    world.receive(c.GroupLeader(YOU, dead_pid()))
    assert process.group_leader == YOU


def test_our_own_monitor_ends_in_one_down() -> None:
    world = World()
    process, box = world.spawn()
    mine = world.router.monitor(process, (Atom("name"), Atom(PEER)))
    assert world.take_sent() == [c.MonitorP(process.pid, Atom("name"), mine)]
    world.receive(c.MonitorPExit(Atom("name"), process.pid, mine), BAD)
    world.receive(c.MonitorPExit(Atom("name"), process.pid, mine), BAD)
    down = (Atom("DOWN"), mine, Atom("process"), (Atom("name"), Atom(PEER)), BAD)
    assert box.signals == [down]


def test_nobody_but_the_watched_node_ends_our_monitor() -> None:
    world = World()
    process, box = world.spawn()
    mine = world.router.monitor(process, YOU)
    world.receive(c.MonitorPExit(YOU, process.pid, mine), BAD, origin="third@h")
    assert box.signals == []


def test_a_process_that_ends_gives_its_monitors_back() -> None:
    world = World()
    process, _ = world.spawn()
    mine = world.router.monitor(process, YOU)
    world.take_sent()
    world.router.terminate(process, NORMAL)
    assert world.take_sent() == [c.DemonitorP(process.pid, YOU, mine)]


def test_a_monitor_without_a_connection_is_noconnection_at_once() -> None:
    world = World()
    world.connected = False
    process, box = world.spawn()
    mine = world.router.monitor(process, YOU)
    assert box.signals == [(Atom("DOWN"), mine, Atom("process"), YOU, NOCONNECTION)]


# -- links and exits (5.3, 5.4) --------------------------------------------------------------------


def test_a_link_to_nobody_is_an_exit_with_noproc() -> None:
    world = World()
    world.receive(c.Link(YOU, dead_pid()))
    assert world.take_sent() == [c.Exit(dead_pid(), YOU, NOPROC)]


def test_an_unlink_is_acknowledged_for_the_dead_too() -> None:
    world = World()
    process, _ = world.spawn()
    world.receive(c.UnlinkId(5, YOU, process.pid))
    world.receive(c.UnlinkId(6, YOU, dead_pid()))
    assert world.take_sent() == [
        c.UnlinkIdAck(5, process.pid, YOU),
        c.UnlinkIdAck(6, dead_pid(), YOU),
    ]


def test_a_linked_process_hears_the_reason_an_unlinked_one_does_not() -> None:
    for unlink, heard in ((None, 1), (c.UnlinkId, 0)):
        world = World()
        process, _ = world.spawn()
        world.receive(c.Link(YOU, process.pid))
        if unlink is not None:
            world.receive(unlink(1, YOU, process.pid))
        world.take_sent()
        world.router.terminate(process, BAD)
        assert world.take_sent() == [c.Exit(process.pid, YOU, BAD)] * heard


@pytest.mark.parametrize(
    ("trap", "reason", "dies_of", "gets"),
    [
        (False, BAD, BAD, None),
        (False, NORMAL, None, None),
        (False, KILL, KILL, None),
        (True, BAD, None, BAD),
        (True, NORMAL, None, NORMAL),
        (True, KILL, None, KILL),
    ],
)
def test_the_exit_of_a_linked_process(trap: bool, reason: Atom, dies_of: Any, gets: Any) -> None:
    world = World()
    process, box = world.spawn(trap_exit=trap)
    world.receive(c.Link(YOU, process.pid))
    world.receive(c.Exit(YOU, process.pid), reason)
    assert box.stopped == ([] if dies_of is None else [dies_of])
    assert box.signals == ([] if gets is None else [(Atom("EXIT"), YOU, gets)])


def test_an_exit_without_a_link_does_nothing() -> None:
    world = World()
    process, box = world.spawn()
    world.receive(c.Exit(YOU, process.pid), BAD)
    assert box.stopped == []


@pytest.mark.parametrize(
    "message",
    [
        lambda to: (c.Exit2(YOU, to), True),
        lambda to: (c.Exit2(YOU, to, KILL), False),
        lambda to: (c.AltactSend(17, YOU, to), True),
    ],
)
@pytest.mark.parametrize("trap", [False, True])
def test_kill_cannot_be_trapped(message: Any, trap: bool) -> None:
    world = World()
    process, box = world.spawn("name", trap_exit=trap)
    signal, with_payload = message(process.pid)
    world.receive(signal, KILL if with_payload else None)
    assert box.stopped == [KILLED]
    assert world.router.table.find(Atom("name")) is None


@pytest.mark.parametrize(
    ("trap", "reason", "dies", "gets"),
    [(False, BAD, True, False), (False, NORMAL, False, False), (True, BAD, False, True)],
)
def test_exit_2(trap: bool, reason: Atom, dies: bool, gets: bool) -> None:
    world = World()
    process, box = world.spawn(trap_exit=trap)
    world.receive(c.Exit2(YOU, process.pid), reason)
    assert box.stopped == [reason] * dies
    assert box.signals == [(Atom("EXIT"), YOU, reason)] * gets


# -- connection loss (5.5) -------------------------------------------------------------------------


def test_a_lost_connection_breaks_what_went_over_it_and_nothing_else() -> None:
    world = World()
    trapping, box = world.spawn(trap_exit=True)
    linked, linked_box = world.spawn()
    other, other_box = world.spawn()
    mine = world.router.monitor(trapping, YOU)
    world.router.link(trapping, YOU)
    world.receive(c.Link(YOU, linked.pid))
    world.receive(c.MonitorP(YOU, other.pid, ref(1)))
    world.take_sent()
    world.connected = False
    world.router.connection_lost(PEER)
    assert box.signals == [
        (Atom("EXIT"), YOU, NOCONNECTION),
        (Atom("DOWN"), mine, Atom("process"), YOU, NOCONNECTION),
    ]
    assert linked_box.stopped == [NOCONNECTION]
    assert other_box.stopped == []
    assert world.router.counts()["monitors_on_us"] == 0
    assert world.router.counts()["monitors_held"] == 0
    world.router.terminate(other, BAD)
    assert world.take_sent() == []


# -- spawns, aliases, answers ----------------------------------------------------------------------


def test_a_spawn_request_is_refused_at_once() -> None:
    world = World()
    mfa = (Atom("erpc"), Atom("execute_call"), 4)
    world.receive(c.SpawnRequest(ref(1), YOU, YOU, mfa, []), [])
    assert world.take_sent() == [c.SpawnReply(ref(1), YOU, 0, Atom("notsup"))]


@pytest.mark.parametrize("to_alias", [False, True])
def test_an_answer_goes_to_its_alias_however_it_comes(to_alias: bool) -> None:
    world = World()
    process, box = world.spawn()
    mine, answers = world.router.ids.next_ref(), list[Any]()
    world.router.open_alias(mine, answers.append)
    answer = (alias_tag(mine), 42)
    message = c.AliasSend(YOU, mine) if to_alias else c.Send(YOU, process.pid)
    world.receive(message, answer)
    assert answers == [answer]
    world.router.close_alias(mine)
    world.receive(message, answer)
    assert answers == [answer], "late answers reach nobody"
    assert box.messages == []


def test_a_message_that_only_looks_like_an_answer_is_a_message() -> None:
    world = World()
    process, box = world.spawn()
    theirs = (ImproperList((Atom("alias"),), ref(1)), 42)
    world.receive(c.Send(YOU, process.pid), theirs)
    assert box.messages == [theirs]


# -- inside one node -------------------------------------------------------------------------------


def test_local_processes_link_monitor_and_send_as_remote_ones_do() -> None:
    world = World()
    watcher, box = world.spawn(trap_exit=True)
    watched, watched_box = world.spawn("name")
    by_pid = world.router.monitor(watcher, watched.pid)
    by_name = world.router.monitor(watcher, (Atom("name"), Atom(US)))
    nobody = world.router.monitor(watcher, (Atom("nobody"), Atom(US)))
    world.router.link(watcher, watched.pid)
    assert world.router.send(watcher.pid, watched.pid, ("a", [1]))
    assert watched_box.messages == [(b"a", [1])], "with the types that cross a wire"
    world.router.exit(watcher.pid, watched.pid, BAD)
    process = Atom("process")
    assert box.signals[0] == (Atom("DOWN"), nobody, process, (Atom("nobody"), Atom(US)), NOPROC)
    assert sorted(map(repr, box.signals[1:])) == sorted(
        map(
            repr,
            [
                (Atom("EXIT"), watched.pid, BAD),
                (Atom("DOWN"), by_pid, process, watched.pid, BAD),
                (Atom("DOWN"), by_name, process, (Atom("name"), Atom(US)), BAD),
            ],
        )
    )
    assert world.sent == []


def test_a_ring_of_linked_processes_falls_without_deep_recursion() -> None:
    world = World()
    processes = [world.spawn()[0] for _ in range(5000)]
    for left, right in pairwise(processes):
        world.router.link(left, right.pid)
    world.router.terminate(processes[0], BAD)
    assert len(world.router.table) == 0


def test_what_is_no_term_is_not_sent() -> None:
    world = World()
    process, _ = world.spawn()
    with pytest.raises(EncodeError):
        world.router.send(process.pid, process.pid, object())


def test_a_name_is_given_once() -> None:
    world = World()
    world.spawn("name")
    with pytest.raises(ValueError, match="already registered: name"):
        world.spawn("other", "name")
    assert world.router.table.find(Atom("other")) is None


# -- what cannot be sent on ------------------------------------------------------------------------

RECORD = Record(Atom("m"), Atom("r"), 0, (), ())  # decodes; only OTP 29 may be sent one


def test_a_reason_that_cannot_be_sent_on_still_ends_the_process() -> None:
    world = World()
    process, box = world.spawn()
    world.receive(c.MonitorP(YOU, process.pid, ref(1)))
    world.receive(c.Exit2(YOU, process.pid), RECORD)
    assert box.stopped == [Atom("not_sendable")]
    assert world.take_sent() == [c.MonitorPExit(process.pid, YOU, ref(1), Atom("not_sendable"))]


def test_an_answer_to_a_tag_that_cannot_go_back_is_its_callers_loss() -> None:
    world = World()
    own, _ = world.spawn()
    process, _ = world.spawn()
    world.router.reply(process.pid, Sender(own.pid, RECORD), 1)
    with pytest.raises(EncodeError):
        world.router.reply(process.pid, Sender(own.pid, world.router.ids.next_ref()), RECORD)

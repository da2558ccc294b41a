"""Who may change or stop things: exit/2, `sys` requests that change, and a user's own rule."""

from __future__ import annotations

import pytest
from router_support import PEER, US, YOU, World, ref
from structlog.testing import capture_logs

from bridge.dist import control as c
from bridge.dist.names import matcher, pattern_problem
from bridge.etf import Atom, Pid
from bridge.node import Asked, Policy
from bridge.node.log_limit import LogLimit
from bridge.node.process.direct import NetKernel
from bridge.node.signals.gen import Call, Info

KILL, NORMAL = Atom("kill"), Atom("normal")
NOBODY_IS_ADMIN = Policy(admin=lambda node: False, admin_mend="add it to the list")


def call(request: object) -> tuple[object, ...]:
    return (Atom("$gen_call"), (YOU, ref(1)), request)


def system(request: object) -> tuple[object, ...]:
    return (Atom("system"), (YOU, ref(1)), request)


@pytest.mark.parametrize("reason", [KILL, Atom("shutdown")])
@pytest.mark.parametrize("priority", [False, True])
def test_exit_2_of_a_node_that_is_no_admin_does_nothing(reason: Atom, priority: bool) -> None:
    world = World(NOBODY_IS_ADMIN)
    process, box = world.spawn("counter")
    with capture_logs() as logs:
        if priority:
            world.receive(c.AltactSend(c.ALTACT_EXIT, YOU, process.pid), reason)
        else:
            world.receive(c.Exit2(YOU, process.pid, reason))
    assert world.router.table.find(process.pid) is process
    assert box.stopped == box.signals == []
    [line] = logs
    assert line["peer"] == PEER
    assert "add it to the list" in line["why"]


def test_a_node_alone_lets_every_peer_exit_its_processes_as_a_beam_would() -> None:
    world = World()
    process, box = world.spawn()
    world.receive(c.Exit2(YOU, process.pid, KILL))
    assert box.stopped == [Atom("killed")]


def test_a_node_is_its_own_admin() -> None:
    world = World(NOBODY_IS_ADMIN)
    process, box = world.spawn()
    other, _ = world.spawn()
    world.router.exit(other.pid, process.pid, KILL)
    assert box.stopped == [Atom("killed")]
    assert world.router.may(US, "anything")


def test_a_pid_of_ours_in_a_peer_s_exit_2_gives_it_no_rights() -> None:
    """The From of exit/2 is not checked by BEAMs; what counts is the connection."""
    world = World(NOBODY_IS_ADMIN)
    process, box = world.spawn()
    forged, _ = world.spawn()
    world.receive(c.Exit2(forged.pid, process.pid, KILL))
    assert box.stopped == []


def test_refusals_of_the_same_kind_are_one_line_until_the_window_is_over() -> None:
    clock = [0.0]
    limit = LogLimit(every_s=10, now=lambda: clock[0])
    assert limit.due("a") == 0
    assert [limit.due("a") for _ in range(3)] == [None, None, None]
    assert limit.due("b") == 0
    clock[0] = 10.0
    assert limit.due("a") == 3
    assert limit.due("a") is None


def test_the_log_limit_forgets_the_key_that_was_quiet_longest() -> None:
    limit = LogLimit(keys_max=2, now=lambda: 0.0)
    for key in ("a", "b", "a", "c"):  # c pushes b out, not a
        limit.due(key)
    assert limit.due("a") is None
    assert limit.due("b") == 0


@pytest.mark.parametrize(
    "request_",
    [
        (Atom("terminate"), NORMAL),
        (Atom("replace_state"), 1),
        (Atom("change_code"), Atom("m"), 1, 2),
        Atom("suspend"),
        Atom("resume"),
        (Atom("debug"), (Atom("trace"), True)),
        (Atom("debug"), (Atom("log"), (True, 10_000))),
        (Atom("debug"), (Atom("log"), Atom("print"))),
        (Atom("debug"), (Atom("statistics"), True)),
        (Atom("debug"), Atom("no_debug")),
    ],
)
@pytest.mark.parametrize("by_name", [False, True])
def test_a_sys_request_that_changes_is_refused_in_words(request_: object, by_name: bool) -> None:
    world = World(NOBODY_IS_ADMIN)
    process, box = world.spawn("counter")
    signal = c.RegSend(YOU, Atom("counter")) if by_name else c.Send(YOU, process.pid)
    world.receive(signal, system(request_))
    assert box.messages == []
    [(answer, value)] = world.sent
    assert answer == c.Send(process.pid, YOU)
    tag, (error, (unauthorized, why)) = value
    assert (tag, error, unauthorized) == (ref(1), Atom("error"), Atom("unauthorized"))
    assert PEER.encode() in why
    assert b"add it to the list" in why


@pytest.mark.parametrize("source", [(YOU, ref(1)), [YOU, ref(1)]])
def test_a_list_with_the_elements_of_a_sys_request_is_none(source: object) -> None:
    """It passes the door as the ordinary message that it is, so nobody behind it may obey it."""
    world = World(NOBODY_IS_ADMIN)
    kernel = NetKernel(world.router)
    pid = kernel.start((Atom("net_kernel"),))
    for request in ((Atom("terminate"), NORMAL), Atom("suspend")):
        world.receive(c.Send(YOU, pid), [Atom("system"), source, request])
    assert kernel.suspended is False
    assert world.router.table.find(pid) is not None
    assert world.sent == []


@pytest.mark.parametrize("by_alias", [False, True])
def test_an_exit_that_is_sent_as_a_message_is_for_admin_nodes(by_alias: bool) -> None:
    """A GenServer ends at an EXIT of its parent, a worker at one of a link: both take it for true,
    whosever pid it names.
    """
    world = World(NOBODY_IS_ADMIN)
    process, box = world.spawn("counter")
    to = c.AliasSend(YOU, world.router.alias(process)) if by_alias else c.Send(YOU, process.pid)
    for forged in (process.pid, YOU):
        with capture_logs():
            world.receive(to, (Atom("EXIT"), forged, Atom("boom")))
    world.receive(to, (Atom("EXIT"), 1, Atom("boom")))
    assert box.messages == [(Atom("EXIT"), 1, Atom("boom"))]
    process.spawned_by = PEER  # whom it may exit anyway
    world.receive(to, (Atom("EXIT"), YOU, Atom("boom")))
    assert box.messages[1:] == [(Atom("EXIT"), YOU, Atom("boom"))]


def test_the_group_leader_of_a_process_is_changed_by_admin_nodes_only() -> None:
    world = World(NOBODY_IS_ADMIN)
    process, _ = world.spawn("counter")
    with capture_logs() as logs:
        world.receive(c.GroupLeader(YOU, process.pid))
    assert process.group_leader is None
    assert "group_leader/2" in logs[0]["why"]
    process.spawned_by = PEER  # its own it may
    world.receive(c.GroupLeader(YOU, process.pid))
    assert process.group_leader == YOU


@pytest.mark.parametrize(
    "request_",
    [
        Atom("get_state"),
        Atom("get_status"),
        (Atom("debug"), (Atom("log"), Atom("get"))),
        (Atom("debug"), (Atom("statistics"), Atom("get"))),
        7,
        (1, 2),
    ],
)
def test_a_sys_request_that_looks_passes(request_: object) -> None:
    world = World(NOBODY_IS_ADMIN)
    process, box = world.spawn()
    world.receive(c.Send(YOU, process.pid), system(request_))
    assert box.messages == [system(request_)]


def test_authorise_is_asked_for_each_request_with_the_node_of_the_connection() -> None:
    asked: list[Asked] = []

    def authorise(request: Asked) -> bool:
        asked.append(request)
        return True

    world = World(Policy(authorise=authorise))
    _, box = world.spawn("counter", "other")
    forged = Pid(Atom("admin@h"), 1, 0, 1)
    world.receive(c.RegSend(YOU, Atom("counter")), (Atom("$gen_call"), (forged, ref(1)), 5))
    world.receive(c.RegSend(YOU, Atom("other")), b"hello")
    assert len(box.messages) == 2
    first, second = asked
    assert first.node == second.node == PEER
    assert first.names == {"counter", "other"}
    assert isinstance(first.request, Call)
    assert second.request == Info(b"hello")


@pytest.mark.parametrize(("verdict", "why"), [(False, PEER), ("only on Sundays", "only on")])
def test_a_call_that_authorise_refuses_is_answered_and_a_cast_is_dropped(
    verdict: bool | str, why: str
) -> None:
    world = World(Policy(authorise=lambda asked: verdict))
    process, box = world.spawn("counter")
    world.receive(c.Send(YOU, process.pid), call(5))
    world.receive(c.Send(YOU, process.pid), (Atom("$gen_cast"), 5))
    assert box.messages == []
    [(_, (_, (_, (unauthorized, text))))] = world.sent
    assert unauthorized == Atom("unauthorized")
    assert why.encode() in text


def test_names_and_globs_match_whole_names_only() -> None:
    admin = matcher(["web@10.0.0.5", "ops*@10.0.0.?", "[ab]@h"])
    for name in ("web@10.0.0.5", "ops@10.0.0.7", "ops_2@10.0.0.1", "a@h"):
        assert admin(name), name
    for name in ("web@10.0.0.55", "xweb@10.0.0.5", "ops@10.0.0.77", "c@h", "web@10.0.0.5\n", ""):
        assert not admin(name), name
    assert not matcher([])("web@h")


@pytest.mark.parametrize(
    ("pattern", "good"),
    [
        ("web@h", True),
        ("*@*", True),
        ("[ab]?@h*", True),
        ("*", False),
        ("web", False),
        ("@h", False),
    ],
)
def test_a_pattern_is_a_full_name_with_globs(pattern: str, good: bool) -> None:
    assert (pattern_problem(pattern) is None) is good


def test_a_flood_of_new_names_and_atoms_leaves_nothing_in_the_router() -> None:
    world = World()
    world.spawn("counter")
    for number in range(2_000):
        name = Atom(f"nobody_{number}")
        world.receive(c.RegSend(YOU, name), Atom(f"hello_{number}"))
        world.receive(c.MonitorP(YOU, name, ref(number)))
        world.receive(c.DemonitorP(YOU, name, ref(number)))
        world.receive(c.Send(YOU, Pid(Atom(f"node_{number}@h"), 1, 0, 1)), name)
    assert world.router.table.registered() == ["counter"]
    counts = world.router.counts()
    assert counts["processes"] == 1
    assert sum(counts.values()) == 1, counts

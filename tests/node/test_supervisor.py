"""Supervisors: strategies, restart intensity, restart types, shutdown, and OTP's own requests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from node_support import OpenNode, needs_erlang
from plain_carrier import plain_carrier

from bridge.etf import Atom, Pid
from bridge.node import ChildSpec, GenServer, Node, Policy, ProcessHandle, Stop, Supervisor
from bridge.node import open_node as open_any_node
from bridge.testing import Beam

KILL, BAD, SHUTDOWN, NORMAL = Atom("kill"), Atom("bad"), Atom("shutdown"), Atom("normal")


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    async with open_any_node(
        "supervision@127.0.0.1", cookie="none", listen=False, carrier=plain_carrier
    ) as opened:
        yield opened


class Story:
    """Children that write down what becomes of them."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.fails: set[str] = set()

    def take(self) -> list[str]:
        lines, self.lines = self.lines, []
        return lines

    def child(self, name: str, **options: Any) -> ChildSpec:
        story = self

        class Child(GenServer):
            async def init(self) -> None:
                if name in story.fails:
                    raise Stop(Atom("no_start"))
                story.lines.append(f"start {name}")

            async def handle_cast(self, request: Any) -> None:
                raise Stop(request)

            async def terminate(self, reason: Any) -> None:
                story.lines.append(f"end {name} {reason}")

        return ChildSpec.server(name, Child, name=name, **options)


async def run(node: Node, *children: ChildSpec, **options: Any) -> Supervisor:
    supervisor = Supervisor(children, **options)
    await node.start(supervisor, name="top")
    return supervisor


async def kill(node: Node, name: str, reason: Any = KILL) -> None:
    pid = node.whereis(name)
    assert pid is not None, f"{name} does not run"
    node.exit(pid, reason)
    await trio.testing.wait_all_tasks_blocked()


async def end(node: Node, name: str, reason: Any) -> None:
    await node.cast(name, reason)
    await trio.testing.wait_all_tasks_blocked()


async def test_an_exit_that_only_claims_a_child_s_end_is_not_believed(node: Node) -> None:
    story = Story()
    supervisor = await run(node, story.child("a"))
    before = node.whereis("a")
    await node.send("top", (Atom("EXIT"), before, KILL))
    with trio.fail_after(60):
        assert await node.call("top", Atom("count_children")) is not None
    assert story.take() == ["start a"]
    assert node.whereis("a") == before
    assert supervisor.get_state()[Atom("restarts")] == 0


# -- strategies ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "then"),
    [
        ("one_for_one", ["end b killed", "start b"]),
        ("rest_for_one", ["end b killed", "end c shutdown", "start b", "start c"]),
        (
            "one_for_all",
            [
                "end b killed",
                "end c shutdown",
                "end a shutdown",
                "start a",
                "start b",
                "start c",
            ],
        ),
    ],
)
async def test_who_is_started_again_with_a_child(
    node: Node, strategy: Any, then: list[str]
) -> None:
    story = Story()
    await run(node, *map(story.child, "abc"), strategy=strategy)
    assert story.take() == ["start a", "start b", "start c"]
    before = {name: node.whereis(name) for name in "abc"}
    await kill(node, "b")
    assert story.take() == then
    for name in "abc":
        assert (node.whereis(name) != before[name]) == (f"start {name}" in then)


async def test_children_stop_in_reverse_order_with_their_supervisor(node: Node) -> None:
    story = Story()
    supervisor = await run(node, *map(story.child, "abc"))
    monitor = await node.monitor(supervisor.pid)
    await trio.testing.wait_all_tasks_blocked()
    story.take()
    node.router.exit(supervisor.pid, supervisor.pid, SHUTDOWN)
    assert (await monitor.wait()).reason == SHUTDOWN
    assert story.take() == ["end c shutdown", "end b shutdown", "end a shutdown"]


async def test_the_end_of_the_node_stops_its_trees_in_order() -> None:
    story = Story()
    async with open_any_node(
        "ending@127.0.0.1", cookie="x", listen=False, carrier=plain_carrier
    ) as node:
        inner = ChildSpec.server(
            "inner",
            lambda: Supervisor([story.child("b"), story.child("c")]),
            server_class=Supervisor,
        )
        await run(node, story.child("a"), inner, story.child("d"))
        story.take()
    assert story.take() == [f"end {name} shutdown" for name in "dcba"]


async def test_a_child_that_does_not_start_fails_the_start_and_stops_the_others(
    node: Node,
) -> None:
    story = Story()
    story.fails.add("c")
    with pytest.raises(Stop, match="no_start"):
        await run(node, *map(story.child, "abc"))
    assert story.take() == ["start a", "start b", "end b shutdown", "end a shutdown"]
    assert node.whereis("top") is None


# -- intensity -------------------------------------------------------------------------------------


async def test_too_many_restarts_end_the_supervisor(
    node: Node, autojump_clock: trio.testing.MockClock
) -> None:
    story = Story()
    supervisor = await run(node, *map(story.child, "ab"), max_restarts=2, max_seconds=5)
    monitor = await node.monitor(supervisor.pid)
    for _ in range(2):
        await kill(node, "b")
    story.take()
    await kill(node, "b")
    assert (await monitor.wait()).reason == SHUTDOWN
    assert story.take() == ["end b killed", "end a shutdown"]


async def test_restarts_further_apart_than_the_period_go_on(
    node: Node, autojump_clock: trio.testing.MockClock
) -> None:
    story = Story()
    await run(node, story.child("a"), max_restarts=1, max_seconds=5)
    for _ in range(5):
        await kill(node, "a")
        assert node.whereis("a") is not None
        await trio.sleep(5.1)


async def test_a_child_that_cannot_start_again_counts_until_the_supervisor_ends(
    node: Node,
) -> None:
    story = Story()
    supervisor = await run(node, *map(story.child, "ab"))
    monitor = await node.monitor(supervisor.pid)
    story.take()
    story.fails.add("b")
    await kill(node, "b")
    assert (await monitor.wait()).reason == SHUTDOWN
    assert story.take() == ["end b killed", "end a shutdown"]


async def test_a_supervisor_above_starts_the_one_that_gave_up_again(node: Node) -> None:
    story = Story()
    inner = ChildSpec.server(
        "inner", lambda: Supervisor([story.child("a")], max_restarts=0), server_class=Supervisor
    )
    await run(node, inner)
    story.take()
    await kill(node, "a")
    assert story.take() == ["end a killed", "start a"]


# -- restart types ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("restart", "reason", "again", "listed"),
    [
        ("permanent", NORMAL, True, True),
        ("permanent", BAD, True, True),
        ("transient", BAD, True, True),
        ("transient", NORMAL, False, True),
        ("transient", SHUTDOWN, False, True),
        ("transient", (SHUTDOWN, 1), False, True),
        ("temporary", BAD, False, False),
        ("temporary", NORMAL, False, False),
    ],
)
async def test_which_ends_are_followed_by_a_start(
    node: Node, restart: Any, reason: Any, again: bool, listed: bool
) -> None:
    story = Story()
    supervisor = await run(node, story.child("a", restart=restart))
    await end(node, "a", reason)
    assert (node.whereis("a") is not None) == again
    assert [id_ for id_, _ in supervisor.which_children()] == [Atom("a")] * listed


async def test_functions_are_children_too(node: Node) -> None:
    lives: list[Pid] = []

    async def child(me: ProcessHandle, argument: int) -> None:
        lives.append(me.pid)
        await me.receive()

    await run(node, ChildSpec.function("f", child, 1, name="f"))
    await trio.testing.wait_all_tasks_blocked()
    await node.send("f", 1)  # ends it, with normal
    await trio.testing.wait_all_tasks_blocked()
    assert len(set(lives)) == 2
    assert node.whereis("f") == lives[1]


# -- shutdown --------------------------------------------------------------------------------------


async def stubborn(me: ProcessHandle, heard: list[Any]) -> None:
    me.trap_exit = True
    while True:
        heard.append((await me.receive())[2])


@pytest.mark.parametrize(
    ("shutdown", "heard", "takes"), [(3.0, [SHUTDOWN], 3.0), ("brutal_kill", [], 0.0)]
)
async def test_a_child_that_does_not_end_in_its_time_is_killed(
    node: Node,
    autojump_clock: trio.testing.MockClock,
    shutdown: Any,
    heard: list[Any],
    takes: float,
) -> None:
    got: list[Any] = []
    supervisor = await run(node, ChildSpec.function("s", stubborn, got, shutdown=shutdown))
    await trio.testing.wait_all_tasks_blocked()
    ((_, pid),) = supervisor.which_children()
    assert pid is not None
    monitor = await node.monitor(pid)
    began = trio.current_time()
    assert await node.call("top", (Atom("terminate_child"), Atom("s"))) == Atom("ok")
    assert (await monitor.wait()).reason == Atom("killed")
    assert trio.current_time() - began == pytest.approx(takes)
    assert got == heard


async def test_the_next_life_waits_for_the_end_of_the_one_before(node: Node) -> None:
    release, story = trio.Event(), list[str]()

    class Slow(GenServer):
        async def init(self) -> None:
            story.append("start")

        async def terminate(self, reason: Any) -> None:
            story.append("ending")
            await release.wait()
            story.append("ended")

    await run(node, ChildSpec.server("slow", Slow, name="slow"))
    await kill(node, "slow")
    assert story == ["start", "ending"]
    release.set()
    await trio.testing.wait_all_tasks_blocked()
    assert story == ["start", "ending", "ended", "start"]


# -- in Python -------------------------------------------------------------------------------------


async def test_children_are_added_while_it_runs(node: Node) -> None:
    story = Story()
    supervisor = await run(node, story.child("a"))
    pid = await supervisor.start_child(story.child("b"))
    assert node.whereis("b") == pid
    with pytest.raises(ValueError, match="two children"):
        await supervisor.start_child(story.child("b"))
    story.fails.add("c")
    with pytest.raises(Stop):
        await supervisor.start_child(story.child("c"))
    assert [id_ for id_, _ in supervisor.which_children()] == [Atom("a"), Atom("b")]


@pytest.mark.parametrize(
    "make",
    [
        lambda: ChildSpec.server("a", GenServer, restart="sometimes"),  # type: ignore[arg-type]
        lambda: ChildSpec.server("a", GenServer, shutdown=-1),
        lambda: ChildSpec.server("a", GenServer, shutdown="soon"),  # type: ignore[arg-type]
        lambda: Supervisor([ChildSpec.server("a", GenServer)] * 2),
        lambda: Supervisor([], strategy="simple_one_for_one"),  # type: ignore[arg-type]
        lambda: Supervisor([], max_restarts=-1),
        lambda: Supervisor([], max_seconds=0),
    ],
)
def test_what_is_no_specification_is_refused(make: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        make()


# -- asked by a BEAM -------------------------------------------------------------------------------


@needs_erlang
@pytest.mark.beam
async def test_otps_own_functions_work_from_iex(beam: Beam, open_test_node: OpenNode) -> None:
    story = Story()
    tree = Supervisor([story.child("a"), story.child("b", restart="temporary")])
    async with open_test_node(services={"top": tree}) as node:
        await beam.evaluate(f"top = {{:top, :'{node.name}'}}")
        assert await beam.evaluate(
            "[{:b, b, :worker, [:Child]}, {:a, a, :worker, [:Child]}] = "
            "Supervisor.which_children(top); {is_pid(a), is_pid(b)}"
        ) == ("{true, true}")
        # Compared there: releases differ in the order in which they show a map.
        assert await beam.evaluate(
            "Supervisor.count_children(top) === %{active: 2, specs: 2, supervisors: 0, workers: 2}"
        ) == ("true")
        assert await beam.evaluate(
            ":supervisor.get_childspec(top, :a) |> elem(1) === "
            "%{id: :a, modules: [:Child], restart: :permanent, shutdown: 5000, "
            "start: {:Child, :start, []}, type: :worker}"
        ) == ("true")
        assert await beam.evaluate("Supervisor.restart_child(top, :a)") == "{:error, :running}"
        assert await beam.evaluate("Supervisor.delete_child(top, :a)") == "{:error, :running}"
        assert await beam.evaluate("Supervisor.terminate_child(top, :a)") == ":ok"
        assert await beam.evaluate("Supervisor.which_children(top) |> List.last() |> elem(1)") == (
            ":undefined"
        )
        assert await beam.evaluate(
            "{:ok, pid} = Supervisor.restart_child(top, :a); "
            f"GenServer.cast({{:a, :'{node.name}'}}, :normal); is_pid(pid)"
        ) == ("true")
        assert await beam.evaluate("Supervisor.terminate_child(top, :b)") == ":ok"
        assert await beam.evaluate("Supervisor.terminate_child(top, :b)") == "{:error, :not_found}"
        assert await beam.evaluate("Supervisor.terminate_child(top, :a)") == ":ok"
        assert await beam.evaluate("Supervisor.delete_child(top, :a)") == ":ok"
        assert await beam.evaluate("Supervisor.which_children(top)") == "[]"
        assert await beam.evaluate(
            "Supervisor.start_child(top, %{id: :x, start: {M, :f, []}}) |> elem(1) |> elem(0)"
        ) == (":not_supported")
        assert await beam.evaluate(":sys.get_state(top).strategy") == ":one_for_one"
        assert await beam.evaluate("Supervisor.stop(top)") == ":ok"


@needs_erlang
@pytest.mark.beam
async def test_only_admin_nodes_change_a_tree(beam: Beam, open_test_node: OpenNode) -> None:
    story = Story()
    policy = Policy(admin=lambda name: False)
    services = {"top": Supervisor([story.child("a")])}
    async with open_test_node(services=services, policy=policy) as node:
        await beam.evaluate(f"top = {{:top, :'{node.name}'}}")
        for request in ("terminate_child", "restart_child", "delete_child"):
            assert await beam.evaluate(f"Supervisor.{request}(top, :a) |> elem(1) |> elem(0)") == (
                ":unauthorized"
            )
        assert await beam.evaluate("length(Supervisor.which_children(top))") == "1"

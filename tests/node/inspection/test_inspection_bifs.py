"""What `erlang` answers about a node and its processes: values, orders and errors of the BIFs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio
import trio.testing
from inspect_support import NAME, atom, inspected_node, keyword
from services import Counter

from bridge.etf import Pid
from bridge.node import ProcessHandle
from bridge.node.exports import Raise

BADARG = atom("badarg")
ITEMS = [
    "async_dist",
    "backtrace",
    "binary",
    "catchlevel",
    "current_function",
    "current_location",
    "current_stacktrace",
    "dictionary",
    "error_handler",
    "garbage_collection",
    "garbage_collection_info",
    "group_leader",
    "heap_size",
    "initial_call",
    "label",
    "last_calls",
    "links",
    "max_heap_size",
    "memory",
    "message_queue_data",
    "message_queue_len",
    "messages",
    "min_bin_vheap_size",
    "min_heap_size",
    "monitored_by",
    "monitors",
    "parent",
    "priority",
    "priority_messages",
    "reductions",
    "registered_name",
    "sequential_trace_token",
    "stack_size",
    "status",
    "suspending",
    "total_heap_size",
    "trace",
    "trap_exit",
]


async def sleeper(me: ProcessHandle) -> None:
    await me.receive()


async def test_processes_registered_and_whereis_agree() -> None:
    async with inspected_node() as rpc:
        pid = await rpc.node.start(Counter(), name="counter")
        assert pid in await rpc("erlang", "processes")
        assert atom("counter") in await rpc("erlang", "registered")
        assert await rpc("erlang", "whereis", atom("counter")) == pid
        assert await rpc("erlang", "whereis", atom("nobody")) == atom("undefined")
        assert await rpc("Process", "whereis", atom("nobody")) is None
        assert await rpc("erlang", "is_process_alive", pid) is True
        rpc.node.exit(pid, atom("kill"))
        assert await rpc("erlang", "is_process_alive", pid) is False
        assert await rpc("erlang", "process_info", pid) == atom("undefined")
        assert await rpc("Process", "info", pid) is None


async def test_process_info_tells_the_mailbox_links_and_monitors() -> None:
    async with inspected_node() as rpc:
        server = Counter()
        pid = await rpc.node.start(server, name="counter")
        other = await rpc.node.spawn(sleeper)
        await server.link(other)
        await server.monitor(other)
        watch = await rpc.node.monitor(pid)
        await rpc.node.call("counter", (atom("add"), 1))
        await rpc.node.send(pid, (atom("$gen_cast"), (atom("add"), 1)))
        info = keyword(await rpc("erlang", "process_info", pid))
        assert info["registered_name"] == atom("counter")
        assert info["message_queue_len"] == 1
        assert info["status"] == atom("runnable")
        assert info["links"] == [other]
        assert info["trap_exit"] is True
        assert info["reductions"] == 2
        items = [atom("monitors"), atom("monitored_by"), atom("messages")]
        monitors, monitored_by, messages = await rpc("erlang", "process_info", pid, items)
        assert monitors == (atom("monitors"), [(atom("process"), other)])
        assert monitored_by == (atom("monitored_by"), [rpc.node.caller().pid])
        assert messages == (atom("messages"), [(atom("$gen_cast"), (atom("add"), 1))])
        watch.cancel()
        await trio.testing.wait_all_tasks_blocked()
        info = keyword(await rpc("erlang", "process_info", pid))
        assert (info["message_queue_len"], info["status"]) == (0, atom("waiting"))
        assert await rpc("erlang", "process_info", pid, atom("monitored_by")) == (
            atom("monitored_by"),
            [],
        )


async def test_memory_of_a_process_grows_with_what_the_node_keeps_for_it() -> None:
    async with inspected_node() as rpc:
        pid = await rpc.node.spawn(sleeper)
        _, before = await rpc("erlang", "process_info", pid, atom("memory"))
        watches = [await rpc.node.monitor(pid) for _ in range(1000)]
        _, after = await rpc("erlang", "process_info", pid, atom("memory"))
        assert before > 100
        assert after - before > 1000 * 8
        for watch in watches:
            watch.cancel()


async def test_a_process_stands_where_its_task_waits() -> None:
    async with inspected_node() as rpc:
        pid = await rpc.node.spawn(sleeper)
        await trio.testing.wait_all_tasks_blocked()
        item = atom("current_function")
        _, function = await rpc("erlang", "process_info", pid, item)
        assert function == (atom(__name__), atom("sleeper"), 1)
        _, stack = await rpc("erlang", "process_info", pid, atom("current_stacktrace"))
        assert stack[0][:3] == function
        place = keyword(stack[0][3])
        assert bytes(place["file"]).decode() == __file__
        assert place["line"] == sleeper.__code__.co_firstlineno + 1


@pytest.mark.parametrize("items", [atom("no_such_item"), [atom("links"), 3], b"links", {}])
async def test_an_unknown_item_is_badarg(items: object) -> None:
    async with inspected_node() as rpc:
        pid = rpc.node.caller().pid
        with pytest.raises(Raise) as raised:
            await rpc("erlang", "process_info", pid, items)
        assert (raised.value.kind, raised.value.reason) == ("error", BADARG)


@pytest.mark.parametrize("function", ["process_info", "is_process_alive"])
async def test_a_pid_of_another_node_or_life_is_badarg(function: str) -> None:
    async with inspected_node() as rpc:
        for pid in (
            Pid(atom("other@h"), 1, 0, rpc.node.creation),
            Pid(atom(NAME), 1, 0, rpc.node.creation + 1),
            atom("net_kernel"),
        ):
            with pytest.raises(Raise) as raised:
                await rpc("erlang", function, pid)
            assert raised.value.reason == BADARG


async def test_a_name_that_is_absent_is_told_as_the_bif_does() -> None:
    async with inspected_node() as rpc:
        pid = await rpc.node.spawn(sleeper)
        name = atom("registered_name")
        assert await rpc("erlang", "process_info", pid, name) == []
        assert await rpc("erlang", "process_info", pid, [name]) == [(name, [])]
        assert await rpc("Process", "info", pid, name) == (name, [])
        assert "registered_name" not in keyword(await rpc("erlang", "process_info", pid))


async def test_the_dictionary_is_that_of_proc_lib_and_is_asked_by_key_too() -> None:
    async with inspected_node() as rpc:
        pid = await rpc.node.start(Counter(), name="counter")
        _, dictionary = await rpc("erlang", "process_info", pid, atom("dictionary"))
        root = await rpc("erlang", "whereis", atom("ringbridge_sup"))
        assert keyword(dictionary) == {
            "$initial_call": (atom("Elixir.Counter"), atom("init"), 1),
            "$ancestors": [root],
        }
        key = (atom("dictionary"), atom("$ancestors"))
        assert await rpc("erlang", "process_info", pid, key) == (key, [root])
        missing = (atom("dictionary"), atom("nothing"))
        assert await rpc("erlang", "process_info", pid, missing) == (missing, atom("undefined"))
        assert await rpc("erlang", "process_info", pid, atom("group_leader")) == (
            atom("group_leader"),
            root,
        )


async def test_every_item_of_otp_is_answered() -> None:
    async with inspected_node() as rpc:
        for pid in await rpc("erlang", "processes"):
            told = await rpc("erlang", "process_info", pid, [atom(item) for item in ITEMS])
            assert [key.name for key, _ in told] == ITEMS


async def test_memory_is_what_the_kernel_says() -> None:
    async with inspected_node() as rpc:
        memory = keyword(await rpc("erlang", "memory"))
        statm = Path("/proc/self/statm").read_text()  # noqa: ASYNC240  # memory, not a disk
        resident = int(statm.split()[1]) * os.sysconf("SC_PAGE_SIZE")
        assert memory["total"] == pytest.approx(resident, rel=0.1)
        assert memory["total"] == memory["processes"] + memory["system"]
        assert 0 < memory["code"] < memory["total"]
        told = await rpc("erlang", "memory", [atom("ets"), atom("code")])
        assert [key.name for key, _ in told] == ["ets", "code"]
        assert await rpc("erlang", "memory", atom("ets")) == 0
        with pytest.raises(Raise):
            await rpc("erlang", "memory", atom("bogus"))


async def test_nodes_are_hidden_ones() -> None:
    async with inspected_node() as rpc:
        assert await rpc("erlang", "nodes") == []
        assert await rpc("erlang", "nodes", atom("this")) == [atom(NAME)]
        assert await rpc("erlang", "node") == atom(NAME)
        assert await rpc("erlang", "node", rpc.node.caller().pid) == atom(NAME)
        with pytest.raises(Raise):
            await rpc("erlang", "nodes", atom("bogus"))


async def test_times_come_in_the_unit_that_was_asked_for() -> None:
    async with inspected_node() as rpc:
        seconds = await rpc("erlang", "system_time", atom("second"))
        millis = await rpc("os", "system_time", 1000)
        assert abs(millis - seconds * 1000) < 10_000
        mega, rest, micro = await rpc("erlang", "timestamp")
        assert abs(mega * 10**6 + rest - seconds) <= 10
        assert 0 <= micro < 10**6
        with pytest.raises(Raise):
            await rpc("erlang", "system_time", atom("fortnight"))


async def test_flags_are_read_not_set() -> None:
    async with inspected_node() as rpc:
        assert await rpc("erlang", "system_flag", atom("scheduler_wall_time"), False) is True
        with pytest.raises(Raise) as raised:
            await rpc("erlang", "system_flag", atom("schedulers_online"), 1)
        assert raised.value.reason == atom("notsup")

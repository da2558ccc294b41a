"""`observer_backend`, `appmon_info`: layouts of the records, and the processes that keep sending.

The shapes are those that observer's own code takes apart; test_inspection_by_real_programs.py has
that code take them.
"""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from inspect_support import Rpc, atom, inspected_node, keyword
from services import Counter

from bridge.etf import Pid
from bridge.node import ProcessHandle
from bridge.node.exports import Raise


class Window:
    """A process that collects what it is sent, as a tab of observer does."""

    def __init__(self, rpc: Rpc) -> None:
        self._rpc = rpc
        self._send, self._received = trio.open_memory_channel[Any](1000)
        self.pid: Pid

    async def open(self) -> Window:
        self.pid = await self._rpc.node.spawn(self._run, trap_exit=True)
        return self

    async def next(self) -> Any:
        with trio.fail_after(60):
            return await self._received.receive()

    def nothing(self) -> bool:
        return self._received.statistics().current_buffer_used == 0

    async def _run(self, me: ProcessHandle) -> None:
        while True:
            self._send.send_nowait(await me.receive())


async def test_procs_info_sends_a_row_for_each_process_and_ends() -> None:
    async with inspected_node() as rpc:
        counter = await rpc.node.start(Counter(), name="counter")
        window = await Window(rpc).open()
        backend = await rpc.spawn("observer_backend", "procs_info", window.pid, link=window.pid)
        tag, sender, rows = await window.next()
        assert (tag, sender) == (atom("procs_info"), backend)
        pids = {row[1] for row in rows}
        assert pids == {pid for pid in await rpc("erlang", "processes") if pid != backend}
        row = next(row for row in rows if row[1] == counter)
        _, _, memory, reductions, name, runtime, function, queue = row
        assert row[0] == atom("etop_proc_info")
        assert name == atom("counter")
        assert (reductions, runtime, queue) == (0, 0, 0)
        assert memory > 0
        assert function[0] == atom("bridge.node.process.service")
        assert await window.next() == (atom("EXIT"), backend, atom("normal"))


async def test_fetch_stats_keeps_sending_until_it_hears_anything() -> None:
    async with inspected_node(traffic=lambda: (11, 22)) as rpc:
        window = await Window(rpc).open()
        backend = await rpc.spawn("observer_backend", "fetch_stats", window.pid, 10)
        first, second = await window.next(), await window.next()
        for sample in (first, second):
            assert sample[:2] == (atom("stats"), 1)
            assert sample[3] == ((atom("input"), 11), (atom("output"), 22))
            assert keyword(sample[4])["total"] > 0
        (number, active, total), *_ = first[2]
        later = second[2][0]
        assert number == later[0] == 1
        assert 0 < total < later[2]
        assert 0 < active <= later[1]
        await rpc.node.send(backend, atom("exit"))
        with trio.fail_after(60):
            while await rpc("erlang", "is_process_alive", backend):
                await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("linked", [True, False])
async def test_fetch_stats_ends_with_its_window(linked: bool) -> None:
    async with inspected_node() as rpc:
        window = await Window(rpc).open()
        backend = await rpc.spawn(
            "observer_backend", "fetch_stats", window.pid, 0, link=window.pid if linked else None
        )
        await window.next()
        rpc.node.exit(window.pid, atom("kill"))
        with trio.fail_after(60):
            while await rpc("erlang", "is_process_alive", backend):
                await trio.lowlevel.checkpoint()


async def test_etop_collect_sends_the_record_that_etop_prints() -> None:
    async with inspected_node() as rpc:
        await rpc.node.start(Counter(), name="counter")
        window = await Window(rpc).open()
        backend = await rpc.spawn("observer_backend", "etop_collect", window.pid)
        sender, info = await window.next()
        assert sender == backend
        tag, now, count, wall_clock, runtime, run_queue, areas, memory, rows = info
        assert tag == atom("etop_info")
        assert len(now) == 3
        assert count == len(rows)
        assert backend not in {row[1] for row in rows}
        assert wall_clock == atom("undefined")
        assert [thread[0] for thread in runtime] == [1]
        assert (run_queue, areas) == (0, [])
        names = ["total", "processes", "ets", "atom", "code", "binary"]
        assert [key.name for key, _ in memory] == names


async def test_the_system_page_has_what_observer_divides_by() -> None:
    async with inspected_node() as rpc:
        page = keyword(await rpc("observer_backend", "sys_info"))
        assert bytes(page["otp_release"]) == b"27"
        assert page["process_count"] == len(await rpc("erlang", "processes"))
        for count, limit in [("atom", "atom"), ("process", "process"), ("port", "port")]:
            assert page[f"{count}_count"] / page[f"{limit}_limit"] >= 0
        # The allocators' tab computes 100 * block / carrier of the sum and of each that has any.
        sums = [0, 0]
        for name, [(tag, number, sizes)] in page["alloc_info"]:
            assert (tag, number) == (atom("instance"), 0)
            [(_, [(_, [(_, [(_, block, *_)])]), (_, carrier, *_)])] = sizes
            assert block <= carrier, name
            sums[0] += block
            sums[1] += carrier
        assert 0 < sums[0] <= sums[1]


async def test_tables_and_ports_are_none_and_mnesia_does_not_run() -> None:
    async with inspected_node() as rpc:
        assert await rpc("observer_backend", "get_table_list", atom("ets"), []) == []
        assert await rpc("observer_backend", "get_port_list") == []
        with pytest.raises(Raise) as raised:
            await rpc("observer_backend", "get_table_list", atom("mnesia"), [])
        assert raised.value.kind == "throw"


async def order(rpc: Rpc, appmon: Pid, window: Window, command: str, aux: Any, on: bool) -> None:
    message = (window.pid, atom(command), aux, on, [(atom("timeout"), 100)])
    await rpc.node.cast(appmon, message)


async def test_appmon_delivers_the_tree_again_when_it_has_changed() -> None:
    async with inspected_node() as rpc:
        counter = await rpc.node.start(Counter(), name="counter")
        window = await Window(rpc).open()
        ok, appmon = await rpc("appmon_info", "start_link2", window.pid, window.pid, [])
        assert ok == atom("ok")
        await order(rpc, appmon, window, "app_ctrl", atom(rpc.node.name), True)
        tag, sender, command, aux, [(master, name, (app, _, version))] = await window.next()
        assert (tag, sender, command) == (atom("delivery"), appmon, atom("app_ctrl"))
        assert (aux, name, app) == (atom(rpc.node.name), atom("ringbridge"), atom("ringbridge"))
        assert master == await rpc("erlang", "whereis", atom("ringbridge_sup"))
        assert version
        await order(rpc, appmon, window, "app", atom("ringbridge"), True)
        *_, (root, processes, links, others) = await window.next()
        names = {pid: bytes(text).decode() for pid, text in processes}
        assert bytes(root).decode() == names[master] == "ringbridge_sup"
        assert names[counter] == "counter"
        assert len(set(names.values())) == len(names), "observer finds boxes by name"
        assert (root, processes[[pid for pid, _ in processes].index(counter)][1]) in links
        assert (names[appmon], names[window.pid]) in {
            (bytes(one).decode(), bytes(other).decode()) for one, other in others
        }
        assert window.nothing()
        later = await rpc.node.start(Counter(), name="later")
        *_, (_, processes, _, _) = await window.next()
        assert later in {pid for pid, _ in processes}


async def test_a_second_window_shares_appmon_which_ends_with_its_starter() -> None:
    async with inspected_node() as rpc:
        first, second = await Window(rpc).open(), await Window(rpc).open()
        _, appmon = await rpc("appmon_info", "start_link2", first.pid, first.pid, [])
        assert await rpc("appmon_info", "start_link2", second.pid, second.pid, []) == (
            atom("ok"),
            appmon,
        )
        await order(rpc, appmon, second, "app_ctrl", 1, True)
        assert (await second.next())[2] == atom("app_ctrl")
        rpc.node.exit(first.pid, atom("kill"))
        assert (await second.next())[:2] == (atom("EXIT"), appmon)
        assert await rpc("erlang", "whereis", atom("appmon_info")) == atom("undefined")


async def test_appmon_is_linked_with_processes_of_the_caller_s_node_only() -> None:
    """It ends as its starter ends: whoever else it were linked with would end of that, a worker of
    ours or a process of a third node.
    """
    async with inspected_node() as rpc:
        window, other = await Window(rpc).open(), Pid(atom("third@h"), 1, 0, 1)
        _, appmon = await rpc("appmon_info", "start_link2", window.pid, window.pid, [])
        for starter, client in ((window.pid, other), (other, window.pid)):
            with pytest.raises(Raise):
                await rpc("appmon_info", "start_link2", starter, client, [])
        await rpc.node.cast(appmon, (atom("register_client"), other))
        await rpc.node.cast(appmon, (other, atom("load"), 1, True, []))
        await order(rpc, appmon, window, "app", 1, True)
        await window.next()
        process = rpc.node.router.table.find(appmon)
        assert process is not None
        assert set(process.links.active()) == {window.pid}


async def test_an_order_that_is_taken_back_delivers_nothing_more() -> None:
    async with inspected_node() as rpc:
        window = await Window(rpc).open()
        _, appmon = await rpc("appmon_info", "start_link2", window.pid, window.pid, [])
        await order(rpc, appmon, window, "app", atom("ringbridge"), True)
        await window.next()
        await order(rpc, appmon, window, "app", atom("ringbridge"), False)
        await rpc.node.start(Counter(), name="later")
        await order(rpc, appmon, window, "app", atom("nobody"), True)
        assert (await window.next())[3:] == (atom("nobody"), ([], [], [], []))
        await trio.sleep(0.25)  # two periods in which it could have been delivered
        assert window.nothing()
